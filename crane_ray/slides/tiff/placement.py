"""Where a region lies in the pixels of its level, as OpenSlide 4.0 places it."""

import numpy as np
import numpy.typing as npt

MAX_PIECE_PX = 4096
"""OpenSlide paints larger regions in pieces, each placed anew."""


def level_origins(
    xy: npt.NDArray[np.int64], downsample: float, size: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Top-left corners in pixels of a level, and which of them lie on whole pixels.

    OpenSlide divides a corner by the level's downsample and interpolates where a fraction is
    left; a negative coordinate is cut towards zero instead, apart from the other.

    Args:
        xy: (N, 2) corners, level-0 px.
        downsample: the level's, as OpenSlide reports it.
        size: (width, height) of the regions in px of the level.

    Returns:
        (N, 2) corners in px of the level, meaningless where the second, (N,), is False.
    """
    scaled = xy / downsample
    origins = np.where(xy < 0, np.trunc(scaled), np.floor(scaled)).astype(np.int64)
    whole = (xy < 0) | (origins == scaled)
    if downsample != 1.0 and max(size) > MAX_PIECE_PX:
        whole = (origins * downsample == xy) & (downsample == round(downsample))
    return origins, whole.all(axis=1)
