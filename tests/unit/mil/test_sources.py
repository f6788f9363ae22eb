import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch

from crane_ray.errors import ConfigError, SlideError, StoreError
from crane_ray.mil.sources import FileSource, StoreSource, as_float, open_source
from tests.unit.features.test_clam_files import make_slide, put_slide

Array = npt.NDArray[Any]


def rows_of(num_patches: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(num_patches, 4)).astype(np.float32)


def write_h5(folder: Path, slide_id: str, features: Array) -> Path:
    path = folder / "h5_files" / f"{slide_id}.h5"
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = features
        file["coords"] = np.zeros((features.shape[-2], 2), np.int64)
    return path


def write_pt(folder: Path, slide_id: str, features: Array) -> Path:
    path = folder / "pt_files" / f"{slide_id}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(features), path)
    return path


def test_a_store_is_a_source(tmp_path: Path) -> None:
    store, _ = make_slide(tmp_path / "store")
    source = open_source(str(tmp_path / "store"))
    assert isinstance(source, StoreSource)
    assert source.slide_ids() == ["a.b"]
    found = source.read("a.b")
    assert found.dtype == np.float16
    assert np.array_equal(found, store.read("a.b").features)
    with pytest.raises(SlideError, match="slide nobody is not in its index"):
        source.read("nobody")
    assert source.provenance()["recipe_fingerprint"] == store.header.recipe_fingerprint
    assert source.provenance()["recipe"]["encoder"]["dim"] == 12
    before = source.identity()
    assert open_source(str(tmp_path / "store")).identity() == before
    put_slide(store, "new", np.zeros((2, 12), np.float16), np.zeros((2, 2), np.int32))
    assert open_source(str(tmp_path / "store")).identity() != before


def test_an_array_that_is_broken_costs_its_slide_alone(tmp_path: Path) -> None:
    store, _ = make_slide(tmp_path / "store")
    source = open_source(str(tmp_path / "store"))
    for file in Path(store.slide_path("a.b")).rglob("*"):
        if file.is_file() and "json" not in file.name:
            file.unlink()
    with pytest.raises(SlideError, match="missing"):
        source.read("a.b")


def test_clams_folder_is_a_source_and_pt_files_come_first(tmp_path: Path) -> None:
    one, two = rows_of(5), rows_of(6, 1)
    write_h5(tmp_path, "both", one[None])
    write_pt(tmp_path, "both", one)
    write_h5(tmp_path, "h5", two[None])
    write_pt(tmp_path, "pt", two.astype(np.float16))
    source = open_source(str(tmp_path))
    assert isinstance(source, FileSource)
    assert source.slide_ids() == ["both", "h5", "pt"]
    assert np.array_equal(source.read("h5"), two)
    assert source.read("pt").dtype == np.float16
    write_h5(tmp_path, "both", np.zeros_like(one))
    assert np.array_equal(source.read("both"), one)
    assert source.provenance() == {"root": str(tmp_path)}


def test_identity_changes_with_any_file(tmp_path: Path) -> None:
    path = write_pt(tmp_path, "a", rows_of(5))
    write_h5(tmp_path, "b", rows_of(5))
    seen = [open_source(str(tmp_path)).identity()]
    assert open_source(str(tmp_path)).identity() == seen[0]
    write_pt(tmp_path, "a", rows_of(5, 1))
    os.utime(path, ns=(1, 1))
    seen.append(open_source(str(tmp_path)).identity())
    write_h5(tmp_path, "b", rows_of(7))
    seen.append(open_source(str(tmp_path)).identity())
    write_h5(tmp_path, "a", rows_of(5))
    seen.append(open_source(str(tmp_path)).identity())
    path.unlink()
    seen.append(open_source(str(tmp_path)).identity())
    assert len(set(seen)) == 5


def test_broken_files_and_files_of_something_else_cost_their_slide_alone(tmp_path: Path) -> None:
    (tmp_path / "broken.h5").write_bytes(b"not HDF5")
    torch.save({"features": 1}, tmp_path / "tree.pt")
    write_pt(tmp_path, "twice", rows_of(2))
    torch.save(torch.zeros(2, 4), tmp_path / "twice.pt")
    source = open_source(str(tmp_path))
    for slide_id, words in (
        ("broken", r"broken.h5 cannot be used"),
        ("tree", "holds a dict, not a bare"),
        ("twice", "several files for it"),
    ):
        with pytest.raises(SlideError, match=words):
            source.read(slide_id)


def test_places_without_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features .*nowhere: no such folder; give --features"):
        open_source(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"none are there; give --features .*h5_files") as caught:
        open_source(str(tmp_path))
    assert "--from" not in str(caught.value)
    (tmp_path / "store.json").write_text("{}")
    with pytest.raises(StoreError, match=r"store.json cannot be used"):
        open_source(str(tmp_path))


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("<f2", "<f2"), ("<f4", "<f4"), ("<f8", "<f4"), (">f4", "<f4"), (">f2", "<f4")],
)
def test_features_are_kept_as_float16_or_float32(dtype: str, kept: str) -> None:
    found = as_float(np.array([[1.5, -2.25]], dtype))
    assert found.dtype == np.dtype(kept)
    assert found.tolist() == [[1.5, -2.25]]


def test_numbers_beyond_float32_become_infinite() -> None:
    assert np.isinf(as_float(np.array([[1e300]]))).all()
