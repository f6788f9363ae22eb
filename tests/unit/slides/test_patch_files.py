import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray import storage
from crane_ray.errors import SlideError, StorageError
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patch_files import read_patches, write_patches
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry, plan_patches
from crane_ray.slides.slide import SlideInfo
from crane_ray.slides.tissue import TissueContours
from crane_ray.testing import faults

INFO = SlideInfo("test", ((1030, 707), (515, 353), (257, 176)), (1.0, 2.0014, 4.012))

SPECS = st.one_of(
    st.builds(
        PatchSpec,
        size_px=st.integers(8, 600),
        step_px=st.none() | st.integers(1, 600),
        level=st.integers(0, 2),
        custom_downsample=st.sampled_from([1, 2]),
    ),
    st.builds(
        PatchSpec,
        size_px=st.integers(8, 600),
        step_px=st.none() | st.integers(1, 600),
        mpp=st.floats(0.3, 8),
    ),
)
CORNERS = st.lists(st.tuples(st.integers(-9, 2**33), st.integers(-9, 2**33)), max_size=12)


@settings(deadline=None, max_examples=80)
@given(SPECS, CORNERS, st.none() | st.floats(0.1, 0.3))
def test_a_grid_that_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    spec: PatchSpec,
    corners: list[tuple[int, int]],
    mpp: float | None,
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "round" / "a.b.h5")
    known = 0.25 if mpp is None and spec.mpp is not None else mpp
    xy = np.array(corners, dtype=np.int64).reshape(-1, 2)
    grid = PatchGrid("a.b", spec, patch_geometry(spec, INFO, known), xy, known)
    write_patches(path, grid, INFO, save_path="patches")
    read = read_patches(path, "a.b")
    np.testing.assert_array_equal(read.xy, xy)
    assert read.xy.dtype == np.int64
    assert (read.slide_id, read.spec, read.geometry, read.mpp) == (
        "a.b",
        spec,
        grid.geometry,
        known,
    )
    assert read.checksum() == grid.checksum()


def test_the_file_has_clams_attributes_and_ours(
    tmp_path: Path, painted_tissue: TissueContours, painted_info: SlideInfo
) -> None:
    spec = PatchSpec(mpp=1.5, size_px=32)
    grid = plan_patches(painted_tissue, painted_info, spec, TissueParams(), 0.5, slide_id="a")
    path = tmp_path / "patches" / "a.h5"
    write_patches(str(path), grid, painted_info, save_path=str(path.parent))
    with h5py.File(path) as file:
        coords = file["coords"]
        assert coords.shape == (len(grid), 2)
        assert coords.dtype == np.int64
        attributes = dict(coords.attrs)
    assert {"patch_size", "patch_level", "downsample", "downsampled_level_dim", "level_dim", "name",
            "save_path"} <= set(attributes)  # fmt: skip
    assert (attributes["patch_level"], attributes["patch_size"]) == (1, 48)
    assert attributes["downsample"].tolist() == [2.0, 2.0]
    assert attributes["level_dim"].tolist() == [512, 384]
    assert (attributes["name"], attributes["save_path"]) == ("a", str(path.parent))
    assert (attributes["mpp"], attributes["target_mpp"]) == (0.5, 1.5)
    assert (attributes["size_px"], attributes["read_size_px"]) == (32, 48)
    assert attributes["spec_fingerprint"] == spec.fingerprint()


def test_same_grid_same_bytes(
    tmp_path: Path, painted_tissue: TissueContours, painted_info: SlideInfo
) -> None:
    grid = plan_patches(painted_tissue, painted_info, PatchSpec(level=0), TissueParams())
    for name in ("a.h5", "b.h5"):
        write_patches(str(tmp_path / name), grid, painted_info, save_path="patches")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def clam_file(path: Path, coords: Any, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=coords).attrs.update(attributes)
    return path


def test_a_file_of_clams_own_is_read_in_level_mode(tmp_path: Path) -> None:
    coords = np.array([[7, 9], [519, 9]], dtype=np.int32)
    path = clam_file(tmp_path / "a.h5", coords, patch_size=128, patch_level=1,
                     downsample=np.array([4.0013, 4.0]), name="a")  # fmt: skip
    grid = read_patches(str(path), "a")
    assert grid.xy.tolist() == coords.tolist()
    assert (grid.spec.level, grid.spec.size_px, grid.spec.mpp, grid.mpp) == (1, 128, None, None)
    assert grid.geometry.footprint_xy == (512, 512)
    assert grid.geometry.read_level == 1


@pytest.mark.parametrize("missing", ["patch_size", "patch_level"])
def test_a_file_that_lacks_an_attribute_is_refused(tmp_path: Path, missing: str) -> None:
    attributes = {"patch_size": 128, "patch_level": 0, "downsample": (1.0, 1.0)}
    del attributes[missing]
    path = clam_file(tmp_path / "a.h5", np.zeros((1, 2), int), **attributes)
    with pytest.raises(SlideError, match=rf"slide a: patches .*a\.h5 cannot be used: .*{missing}"):
        read_patches(str(path), "a")


def test_a_file_of_a_lower_level_without_downsample_is_refused(tmp_path: Path) -> None:
    path = clam_file(tmp_path / "a.h5", np.zeros((1, 2), int), patch_size=128, patch_level=1)
    with pytest.raises(SlideError, match=r"a\.h5 cannot be used: .*downsample"):
        read_patches(str(path), "a")


@pytest.mark.parametrize("shape", [(4, 3), (4,), (2, 2, 2)])
def test_coordinates_that_are_no_pairs_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = clam_file(tmp_path / "a.h5", np.zeros(shape, int), patch_size=128, patch_level=0)
    with pytest.raises(SlideError, match=r"a\.h5 cannot be used: .*coords"):
        read_patches(str(path), "a")


def test_a_missing_file_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"slide a: no patches at .*gone\.h5; run crane-ray patch"):
        read_patches(str(tmp_path / "gone.h5"), "a")


@pytest.mark.parametrize("keep_fraction", [0.0, 0.2, 0.7, 0.99])
def test_a_file_cut_short_is_refused(
    tmp_path: Path,
    painted_tissue: TissueContours,
    painted_info: SlideInfo,
    keep_fraction: float,
) -> None:
    grid = plan_patches(
        painted_tissue, painted_info, PatchSpec(level=0, size_px=16), TissueParams()
    )
    path = tmp_path / "a.h5"
    write_patches(str(path), grid, painted_info, save_path="patches")
    faults.truncate_file(path, keep_fraction)
    with pytest.raises(SlideError, match=r"slide a: patches .*a\.h5 cannot be used"):
        read_patches(str(path), "a")


def test_a_full_disk_is_a_fatal_error_that_leaves_the_old_file(
    tmp_path: Path,
    painted_tissue: TissueContours,
    painted_info: SlideInfo,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = plan_patches(painted_tissue, painted_info, PatchSpec(level=0), TissueParams())
    path = tmp_path / "a.h5"
    write_patches(str(path), grid, painted_info, save_path="patches")
    before = path.read_bytes()

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError, match="disk is full") as caught:
        write_patches(str(path), grid, painted_info, save_path="elsewhere")
    assert storage.is_fatal(caught.value)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


OUT_OF_SPACE = """
import resource, signal, sys
import numpy as np
from crane_ray.errors import StorageError
from crane_ray.slides.patch_files import write_patches
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import SlideInfo

info = SlideInfo("test", ((100, 100),), (1.0,))
spec = PatchSpec(level=0)
geometry = patch_geometry(spec, info, None)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
for num in (400, 50_000):
    grid = PatchGrid("a", spec, geometry, np.zeros((num, 2), np.int64))
    try:
        write_patches(sys.argv[1], grid, info, save_path="patches")
    except StorageError as error:
        print(error.errno)
"""


def test_a_file_that_finds_no_room_neither_lies_there_in_part_nor_ends_the_process(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-c", OUT_OF_SPACE, str(tmp_path / "a.h5")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(errno.EFBIG)] * 2
    assert not list(tmp_path.iterdir())
