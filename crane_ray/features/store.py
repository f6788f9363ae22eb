"""A feature store: one recipe, arrays of each slide, a ledger of shards, an index of whole slides.

A slide is there when it is in the index, not before. What lies under ``slides/`` is the same
for the same recipe and hardware, whoever wrote it and however often the run was interrupted.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.config import Config
from crane_ray.errors import StoreError
from crane_ray.features.ledger import Index, IndexRow, Ledger, Receipt
from crane_ray.features.recipe import Recipe
from crane_ray.plugins import load_plugin, require_plugin

FORMAT_VERSION = 1
CHUNK_ROWS = 512
"""Rows of one stored object: 1 MiB of 1024 float16 features."""
CHUNKS_PER_SHARD = 4
UNFINISHED = "unfinished"
STORES = "crane_ray.features.stores"

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SlideFeatures:
    """The features of one slide, and where each patch lies."""

    slide_id: str
    features: Array
    """(N, D) in the store's dtype."""
    xy: npt.NDArray[np.int32]
    """(N, 2) int32 top-left corners in level-0 px."""
    recipe: Recipe


@dataclass(frozen=True)
class SlideHeader:
    """What a layout must know to make the arrays of a slide; the same for all its shards."""

    slide_id: str
    num_patches: int
    dim: int
    dtype: str
    chunk_rows: int
    facts: dict[str, Any]
    """Deterministic attributes: scale and sizes; no times, hosts or runs."""


class SlideFormat(Protocol):
    """A layout of slide arrays. Writes of different shards never touch the same object."""

    def path(self, slides: str, slide_id: str) -> str:
        """Where a slide's arrays lie under the store's ``slides/``."""
        ...

    def write(self, path: str, header: SlideHeader, start: int, features: Array, xy: Array) -> None:
        """Writes consecutive rows beginning at a multiple of ``chunk_rows``, whole.

        Raises:
            StorageError: they cannot be written.
            StoreError: arrays with other facts are there; they are left as they are.
        """
        ...

    def read(self, path: str, start: int, stop: int | None) -> tuple[Array, Array]:
        """Features (n, D) and coordinates (n, 2) int32 of rows [start, stop).

        Raises:
            StoreError: they are missing or broken.
        """
        ...


def put_file(slide: str, name: str, data: bytes) -> None:
    """Writes one of a slide's files, whole, and nothing else, whoever is killed while writing.

    Unfinished files lie in a folder of their own beside ``slides/``.

    Args:
        slide: path of the slide's arrays (`SlideFormat.path`).
        name: of the file, below it.
        data: its content.

    Raises:
        StorageError: it cannot be written.
    """
    root = slide.rsplit("/", 2)[0]
    path = storage.join(slide, name)
    storage.put_bytes(path, data, by_way_of=storage.join(root, UNFINISHED))


class StoreHeader(Config):
    """The content of store.json."""

    format: Literal["crane-ray feature store"] = "crane-ray feature store"
    version: int = FORMAT_VERSION
    layout: str
    """Short name of the slide format."""
    chunk_rows: int
    """Rows of one stored object."""
    shard_rows: int
    """Rows of one shard of work: a whole multiple of chunk_rows."""
    recipe: Recipe
    recipe_fingerprint: str


class FeatureStore:
    """One store, opened or created; reading needs nothing but this class."""

    def __init__(self, root: str, header: StoreHeader) -> None:
        self.root = root
        self.header = header
        self.format: SlideFormat = load_plugin(STORES, header.layout).FORMAT
        self.ledger = Ledger(storage.join(root, "ledger"))
        self.index = Index(storage.join(root, "index.parquet"))

    @property
    def recipe(self) -> Recipe:
        """What the features are."""
        return self.header.recipe

    @classmethod
    def open(cls, root: str) -> Self:
        """An existing store.

        Raises:
            StoreError: there is none, or one of a newer format.
        """
        path = storage.join(root, "store.json")
        if not storage.exists(path):
            raise StoreError(
                f"store {root}: no feature store there (no store.json); a store is a folder such "
                "as WORK/features/resnet50_trunc, made by crane-ray extract"
            )
        try:
            tree = json.loads(storage.read_bytes(path))
            if tree.get("version", 0) > FORMAT_VERSION:
                raise StoreError(
                    f"store {root}: format version {tree['version']}, this crane-ray reads up to "
                    f"{FORMAT_VERSION}; upgrade crane-ray"
                )
            return cls(root, StoreHeader.model_validate(tree))
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"store {root}: store.json cannot be used: {error}") from error

    @classmethod
    def open_or_create(cls, root: str, recipe: Recipe, *, layout: str = "zarr") -> Self:
        """The store at a place, made if need be.

        Raises:
            ConfigError: there is no layout of that name.
            RecipeMismatchError: there is one of another recipe.
            StorageError: it cannot be written.
        """
        require_plugin(STORES, layout)
        if storage.exists(path := storage.join(root, "store.json")):
            store = cls.open(root)
            differs = store.recipe.fingerprint() != recipe.fingerprint()
            store.recipe.require(recipe, root, is_empty=differs and not store.index.read())
            return store
        header = StoreHeader(
            layout=layout,
            chunk_rows=CHUNK_ROWS,
            shard_rows=CHUNK_ROWS * CHUNKS_PER_SHARD,
            recipe=recipe,
            recipe_fingerprint=recipe.fingerprint(),
        )
        store = cls(root, header)
        storage.put_bytes(path, header.model_dump_json(indent=2).encode(), durable=True)
        return store

    @classmethod
    def recipe_at(cls, root: str) -> Recipe | None:
        """The recipe of the store at a place (see `open`); None where there is none yet."""
        return cls.open(root).recipe if storage.exists(storage.join(root, "store.json")) else None

    def clear_unfinished(self) -> None:
        """Removes the files that processes were writing when they were killed.

        Raises:
            StorageError: they cannot be removed.
        """
        if not storage.is_uri(self.root):  # there nothing is seen before it is finished
            storage.remove_tree(storage.join(self.root, UNFINISHED))
            for folder in (self.root, self.ledger.folder):
                storage.remove_unfinished(folder)

    def slide_path(self, slide_id: str) -> str:
        """Where a slide's arrays lie."""
        return self.format.path(storage.join(self.root, "slides"), slide_id)

    def reader(self) -> "StoreReader":
        """The slides that are committed now, for reading many of them.

        Raises:
            StoreError: the index cannot be read.
        """
        return StoreReader(self, self.index.num_patches())

    def slide_ids(self) -> list[str]:
        """The committed slides, sorted."""
        return self.reader().slide_ids()

    def read(self, slide_id: str) -> SlideFeatures:
        """Features and coordinates of one committed slide; the index is read for it alone.

        Raises:
            StoreError: it is not committed, or its arrays are missing or broken.
        """
        return self.reader().read(slide_id)

    def shard_rows(self, num_patches: int, shard: int) -> range:
        """The rows of one shard of a slide."""
        start = shard * self.header.shard_rows
        return range(start, min(start + self.header.shard_rows, num_patches))

    def num_shards(self, num_patches: int) -> int:
        """Number of shards of a slide."""
        return -(-num_patches // self.header.shard_rows)

    def discard(self, receipts: Iterable[Receipt]) -> None:
        """Takes slides out for good, given the receipts of their shards.

        The ledger forgets them first, then the index, then the arrays go: a reader never meets
        a slide that is half there.
        """
        receipts = list(receipts)
        slides = sorted({receipt.slide_id for receipt in receipts})
        self.ledger.append(replace(receipt, status="discarded") for receipt in receipts)
        index = self.index.read()
        self.index.write(row for slide_id, row in index.items() if slide_id not in slides)
        for slide_id in slides:
            storage.remove_tree(self.slide_path(slide_id))

    def damaged_shards(self, row: IndexRow) -> list[int]:
        """The shards of a committed slide whose bytes are not those that were written."""
        damaged = []
        for shard, checksum in enumerate(row.checksums):
            rows = self.shard_rows(row.num_patches, shard)
            try:
                arrays = self.format.read(self.slide_path(row.slide_id), rows.start, rows.stop)
            except StoreError:
                damaged.append(shard)
                continue
            if checksum_of(*arrays) != checksum:
                damaged.append(shard)
        return damaged


class StoreReader:
    """A store's committed slides at one moment; the index was read once for all of them.

    Slides committed later are not in it; one that is discarded later cannot be read any more.
    """

    def __init__(self, store: FeatureStore, num_patches: Mapping[str, int]) -> None:
        self.store = store
        self._num_patches = num_patches

    def slide_ids(self) -> list[str]:
        """The slides, sorted."""
        return sorted(self._num_patches)

    def num_patches(self, slide_id: str) -> int:
        """Patches of a slide.

        Raises:
            StoreError: it is not committed.
        """
        found = self._num_patches.get(slide_id)
        if found is None:
            raise StoreError(
                f"store {self.store.root}: slide {slide_id} is not in its index; extract it first "
                "(crane-ray extract), or see the last manifest for why it was left out"
            )
        return found

    def read(self, slide_id: str) -> SlideFeatures:
        """Features and coordinates of a slide.

        Raises:
            StoreError: it is not committed, or its arrays are missing or broken.
        """
        store, stop = self.store, self.num_patches(slide_id)
        features, xy = store.format.read(store.slide_path(slide_id), 0, stop)
        return SlideFeatures(slide_id, features, xy, store.recipe)


def checksum_of(features: Array, xy: Array) -> str:
    """SHA-256 of rows as they are stored: features, then coordinates, little-endian."""
    digest = hashlib.sha256(np.ascontiguousarray(features).data)
    digest.update(np.ascontiguousarray(xy, dtype="<i4").data)
    return digest.hexdigest()
