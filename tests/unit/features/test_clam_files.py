"""CLAM's files from a store: what is in them, what is written again, what is refused."""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from crane_ray import storage
from crane_ray.errors import StorageError, StoreError
from crane_ray.features import clam_files
from crane_ray.features.clam_files import NO_COORDS, Exported, clam_file, export_slide, has_coords
from crane_ray.features.ledger import IndexRow
from crane_ray.features.recipe import FeatureType, Recipe
from crane_ray.features.store import (
    Array,
    FeatureStore,
    SlideHeader,
    StoreHeader,
    checksum_of,
)
from tests.unit.features.small_store import CHUNK_ROWS, SHARD_ROWS, make_recipe

DIM = 12
NUM_PATCHES = 2 * SHARD_ROWS + 3


def make_slide(
    root: Path, layout: str = "zarr", dtype: FeatureType = "float16", seed: int = 0
) -> tuple[FeatureStore, IndexRow]:
    """A store with one committed slide of three shards."""
    recipe = make_recipe(dtype=dtype)
    if not (root / "store.json").exists():
        header = StoreHeader(
            layout=layout,
            chunk_rows=CHUNK_ROWS,
            shard_rows=SHARD_ROWS,
            recipe=recipe,
            recipe_fingerprint=recipe.fingerprint(),
        )
        root.mkdir(parents=True, exist_ok=True)
        (root / "store.json").write_text(header.model_dump_json())
    store = FeatureStore.open(str(root))
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(NUM_PATCHES, DIM)).astype(dtype)
    xy = rng.integers(0, 99_999, (NUM_PATCHES, 2)).astype(np.int32)
    return store, put_slide(store, "a.b", features, xy)


def put_slide(store: FeatureStore, slide_id: str, features: Array, xy: Array) -> IndexRow:
    """Writes and commits a slide as an extraction would."""
    header = SlideHeader(
        slide_id, len(features), features.shape[1], str(features.dtype), CHUNK_ROWS, {}
    )
    checksums = []
    for shard in range(store.num_shards(len(features))):
        rows = store.shard_rows(len(features), shard)
        part = features[rows.start : rows.stop], xy[rows.start : rows.stop]
        store.format.write(store.slide_path(slide_id), header, rows.start, *part)
        checksums.append(checksum_of(*part))
    row = IndexRow(slide_id, "", len(features), features.shape[1], 0.25, "c", tuple(checksums))
    store.index.write([*store.index.read().values(), row])
    return row


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        path.name: (path.stat().st_mtime_ns, path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("layout", ["zarr", "parquet"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_clams_readers_find_what_they_expect(
    tmp_path: Path, layout: str, dtype: FeatureType
) -> None:
    store, row = make_slide(tmp_path / "store", layout, dtype)
    stored = store.read("a.b")
    done = export_slide(store, row, str(tmp_path / "clam"))
    assert done == Exported("a.b", NUM_PATCHES, ("h5", "pt"))
    with h5py.File(tmp_path / "clam" / "h5_files" / "a.b.h5") as file:
        assert sorted(file) == ["coords", "features"]
        features, coords = file["features"][:], file["coords"][:]
        assert (features.dtype, coords.dtype) == (np.float32, np.int32)
        assert Recipe.model_validate_json(file["coords"].attrs["recipe"]) == store.recipe
        assert file["coords"].attrs["mpp"] == 0.25
    np.testing.assert_array_equal(features, stored.features.astype(np.float32))
    np.testing.assert_array_equal(coords, stored.xy)
    for mapped in (False, True):
        path = tmp_path / "clam" / "pt_files" / "a.b.pt"
        tensor = torch.load(path, weights_only=True, mmap=mapped)
        assert isinstance(tensor, torch.Tensor)
        assert (tensor.dtype, tensor.shape) == (torch.float32, (NUM_PATCHES, DIM))
        np.testing.assert_array_equal(tensor.numpy(), features)


def test_what_is_there_is_left_alone_and_the_rest_made(tmp_path: Path) -> None:
    store, row = make_slide(tmp_path / "store")
    clam = tmp_path / "clam"
    assert export_slide(store, row, str(clam), ["h5"]).written == ("h5",)
    before = stamps(clam)
    assert export_slide(store, row, str(clam)).written == ("pt",)
    after = stamps(clam)
    assert after["a.b.h5"] == before["a.b.h5"]
    assert export_slide(store, row, str(clam)).written == ()
    assert stamps(clam) == after


def test_the_same_features_give_the_same_bytes(tmp_path: Path) -> None:
    store, row = make_slide(tmp_path / "store")
    contents = []
    for folder in ("one", "two"):
        export_slide(store, row, str(tmp_path / folder))
        contents.append([Path(clam_file(str(tmp_path / folder), "a.b", kind)).read_bytes()
                         for kind in ("h5", "pt")])  # fmt: skip
    assert contents[0] == contents[1]


def test_changed_features_are_exported_again(tmp_path: Path) -> None:
    store, row = make_slide(tmp_path / "store")
    export_slide(store, row, str(tmp_path / "clam"))
    store, changed = make_slide(tmp_path / "store", seed=1)
    assert changed.num_patches == row.num_patches
    assert export_slide(store, changed, str(tmp_path / "clam")).written == ("h5", "pt")
    tensor = torch.load(clam_file(str(tmp_path / "clam"), "a.b", "pt"), weights_only=True)
    np.testing.assert_array_equal(tensor.numpy(), store.read("a.b").features.astype(np.float32))


@pytest.mark.parametrize("kind", ["h5", "pt"])
@pytest.mark.parametrize("keep", [0, 0.3, 0.9, 0.9999])
def test_a_file_cut_short_or_of_another_make_is_made_again(
    tmp_path: Path, kind: clam_files.ClamFormat, keep: float
) -> None:
    store, row = make_slide(tmp_path / "store")
    path = Path(clam_file(str(tmp_path), "a.b", kind))
    export_slide(store, row, str(tmp_path))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    assert export_slide(store, row, str(tmp_path)).written == (kind,)
    assert path.read_bytes() == data
    foreign = np.zeros((NUM_PATCHES, DIM), np.float32)
    if kind == "pt":
        torch.save(torch.from_numpy(foreign), path)
    else:
        with h5py.File(path, "w") as file:
            file["features"] = foreign
    assert export_slide(store, row, str(tmp_path)).written == (kind,)
    assert path.read_bytes() == data


def test_an_export_that_was_interrupted_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, row = make_slide(tmp_path / "store")
    put, written = storage.put_bytes, list[str]()

    def full(path: str, data: bytes, **more: Any) -> None:
        if path.endswith(".pt"):
            raise StorageError(f"{path}: the disk is full", 28)
        written.append(path)
        put(path, data, **more)

    monkeypatch.setattr(storage, "put_bytes", full)
    with pytest.raises(StorageError):
        export_slide(store, row, str(tmp_path / "clam"))
    monkeypatch.undo()
    assert len(written) == 1
    assert export_slide(store, row, str(tmp_path / "clam")).written == ("pt",)


def test_damaged_features_are_not_exported(tmp_path: Path) -> None:
    store, row = make_slide(tmp_path / "store", "parquet")
    wrong = replace(row, checksums=(*row.checksums[:2], "0" * 64))
    with pytest.raises(StoreError, match=r"slide a\.b: shard 2 is not as it was written"):
        export_slide(store, wrong, str(tmp_path / "clam"))
    assert not (tmp_path / "clam").exists()


def test_a_slide_without_coordinates_has_none_in_its_file(tmp_path: Path) -> None:
    store, row = make_slide(tmp_path / "store")
    features = store.read("a.b").features
    xy = np.full((NUM_PATCHES, 2), NO_COORDS, np.int32)
    assert has_coords(store.read("a.b").xy)
    assert not has_coords(xy)
    xy[-1, 0] = 0
    assert has_coords(xy)
    row = put_slide(store, "bare", features, np.full((NUM_PATCHES, 2), NO_COORDS, np.int32))
    export_slide(store, row, str(tmp_path / "clam"), ["h5"])
    with h5py.File(tmp_path / "clam" / "h5_files" / "bare.h5") as file:
        assert list(file) == ["features"]
        assert "recipe" in file["features"].attrs


def test_the_mark_is_where_clams_readers_do_not_look(tmp_path: Path) -> None:
    store, row = make_slide(tmp_path / "store")
    export_slide(store, row, str(tmp_path))
    with zipfile.ZipFile(tmp_path / "pt_files" / "a.b.pt") as archive:
        assert archive.comment.startswith(clam_files.COMMENT)
        assert archive.testzip() is None


def test_exports_lie_on_any_filesystem(tmp_path: Path) -> None:
    store, row = make_slide(tmp_path / "store")
    folder = f"memory://{tmp_path.name}/clam"
    assert export_slide(store, row, folder).written == ("h5", "pt")
    assert export_slide(store, row, folder).written == ()
