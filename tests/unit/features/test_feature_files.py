"""Feature files of CLAM's and TRIDENT's, and many that are no such files."""

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from crane_ray.errors import ConfigError, SlideError
from crane_ray.features.feature_files import (
    FeatureFiles,
    list_feature_files,
    open_features,
)

DIM = 6
TRIDENT = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "s",
    "savetodir": "/elsewhere",
}


def make_features(num_patches: int = 9, dtype: str = "float32") -> Any:
    rng = np.random.default_rng(num_patches)
    return rng.normal(size=(num_patches, DIM)).astype(dtype)


def write_h5(
    path: Path, features: Any, coords: Any = None, attributes: dict[str, Any] | None = None
) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        if features is not None:
            file["features"] = features
        if coords is not None:
            file["coords"] = coords
            file["coords"].attrs.update(attributes or {})
    return str(path)


def write_pt(path: Path, content: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(content) if isinstance(content, np.ndarray) else content, path)
    return str(path)


def read_all(files: FeatureFiles) -> tuple[Any, Any]:
    with open_features(files) as found:
        return found.read(0, found.num_patches), found.xy


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("stacked", [False, True])
def test_both_kinds_are_read_row_for_row(tmp_path: Path, dtype: str, stacked: bool) -> None:
    features = make_features(dtype=dtype)
    coords = np.arange(18).reshape(9, 2)
    shaped = (features[None], coords[None]) if stacked else (features, coords)
    h5 = write_h5(tmp_path / "s.h5", *shaped, TRIDENT)
    pt = write_pt(tmp_path / "s.pt", shaped[0])
    for files, has_xy in (
        (FeatureFiles("s", h5=h5), True),
        (FeatureFiles("s", pt=pt), False),
        (FeatureFiles("s", h5=h5, pt=pt), True),
    ):
        with open_features(files) as found:
            assert (found.num_patches, found.dim, found.dtype) == (9, DIM, dtype)
            np.testing.assert_array_equal(found.read(2, 7), features[2:7])
            if has_xy:
                assert found.xy is not None
                assert found.xy.dtype == np.int32
                np.testing.assert_array_equal(found.xy, coords)
                assert found.attributes == TRIDENT
            else:
                assert found.xy is None
                assert found.attributes == {}


def test_bfloat16_and_old_archives_are_read(tmp_path: Path) -> None:
    tensor = torch.arange(12.0).reshape(4, 3)
    files = FeatureFiles("s", pt=write_pt(tmp_path / "b.pt", tensor.bfloat16()))
    assert read_all(files)[0].tolist() == tensor.tolist()
    torch.save(tensor, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert read_all(FeatureFiles("s", pt=str(tmp_path / "old.pt")))[0].tolist() == tensor.tolist()


def test_files_on_another_filesystem_are_read(tmp_path: Path) -> None:
    import fsspec

    features = make_features()
    local = {
        "h5": write_h5(tmp_path / "s.h5", features, np.zeros((9, 2), int)),
        "pt": write_pt(tmp_path / "s.pt", features),
    }
    memory = fsspec.filesystem("memory")
    for kind, path in local.items():
        memory.pipe(f"/{tmp_path.name}/{kind}_files/s.{kind}", Path(path).read_bytes())
    (files,) = list_feature_files(f"memory://{tmp_path.name}")
    np.testing.assert_array_equal(read_all(files)[0], features)


def damaged(tmp_path: Path, what: str) -> tuple[FeatureFiles, str]:
    """Files that cannot be used, and what is said of them."""
    features, coords = make_features(), np.zeros((9, 2), int)
    h5, pt = tmp_path / "s.h5", tmp_path / "s.pt"
    one_h5, one_pt = FeatureFiles("s", h5=str(h5)), FeatureFiles("s", pt=str(pt))
    if what == "no features":
        write_h5(h5, None, coords)
    elif what == "slide features":
        write_h5(h5, features[0], coords)
        return one_h5, r"features of shape \(6,\)"
    elif what == "whole numbers":
        write_h5(h5, features.astype(int), coords)
        return one_h5, "int64, not floating-point"
    elif what == "more coordinates":
        write_h5(h5, features, np.zeros((10, 2), int))
        return one_h5, "9 features and 10 coordinates"
    elif what == "three coordinates":
        write_h5(h5, features, np.zeros((9, 3), int))
        return one_h5, r"coords of shape \(9, 3\)"
    elif what == "fractions":
        write_h5(h5, features, coords + 0.5)
        return one_h5, "not whole numbers"
    elif what == "far away":
        write_h5(h5, features, coords + 2**31)
        return one_h5, "not whole numbers of level-0 px"
    elif what == "a group":
        with h5py.File(h5, "w") as file:
            file.create_group("features")
    elif what == "cut h5":
        write_h5(h5, features, coords)
        os.truncate(h5, h5.stat().st_size // 2)
    elif what == "text":
        h5.write_text("not hdf5")
    elif what == "gone":
        return one_pt, r"s\.pt cannot be used"
    elif what == "a dictionary":
        write_pt(pt, {"features": torch.zeros(3, 2)})
        return one_pt, "holds a dict, not a bare"
    elif what == "a vector":
        write_pt(pt, features[0])
        return one_pt, r"the tensor of shape \(6,\)"
    elif what == "bytes":
        write_pt(pt, torch.zeros(3, 2, dtype=torch.uint8))
        return one_pt, "torch.uint8, not floating-point"
    elif what == "cut pt":
        write_pt(pt, features)
        os.truncate(pt, pt.stat().st_size // 2)
        return one_pt, r"s\.pt cannot be used"
    elif what == "empty pt":
        pt.touch()
        return one_pt, r"s\.pt cannot be used"
    elif what == "other shapes":
        write_pt(pt, features[:8])
        return FeatureFiles("s", write_h5(h5, features), str(pt)), "other shapes"
    elif what == "other values":
        write_pt(pt, features + np.float32(1e-6))
        return FeatureFiles("s", write_h5(h5, features), str(pt)), "hold other features"
    return one_h5, r"s\.h5 cannot be used"


@pytest.mark.parametrize(
    "what",
    ["no features", "slide features", "whole numbers", "more coordinates", "three coordinates",
     "fractions", "far away", "a group", "cut h5", "text", "gone", "a dictionary", "a vector",
     "bytes", "cut pt", "empty pt", "other shapes", "other values"],
)  # fmt: skip
def test_a_file_that_cannot_be_used_is_an_error_of_its_slide(tmp_path: Path, what: str) -> None:
    files, message = damaged(tmp_path, what)
    with pytest.raises(SlideError, match=message):
        read_all(files)


class Malice:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("plain", [False, True])
def test_nothing_in_a_pt_file_is_executed(tmp_path: Path, plain: bool) -> None:
    mark, path = tmp_path / "owned", tmp_path / "s.pt"
    if plain:
        path.write_bytes(pickle.dumps(Malice(mark), protocol=2))
    else:
        torch.save(Malice(mark), path)
    with pytest.raises(SlideError, match=r"s\.pt cannot be used"):
        read_all(FeatureFiles("s", pt=str(path)))
    assert not mark.exists()


def test_slides_are_found_in_a_folder_and_in_clams_subfolders(tmp_path: Path) -> None:
    features = make_features()
    write_h5(tmp_path / "h5_files" / "a.b.h5", features)
    write_pt(tmp_path / "pt_files" / "a.b.pt", features)
    write_pt(tmp_path / "pt_files" / "c.pt", features)
    (tmp_path / "pt_files" / ".c.part.pt").touch()
    both, one = list_feature_files(str(tmp_path))
    assert (both.slide_id, Path(both.h5).name, Path(both.pt).name) == ("a.b", "a.b.h5", "a.b.pt")
    assert (one.slide_id, one.h5) == ("c", "")
    (only,) = list_feature_files(str(tmp_path / "h5_files"))
    assert (only.slide_id, only.pt) == ("a.b", "")
    write_pt(tmp_path / "c.pt", features)
    _, twice = list_feature_files(str(tmp_path))
    with pytest.raises(SlideError, match="several files for it"):
        read_all(twice)
    with pytest.raises(ConfigError, match="no feature files"):
        list_feature_files(str(tmp_path / "nowhere"))


def test_the_identity_tells_other_features_and_is_stable(tmp_path: Path) -> None:
    features, coords = make_features(300), np.arange(600).reshape(300, 2)

    def identity(*content: Any) -> str:
        with open_features(FeatureFiles("s", h5=write_h5(tmp_path / "s.h5", *content))) as found:
            return found.identity()

    first = identity(features, coords, TRIDENT)
    assert identity(features, coords, TRIDENT) == first
    others = [
        (features, coords + 1, TRIDENT),
        (features, None, None),
        (features[:299], coords[:299], TRIDENT),
        (features.astype(np.float64), coords, TRIDENT),
        (features, coords, {**TRIDENT, "patch_size": 224}),
        (features[::-1], coords, TRIDENT),
        (features * np.float32(1.001), coords, TRIDENT),
    ]
    found = [identity(*other) for other in others]
    assert len({first, *found}) == 1 + len(others)
