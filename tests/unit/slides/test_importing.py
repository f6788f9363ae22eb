"""Coordinates of CLAM's and TRIDENT's: files to slides, and how each patch is read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray import storage
from crane_ray.errors import ConfigError, ScaleError, SlideError
from crane_ray.slides.importing import (
    Match,
    decide_spec,
    foreign_grid,
    import_coords,
    list_patch_files,
    match_files,
)
from crane_ray.slides.listing import Entry
from crane_ray.slides.opening import open_slide
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patch_files import read_foreign_patches, read_patches, write_patches
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry, plan_patches
from crane_ray.slides.scale import GivenScale
from crane_ray.slides.slide import Slide, SlideInfo
from crane_ray.slides.staging import StagingConfig
from crane_ray.slides.tissue import TissueContours
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.testing.faults import truncate_file
from crane_ray.testing.pyramids import write_pyramid

INFO = SlideInfo("test", ((4000, 3000), (2000, 1500), (500, 375)), (1.0, 2.0, 8.0), (0.25, 0.25))
SLIDE = Slide("s", "s.tif")
NONE = GivenScale()
NEAR = StagingConfig()
TRIDENT = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "level0_width": 4000,
    "level0_height": 3000,
    "name": "s",
    "savetodir": "/elsewhere",
}
CLAM = {
    "patch_size": 256,
    "patch_level": 1,
    "downsample": (2.0, 2.0),
    "downsampled_level_dim": (2000, 1500),
    "level_dim": (2000, 1500),
    "name": "s",
    "save_path": "/elsewhere",
}
XY = [[0, 0], [512, 0], [3900, 2900]]


def write(path: Path, attributes: dict[str, Any], coords: Any = XY, **changes: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("coords", data=np.asarray(coords).reshape(-1, 2))
        for key, value in {**attributes, **changes}.items():
            if value is not None:
                stored.attrs[key] = value
    return str(path)


def grid_of(
    tmp_path: Path, attributes: dict[str, Any], given: GivenScale = NONE, *, coords: Any = XY,
    slide: Slide = SLIDE, info: SlideInfo = INFO, **changes: Any,
) -> PatchGrid:  # fmt: skip
    found = read_foreign_patches(write(tmp_path / "s.h5", attributes, coords, **changes))
    return foreign_grid(found, slide, info, decide_spec(found, given, "--from x"))


def test_clams_patches_keep_their_level(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, CLAM)
    assert grid.spec == PatchSpec(size_px=256, level=1)
    assert grid.geometry == patch_geometry(grid.spec, INFO, None)
    assert grid.geometry.footprint_xy == (512, 512)
    assert grid.xy.tolist() == XY
    assert grid.mpp == 0.25
    bare = grid_of(tmp_path, CLAM, info=replace(INFO, mpp_xy=None))
    assert (bare.spec, bare.mpp) == (grid.spec, None)


def test_clams_patches_of_several_levels_share_a_resolution(tmp_path: Path) -> None:
    given = GivenScale(mpp=0.5)
    fine = grid_of(tmp_path, CLAM, given)
    coarse_info = SlideInfo("test", ((2000, 1500),), (1.0,), (0.5, 0.5))
    coarse = grid_of(tmp_path, CLAM, given, patch_level=0, info=coarse_info, coords=[[0, 0]],
                     level_dim=(2000, 1500))  # fmt: skip
    assert fine.spec == coarse.spec == PatchSpec(size_px=256, mpp=0.5)
    assert (fine.geometry.read_level, fine.geometry.read_size_px) == (1, 256)
    assert (coarse.geometry.read_level, coarse.geometry.read_size_px) == (0, 256)
    assert fine.geometry.footprint_xy == (512, 512)
    assert coarse.geometry.footprint_xy == (256, 256)


def test_clams_patches_may_be_shrunk(tmp_path: Path) -> None:
    """As its custom_downsample: 512 px of level 0 at 40x are 256 px at 20x."""
    grid = grid_of(tmp_path, CLAM, GivenScale(size_px=256, mpp=0.5), patch_size=512,
                   patch_level=0, level_dim=(4000, 3000))  # fmt: skip
    assert (grid.geometry.read_level, grid.geometry.read_size_px) == (0, 512)
    assert (grid.spec.size_px, grid.geometry.footprint_xy) == (256, (512, 512))


@pytest.mark.parametrize(
    ("level0", "level", "read_size"),
    [
        (256, 0, 256),
        (512, 1, 256),
        (514, 1, 256),
        (510, 1, 256),
        (1024, 1, 512),
        (2048, 2, 256),
        (640, 1, 320),
    ],
)
def test_tridents_patches_are_read_from_the_level_that_fits_best(
    tmp_path: Path, level0: int, level: int, read_size: int
) -> None:
    given = GivenScale(mpp=0.25 * level0 / 256)
    grid = grid_of(tmp_path, TRIDENT, given, patch_size_level0=level0)
    assert (grid.geometry.read_level, grid.geometry.read_size_px) == (level, read_size)
    assert grid.geometry.footprint_xy == (level0, level0)
    assert (grid.spec.size_px, grid.spec.mpp) == (256, given.mpp)


def test_tridents_overlap_is_in_patch_pixels(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, TRIDENT, GivenScale(mpp=0.5), overlap=64)
    assert grid.spec.step == 192
    assert grid.geometry.step_xy == (384, 384)


def test_older_files_of_tridents_say_it_by_magnification(tmp_path: Path) -> None:
    grid = grid_of(tmp_path, TRIDENT, GivenScale(mpp=0.5), patch_size_level0=None)
    assert grid.geometry.footprint_xy == (512, 512)


def test_tridents_magnification_is_no_resolution(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--from x \(TRIDENT's, 20x\).* give --mpp"):
        grid_of(tmp_path, TRIDENT)


@pytest.mark.parametrize(
    ("attributes", "given", "changes", "message"),
    [
        (TRIDENT, {"mpp": 0.25}, {}, r"have 0\.5 um/px, not 0\.25 within 5%"),
        (TRIDENT, {"mpp": 0.53}, {}, "have 0.5 um/px, not 0.53"),
        (TRIDENT, {"level": 0}, {}, "cover 512 level-0 px; 256 px of level 0 are 256"),
        (CLAM, {"level": 0}, {}, "cover 512 level-0 px; 256 px of level 0 are 256"),
        (CLAM, {"size_px": 128}, {}, "256 px wide .* 128 px of level 1 are 256"),
        (CLAM, {}, {"patch_level": 5}, "patch-level 5 asked for"),
        (CLAM, {}, {"level_dim": (2001, 1500)}, "made on a slide of 2001 x 1500 px at level 1"),
        (TRIDENT, {"mpp": 0.5}, {"level0_width": 8000}, "made on a slide of 8000 x 3000"),
    ],
)
def test_a_slide_whose_patches_do_not_fit_is_refused(
    tmp_path: Path, attributes: Any, given: Any, changes: Any, message: str
) -> None:
    with pytest.raises(SlideError, match=message):
        grid_of(tmp_path, attributes, GivenScale(**given), **changes)


def test_the_tolerance_can_be_wider_and_levels_can_be_asked_for(tmp_path: Path) -> None:
    grid_of(tmp_path, TRIDENT, GivenScale(mpp=0.53, mpp_tolerance=0.1))
    grid = grid_of(tmp_path, TRIDENT, GivenScale(level=1))
    assert grid.spec == PatchSpec(size_px=256, level=1)
    assert grid.geometry == patch_geometry(grid.spec, INFO, None)


def test_a_slide_without_resolution_needs_one_for_tridents_patches(tmp_path: Path) -> None:
    info = replace(INFO, mpp_xy=None)
    with pytest.raises(ScaleError, match="no mpp in its metadata"):
        grid_of(tmp_path, TRIDENT, GivenScale(mpp=0.5), info=info)
    told = replace(SLIDE, mpp=0.25)
    assert grid_of(tmp_path, TRIDENT, GivenScale(mpp=0.5), info=info, slide=told).mpp == 0.25


@pytest.mark.parametrize("off", [[4000, 0], [0, 3000], [-512, 0]])
def test_patches_off_the_slide_are_refused(tmp_path: Path, off: list[int]) -> None:
    with pytest.raises(SlideError, match="1 of its 2 patches lie off the slide"):
        grid_of(tmp_path, CLAM, coords=[[0, 0], off])
    grid_of(tmp_path, CLAM, coords=[[0, 0], [-511, 0], [3999, 2999]])


@pytest.mark.parametrize(
    ("attributes", "coords", "message"),
    [
        ({"patch_size": 256}, XY, "neither patch_level .* nor patch_size_level0"),
        ({"patch_level": 0}, XY, "patch_size"),
        (CLAM, [[0.5, 0.5]], "not whole numbers"),
        ({**TRIDENT, "patch_size_level0": 0}, XY, "patch_size_level0 is 0"),
        ({**TRIDENT, "patch_size": "big"}, XY, "big"),
    ],
)
def test_a_file_that_does_not_say_enough_is_refused(
    tmp_path: Path, attributes: Any, coords: Any, message: str
) -> None:
    path = write(tmp_path / "s.h5", attributes, coords)
    with pytest.raises(SlideError, match=rf"s\.h5 cannot be used: .*{message}"):
        read_foreign_patches(path)


def test_our_own_files_come_in_as_they_are(
    tmp_path: Path, painted_tissue: TissueContours, painted_info: SlideInfo
) -> None:
    spec = PatchSpec(mpp=1.5, size_px=32)
    grid = plan_patches(painted_tissue, painted_info, spec, TissueParams(), 0.5, slide_id="a")
    path = str(tmp_path / "a.h5")
    write_patches(path, grid, painted_info, save_path="")
    found = read_foreign_patches(path)
    assert decide_spec(found, NONE, "x") == spec
    again = foreign_grid(found, Slide("b", "b.tif", mpp=0.5), painted_info, spec)
    assert again.checksum() == grid.checksum()
    assert again.slide_id == "b"
    with pytest.raises(ScaleError, match="its patches have the spec"):
        foreign_grid(found, SLIDE, painted_info, PatchSpec(level=0))


NAMES = st.text("ab._ -", min_size=1, max_size=6).filter(lambda name: name[0] not in "._")


@settings(max_examples=200)
@given(st.lists(NAMES, unique=True, max_size=6), st.lists(NAMES, unique=True, max_size=6))
def test_every_file_is_a_match_or_a_problem_and_no_slide_is_used_twice(
    slides: list[str], files: list[str]
) -> None:
    entries = [Entry(name, f"/s/{name}.svs") for name in slides]
    matches = match_files([f"/f/{name}.h5" for name in files], entries)
    good = [match for match in matches if not match.problem]
    assert len({match.slide_id for match in good}) == len(good)
    for match in good:
        assert match.entry in entries
        assert Path(match.path).stem.removesuffix("_patches") in {
            match.slide_id, f"{match.slide_id}.svs", match.slide_id.removesuffix("_patches")
        }  # fmt: skip
    for name in set(slides) & set(files):
        assert any(match.slide_id == name and match.entry is not None for match in matches)


@pytest.mark.parametrize(
    ("file", "slide_id"),
    [("a", "a"), ("a_patches", "a"), ("b.svs", "b"), ("b.svs_patches", "b"), ("case 7", "given"),
     ("c_patches", "c_patches")],
)  # fmt: skip
def test_a_file_finds_its_slide(file: str, slide_id: str) -> None:
    entries = [Entry("a", "/s/a.svs"), Entry("b", "/s/b.svs"), Entry("given", "/s/case 7.tif"),
               Entry("c", "/s/c.svs"), Entry("c_patches", "/s/c_patches.svs")]  # fmt: skip
    (match,) = match_files([f"/f/{file}.h5"], entries)
    assert (match.slide_id, match.problem) == (slide_id, "")


def test_files_that_fit_no_slide_or_several_are_problems() -> None:
    entries = [Entry("x", "/one/a.svs"), Entry("y", "/two/a.svs"), Entry("z", "/s/z.svs")]
    files = ["/f/a.h5", "/f/b.h5", "/f/z.h5", "/f/z_patches.h5"]
    found = {match.slide_id: match for match in match_files(files, entries)}
    assert "fits several slides (x, y)" in found["a"].problem
    assert "no slide for /f/b.h5" in found["b"].problem
    assert "several files for it (/f/z.h5, /f/z_patches.h5)" in found["z"].problem
    assert [match.entry for match in found.values()] == [None, None, entries[2]]


def test_files_are_looked_for_in_the_folder_and_its_patches(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.h5 files"):
        list_patch_files(str(tmp_path))
    flat = write(tmp_path / "a.h5", CLAM)
    assert list_patch_files(str(tmp_path)) == [flat]
    below = write(tmp_path / "patches" / "a.h5", CLAM)
    assert list_patch_files(str(tmp_path)) == [below]


def bring(
    match: Match,
    spec: PatchSpec,
    workspace: Workspace,
    known: str | None = None,
    *,
    staging: StagingConfig = NEAR,
    reader: str = "auto",
) -> SlideRow | None:
    return import_coords(match, spec, workspace, known, staging=staging, reader=reader)


@pytest.fixture
def slide(tmp_path: Path) -> Entry:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (750, 1000, 3), dtype=np.uint8)
    path = write_pyramid(tmp_path / "s.tif", image, mpp=0.25, num_levels=3)
    return Entry("s", str(path), case_id="case 1")


def test_a_slides_coordinates_come_into_a_workspace_once(tmp_path: Path, slide: Entry) -> None:
    workspace, spec = Workspace(str(tmp_path / "work")), PatchSpec(size_px=64, mpp=0.5)
    path = write(tmp_path / "s_patches.h5", {"patch_size": 64, "patch_size_level0": 128},
                 [[0, 0], [900, 700]])  # fmt: skip
    match = Match("s", path, slide)
    row = bring(match, spec, workspace)
    assert row is not None
    assert (row.status, row.num_patches, row.case_id, row.mpp) == ("ok", 2, "case 1", 0.25)
    assert row.spec_fingerprint == spec.fingerprint()
    grid = read_patches(workspace.patches("s"), "s")
    assert (grid.checksum(), grid.spec, grid.mpp) == (row.coords_checksum, spec, 0.25)
    with open_slide(Slide("s", slide.uri)) as reader:
        assert grid.geometry.read_size_px * reader.info.level_downsamples[
            grid.geometry.read_level
        ] == pytest.approx(128, rel=0.01)
    assert bring(match, spec, workspace, row.plan_fingerprint) is None
    Path(workspace.patches("s")).unlink()
    assert bring(match, spec, workspace, row.plan_fingerprint) is not None
    write(tmp_path / "s_patches.h5", {"patch_size": 64, "patch_size_level0": 128}, [[0, 0]])
    changed = bring(match, spec, workspace, row.plan_fingerprint)
    assert changed is not None
    assert changed.num_patches == 1


def test_a_bad_file_or_slide_is_a_failed_row(tmp_path: Path, slide: Entry) -> None:
    workspace, spec = Workspace(str(tmp_path / "work")), PatchSpec(size_px=64, level=0)
    path = write(tmp_path / "s.h5", {"patch_size": 64, "patch_level": 0}, np.zeros((500, 2), int))

    def outcome(match: Match) -> tuple[str, str]:
        row = bring(match, spec, workspace)
        assert row is not None
        return row.status, row.reason

    assert outcome(Match("s", path, slide)) == ("ok", "")
    assert outcome(Match("s", path, slide, "twice")) == ("failed", "twice")
    gone = replace(slide, uri=str(tmp_path / "gone.tif"))
    assert "no such file" in outcome(Match("s", path, gone))[1]
    truncate_file(Path(path), 0.5)
    assert "cannot be used" in outcome(Match("s", path, slide))[1]
    write(Path(path), {"patch_size": 64, "patch_level": 0}, np.zeros((0, 2), int))
    assert outcome(Match("s", path, slide))[0] == "no_tissue"
    assert not Path(workspace.patches("s")).exists()


def test_far_slides_are_staged_and_read_as_asked(tmp_path: Path, slide: Entry) -> None:
    workspace, spec = Workspace(str(tmp_path / "work")), PatchSpec(size_px=64, level=0)
    path = write(tmp_path / "s.h5", {"patch_size": 64, "patch_level": 0}, [[0, 0]])
    far = replace(slide, uri="memory://far/s.tif")
    storage.put_bytes(far.uri, Path(slide.uri).read_bytes())
    staging = StagingConfig(folder=str(tmp_path / "cache"))
    try:
        row = bring(Match("s", path, far), spec, workspace, staging=staging, reader="openslide")
    finally:
        storage.remove_tree(far.uri)
    assert row is not None
    assert (row.status, row.reason, row.uri) == ("ok", "", far.uri)
    assert (row.reader, row.size) == ("openslide", Path(slide.uri).stat().st_size)
    assert [copy.name for copy in (tmp_path / "cache").rglob("*.tif")] == ["s.tif"]
