"""From scores to colours: what a map's colours mean, and the table of a colour map."""

from functools import cache

import numpy as np
import numpy.typing as npt

from crane_ray.maps.percentiles import percentiles
from crane_ray.maps.scores import SlideScores
from crane_ray.maps.settings import MapSettings

Floats = npt.NDArray[np.float64]
Table = npt.NDArray[np.uint8]
"""(K, 3) RGB, K the colour map's number of colours."""


@cache
def colour_table(name: str) -> Table:
    """The colours of one of matplotlib's maps, from the lowest to the highest value."""
    from matplotlib import colormaps

    cmap = colormaps[name]
    table = (cmap(np.arange(cmap.N)) * 255)[:, :3].astype(np.uint8)
    table.setflags(write=False)  # shared by all who ask
    return table


def colour_indices(values: Floats, table: Table) -> npt.NDArray[np.intp]:
    """The row of the table for each value from 0 to 1: the colour map cut into equal parts."""
    return np.minimum((values * len(table)).astype(np.intp), len(table) - 1)


def shown_values(scores: SlideScores, head: str, settings: MapSettings) -> Floats:
    """What a map shows of each patch, (N,) from 0 to 1, by the settings' scale.

    Raw scores run from the slide's lowest to its highest; where all are equal they are in the
    middle. (CLAM divides raw scores by 100 before it colours them, which shows one colour.)

    Raises:
        StoreError: there is no such head.
        ConfigError: scores are NaN.
    """
    if settings.scale == "reference":
        return np.asarray(scores.of(head), dtype=np.float64)
    raw_N = scores.of(head, "raw").astype(np.float64)
    if settings.scale == "percentile":
        return percentiles(raw_N)
    if not len(raw_N):
        return raw_N
    low, high = raw_N.min(), raw_N.max()
    return (raw_N - low) / (high - low) if high > low else np.full(len(raw_N), 0.5)


def shown_patches(values_N: Floats, settings: MapSettings) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Values as they are painted, and which patches are: all, or binarised those that pass."""
    if not settings.binarize:
        return values_N, np.ones(len(values_N), dtype=np.bool_)
    threshold = settings.threshold
    if threshold < 0:
        threshold = 1 / max(1, len(values_N))
    # Stored percentiles are float32, in which 0.9 lies a little below the 0.9 asked for.
    passed = values_N.astype(np.float32) >= np.float32(threshold)
    return passed.astype(np.float64), passed
