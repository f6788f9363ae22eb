"""The features of one slide with the place of each patch, read part by part.

A bag comes from a feature store or from an h5 file of CLAM's or TRIDENT's. Maps need coordinates,
so that CLAM's pt files alone will not do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.findings import counted
from crane_ray.config import Config
from crane_ray.errors import SlideError, StoreError
from crane_ray.features.feature_files import FeatureFiles, Rows, open_features
from crane_ray.features.store import FeatureStore
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.patches import PatchGrid

Points = npt.NDArray[np.int32]
"""(N, 2) int32 top-left corners in level-0 px."""


class BagPlace(Config):
    """Where the features of a slide lie, and how many there are."""

    name: str
    """Of the slide, as its features spell it."""
    store: str = ""
    """Feature store that has them; else they are in a file."""
    num_patches: int = 0
    """Of a store."""
    h5: str = ""
    """File that has them."""
    identity: str = ""
    """Changes when the features or their coordinates do."""


class OpenBag:
    """One slide's features, open for reading; coordinates are there once they were all read."""

    def __init__(self, features: Rows, xy: Points) -> None:
        self.features = features
        self.xy = xy

    def require_coordinates(self, where: str) -> None:
        """Refuses a bag whose patches are nowhere.

        Raises:
            SlideError: they are (-1, -1), as of features that were imported without.
        """
        if len(self.xy) and self.xy.min() < 0 and (self.xy == -1).all():
            raise SlideError(f"{where}: {NO_COORDINATES}")


NO_COORDINATES = (
    "features without coordinates have no place on a slide (CLAM's pt files hold none); give "
    "--features the folder with CLAM's h5_files, or import those (crane-ray import features)"
)


class _StoreRows:
    """Features of a store's slide; coordinates are kept as the rows are read."""

    def __init__(self, place: BagPlace) -> None:
        store = FeatureStore.open(place.store)
        self._format, self._path = store.format, store.slide_path(place.name)
        self.shape: tuple[int, ...] = (place.num_patches, store.recipe.encoder.dim)
        self.dtype: np.dtype[Any] = np.dtype(store.recipe.dtype)
        self.xy = np.zeros((place.num_patches, 2), dtype=np.int32)

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        try:
            features, self.xy[rows] = self._format.read(self._path, rows.start, rows.stop)
        except StoreError as error:
            raise SlideError(f"{error}; crane-ray verify --repair takes it out") from error
        return features


@contextmanager
def open_bag(place: BagPlace) -> Iterator[OpenBag]:
    """The bag at a place.

    Raises:
        SlideError: it is broken, or has no coordinates.
        StoreError: the store cannot be used.
    """
    if place.store:
        rows = _StoreRows(place)
        yield OpenBag(rows, rows.xy)
        return
    if not place.h5:
        raise SlideError(NO_COORDINATES)
    with open_features(FeatureFiles(place.name, h5=place.h5)) as found:
        if found.xy is None:
            raise SlideError(f"{place.h5}: {NO_COORDINATES}")
        yield OpenBag(found.sources[0], found.xy)


def grid_of(bag: OpenBag, patches: str, slide_id: str) -> PatchGrid:
    """The patches of a bag, row for row, with their size and how they are read.

    Args:
        bag: read to its end.
        patches: file of the workspace that has the slide's patches.
        slide_id: of the slide.

    Raises:
        SlideError: there is no such file, or it has other patches than the features.
    """
    grid = read_patches(patches, slide_id)
    if not _same_places(grid.xy, bag.xy):
        there, here = (counted(len(xy), "patch", "patches") for xy in (grid.xy, bag.xy))
        raise SlideError(
            f"{patches} has {there}, its features are of {here} at other places; extract them "
            "again (crane-ray extract --replace-stale), or patch it as it was for these features"
        )
    return replace(grid, xy=bag.xy.astype(np.int64))


def _same_places(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    if one.shape != other.shape:
        return False
    if np.array_equal(one, other):
        return True
    first, second = (xy[np.lexsort(xy.T)] for xy in (one, other))
    return np.array_equal(first, second)
