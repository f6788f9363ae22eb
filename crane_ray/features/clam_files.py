"""CLAM's feature files, written: ``h5_files/{slide_id}.h5`` and ``pt_files/{slide_id}.pt``.

An h5 file has ``features`` (N, D) float32 and ``coords`` (N, 2) int32, level-0 px; a pt file is
the bare (N, D) float32 tensor. Both carry the checksum of what they were made from, where CLAM's
readers do not look (an attribute; the zip archive's comment), so that an export that was
interrupted goes on, and one of changed features is made anew.
"""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import h5py
import numpy as np

from crane_ray import storage
from crane_ray.errors import StoreError
from crane_ray.features.ledger import IndexRow
from crane_ray.features.recipe import Recipe
from crane_ray.features.store import Array, FeatureStore, checksum_of

ClamFormat = Literal["h5", "pt"]
CLAM_FORMATS: tuple[ClamFormat, ...] = ("h5", "pt")
NO_COORDS = -1
"""x and y of every patch of a slide whose features came without coordinates."""
SOURCE = "source_checksum"
COMMENT = b"crane-ray source_checksum "


@dataclass(frozen=True)
class Exported:
    """What came of one slide's export."""

    slide_id: str
    patches: int
    written: tuple[ClamFormat, ...]
    """The files that were not there already; none for a slide exported before."""


def has_coords(xy: Array) -> bool:
    """False for the coordinates of a slide that was imported without any."""
    return not bool((xy == NO_COORDS).all())


def clam_file(folder: str, slide_id: str, kind: ClamFormat) -> str:
    """Where CLAM looks for a slide's features under a folder."""
    return storage.join(folder, f"{kind}_files", f"{slide_id}.{kind}")


def export_slide(
    store: FeatureStore, row: IndexRow, folder: str, formats: Sequence[ClamFormat] = CLAM_FORMATS
) -> Exported:
    """Writes a committed slide as CLAM's files, each whole or not at all.

    A file that was made from the same features is left alone. Features are read back against
    the checksums of the store's index before any are written.

    Args:
        store: the store.
        row: the slide's row in its index.
        folder: a folder or URI; ``h5_files`` and ``pt_files`` are made in it.
        formats: which of the two.

    Raises:
        StoreError: the slide's arrays are missing, or not as they were written.
        StorageError: a file cannot be written.
    """
    source = _source_checksum(row)
    missing = tuple(
        kind for kind in dict.fromkeys(formats) if not _is_there(folder, row, kind, source)
    )
    if missing:
        features, xy = _read_checked(store, row)
        for kind in missing:
            data = (
                _h5(features, xy, _attributes(store.recipe, row), source)
                if kind == "h5"
                else _pt(features, source)
            )
            storage.put_bytes(clam_file(folder, row.slide_id, kind), data)
    return Exported(row.slide_id, row.num_patches, missing)


def _source_checksum(row: IndexRow) -> str:
    return hashlib.sha256("".join(row.checksums).encode()).hexdigest()


def _read_checked(store: FeatureStore, row: IndexRow) -> tuple[Array, Array]:
    """Features as float32, and coordinates."""
    features, xy = store.format.read(store.slide_path(row.slide_id), 0, row.num_patches)
    for shard, checksum in enumerate(row.checksums):
        rows = store.shard_rows(row.num_patches, shard)
        if checksum_of(features[rows.start : rows.stop], xy[rows.start : rows.stop]) != checksum:
            raise StoreError(
                f"slide {row.slide_id}: shard {shard} is not as it was written; run crane-ray "
                f"verify {store.root} --repair, then make it again"
            )
    return features.astype(np.float32), xy


def _attributes(recipe: Recipe, row: IndexRow) -> dict[str, Any]:
    """Attributes of ``coords``: what an import needs to know the features again."""
    known = {"name": row.slide_id, "mpp": row.mpp, "recipe": recipe.canonical_json()}
    return {key: value for key, value in known.items() if value is not None}


def _h5(features: Array, xy: Array, attributes: dict[str, Any], source: str) -> bytes:
    # In memory: on a full disk HDF5 raises no OSError and crashes the process at its end.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        stored = file.create_dataset("features", data=features)
        stored.attrs[SOURCE] = source
        target = stored
        if has_coords(xy):
            target = file.create_dataset("coords", data=xy.astype(np.int32))
        for key, value in attributes.items():
            target.attrs[key] = value
    return content.getvalue()


def _pt(features: Array, source: str) -> bytes:
    import torch

    content = io.BytesIO()
    torch.save(torch.from_numpy(features), content)
    with zipfile.ZipFile(content, "a") as archive:
        archive.comment = COMMENT + source.encode()
    return content.getvalue()


def _is_there(folder: str, row: IndexRow, kind: ClamFormat, source: str) -> bool:
    """True for a whole file that was made from these features.

    Its numbers are not read; one that was cut short lacks its archive's directory (pt), or is
    shorter than its header says (h5).
    """
    path = clam_file(folder, row.slide_id, kind)
    if not storage.exists(path):
        return False
    try:
        with storage.open_read(path) as raw:
            if kind == "pt":
                with zipfile.ZipFile(raw) as archive:
                    return archive.comment == COMMENT + source.encode()
            with h5py.File(raw, "r") as file:
                features = file["features"]
                same = features.shape == (row.num_patches, row.dim)
                return bool(same and features.attrs.get(SOURCE) == source)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return False
