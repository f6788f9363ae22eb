"""Where bags come from: a feature store, or a folder of CLAM's or TRIDENT's files."""

import hashlib
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import ConfigError, SlideError, StoreError
from crane_ray.features.feature_files import (
    SUBFOLDERS,
    FeatureFiles,
    list_feature_files,
    open_features,
)
from crane_ray.features.store import FeatureStore

Array = npt.NDArray[Any]
HINT = (
    "give --features a feature store (WORK/features/ENCODER), or a folder with CLAM's h5_files or "
    "pt_files, or TRIDENT's .h5 files"
)


class FeatureSource(Protocol):
    """The features of a cohort's slides."""

    root: str
    """Where they lie."""

    def slide_ids(self) -> list[str]:
        """The slides that have features, sorted, as the source spells them."""
        ...

    def read(self, slide_id: str) -> Array:
        """(N, D) features in the type they are stored in.

        Raises:
            SlideError: they are broken, or are not there any more.
            StorageError: the storage fails.
        """
        ...

    def identity(self) -> str:
        """16 hex digits that change when the features do."""
        ...

    def provenance(self) -> dict[str, Any]:
        """What made the features, as far as is known: recipe and fingerprint."""
        ...


class StoreSource:
    """A feature store."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._store = FeatureStore.open(root)
        self._reader = self._store.reader()

    def slide_ids(self) -> list[str]:
        """See `FeatureSource`."""
        return self._reader.slide_ids()

    def read(self, slide_id: str) -> Array:
        """See `FeatureSource`."""
        try:
            return self._reader.read(slide_id).features
        except StoreError as error:
            raise SlideError(str(error)) from error

    def identity(self) -> str:
        """See `FeatureSource`."""
        index = storage.facts_of(self._store.index.path)
        text = repr((self._store.header.recipe_fingerprint, index))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def provenance(self) -> dict[str, Any]:
        """See `FeatureSource`."""
        return {
            "root": self.root,
            "recipe": self._store.recipe.model_dump(mode="json"),
            "recipe_fingerprint": self._store.header.recipe_fingerprint,
        }


class FileSource:
    """A folder of h5 or pt files; of a slide that has both, the pt file is read."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._files = {files.slide_id: files for files in list_feature_files(root)}

    def slide_ids(self) -> list[str]:
        """See `FeatureSource`."""
        return sorted(self._files)

    def read(self, slide_id: str) -> Array:
        """See `FeatureSource`."""
        files = self._files[slide_id]
        if files.h5 and files.pt:
            files = FeatureFiles(slide_id, pt=files.pt, problem=files.problem)
        with open_features(files) as found:
            return found.read(0, found.num_patches)

    def identity(self) -> str:
        """See `FeatureSource`."""
        digest = hashlib.sha256()
        for kind, below in SUBFOLDERS.items():
            for place in (self.root, storage.join(self.root, below)):
                digest.update(repr(storage.list_facts(place, f".{kind}")).encode())
        return digest.hexdigest()[:16]

    def provenance(self) -> dict[str, Any]:
        """See `FeatureSource`."""
        return {"root": self.root}


def open_source(root: str) -> FeatureSource:
    """The features at a place.

    Raises:
        ConfigError: there are none.
        StoreError: there is a store that cannot be used.
    """
    if storage.exists(storage.join(root, "store.json")):
        return StoreSource(root)
    if storage.kind_of(root) != "folder":
        raise ConfigError(f"features {root}: no such folder; {HINT}")
    try:
        return FileSource(root)
    except ConfigError as error:
        raise ConfigError(f"features {root}: none are there; {HINT}") from error


def as_float(features: Array) -> Array:
    """Features in a type that bags are kept in: float16 and float32 as they are, else float32.

    Numbers that float32 cannot hold become infinite.
    """
    if features.dtype in {np.dtype(np.float16), np.dtype(np.float32)}:
        return features
    with np.errstate(over="ignore"):
        return features.astype(np.float32)
