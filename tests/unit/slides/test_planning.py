import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as PillowImage

from crane_ray import storage
from crane_ray.errors import StorageError
from crane_ray.slides import planning
from crane_ray.slides.listing import Entry
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.patches import PatchSpec, plan_patches
from crane_ray.slides.planning import PlanSettings, plan_fingerprint, plan_slide
from crane_ray.slides.slide import SlideInfo
from crane_ray.slides.tissue import TissueContours, read_contours
from crane_ray.slides.workspace import Workspace
from crane_ray.testing import faults
from crane_ray.testing.pyramids import write_pyramid

Image = npt.NDArray[np.uint8]

FINE = TissueParams(preset="bwh_biopsy", a_t=0.02, a_h=0.002, seg_level=1, line_thickness=4)
LEVEL_0 = PlanSettings(PatchSpec(level=0, size_px=64))
PLAIN = replace(LEVEL_0, pictures=False)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(str(tmp_path / "work"))


@pytest.fixture
def entry(slide_path: Path) -> Entry:
    return Entry("painted", str(slide_path), case_id="case-1")


def files(workspace: Workspace) -> list[str]:
    root = Path(workspace.root)
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def test_a_slide_is_patched_and_everything_about_it_recorded(
    entry: Entry,
    workspace: Workspace,
    painted_tissue: TissueContours,
    painted_info: SlideInfo,
) -> None:
    row = plan_slide(entry, FINE, LEVEL_0, workspace)
    expected = plan_patches(painted_tissue, painted_info, LEVEL_0.spec, FINE, 0.5)
    grid = read_patches(workspace.patches("painted"), "painted")
    np.testing.assert_array_equal(grid.xy, expected.xy)
    assert (row.status, row.reason, row.num_patches) == ("ok", "", len(expected))
    assert (row.case_id, row.vendor, row.reader) == ("case-1", "generic-tiff", "tiff")
    assert (row.width_px, row.height_px, row.levels) == (1024, 768, 3)
    assert row.mpp == pytest.approx(0.5)
    assert row.size == Path(entry.uri).stat().st_size
    assert row.coords_checksum == grid.checksum() == expected.checksum()
    assert row.spec_fingerprint == LEVEL_0.spec.fingerprint()
    assert row.plan_fingerprint == plan_fingerprint(entry, FINE, LEVEL_0)
    assert row.seconds is not None
    assert row.seconds > 0
    assert len(read_contours(workspace.contours("painted"))) == 3
    assert files(workspace) == [
        "contours/painted.geojson",
        "masks/painted.jpg",
        "patches/painted.h5",
        "stitches/painted.jpg",
    ]


def test_planned_twice_is_planned_once_byte_for_byte(entry: Entry, workspace: Workspace) -> None:
    first = plan_slide(entry, FINE, LEVEL_0, workspace)
    contents = {name: (Path(workspace.root) / name).read_bytes() for name in files(workspace)}
    second = plan_slide(entry, FINE, LEVEL_0, workspace)
    assert replace(second, seconds=None) == replace(first, seconds=None)
    for name, content in contents.items():
        assert (Path(workspace.root) / name).read_bytes() == content


def test_mpp_mode_needs_and_records_the_scale(entry: Entry, workspace: Workspace) -> None:
    settings = replace(PLAIN, spec=PatchSpec(mpp=1.0, size_px=32))
    row = plan_slide(entry, FINE, settings, workspace)
    grid = read_patches(workspace.patches("painted"), "painted")
    assert row.status == "ok"
    assert row.mpp == pytest.approx(0.5)
    assert grid.geometry.footprint_xy == (64, 64)
    of_table = plan_slide(replace(entry, mpp=0.25), FINE, settings, workspace)
    grid = read_patches(workspace.patches("painted"), "painted")
    assert (of_table.mpp, grid.mpp) == (0.25, 0.25)
    assert grid.geometry.footprint_xy == (128, 128)


def failure(entry: Entry, workspace: Workspace, settings: PlanSettings = PLAIN) -> str:
    row = plan_slide(entry, FINE, settings, workspace)
    assert row.status == "failed"
    assert row.num_patches is None
    assert row.case_id == entry.case_id
    assert not row.reason.startswith(f"slide {entry.slide_id}")
    assert not storage.exists(workspace.patches(entry.slide_id))
    return row.reason


def test_a_slide_without_mpp_fails_in_mpp_mode_alone(
    tmp_path: Path, workspace: Workspace, tissue_image: Image
) -> None:
    path = write_pyramid(tmp_path / "a.tif", tissue_image, mpp=None)
    entry = Entry("a", str(path), case_id="c")
    settings = replace(PLAIN, spec=PatchSpec(mpp=0.5))
    assert failure(entry, workspace, settings).startswith("no mpp in its metadata; give")
    assert plan_slide(replace(entry, mpp=0.5), FINE, settings, workspace).status == "ok"
    row = plan_slide(entry, FINE, PLAIN, workspace)
    assert (row.status, row.mpp) == ("ok", None)
    assert read_patches(workspace.patches("a"), "a").mpp is None
    assert plan_slide(entry, FINE, replace(settings, seg_only=True), workspace).status == "ok"


def test_an_absurd_mpp_is_recorded_as_a_claim_and_never_used(
    tmp_path: Path, workspace: Workspace, tissue_image: Image
) -> None:
    path = write_pyramid(tmp_path / "a.tif", tissue_image, mpp=352.86)
    entry = Entry("a", str(path))
    reason = failure(entry, workspace, replace(PLAIN, spec=PatchSpec(mpp=0.5)))
    assert "an mpp of 352.86 um/px from its metadata is impossible" in reason
    row = plan_slide(entry, FINE, PLAIN, workspace)
    assert row.status == "ok"
    assert row.mpp == pytest.approx(352.86)
    assert read_patches(workspace.patches("a"), "a").mpp is None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (PatchSpec(level=7), "--patch-level 7 asked for, the slide has levels 0 to 2"),
        (PatchSpec(mpp=0.25), "coarser than the 0.25 um/px asked for"),
    ],
)
def test_a_slide_that_lacks_the_scale_fails(
    entry: Entry, workspace: Workspace, spec: PatchSpec, reason: str
) -> None:
    assert reason in failure(entry, workspace, replace(PLAIN, spec=spec))


def test_a_problem_of_the_listing_is_the_reason(entry: Entry, workspace: Workspace) -> None:
    assert failure(replace(entry, problem="twice there"), workspace) == "twice there"
    assert not Path(workspace.root).exists()


def test_a_missing_file_is_a_failure(tmp_path: Path, workspace: Workspace) -> None:
    entry = Entry("a", str(tmp_path / "gone.svs"))
    assert failure(entry, workspace).startswith("no such file on this node")


def test_broken_slides_are_failures_with_their_reasons(
    tmp_path: Path, workspace: Workspace, tissue_image: Image
) -> None:
    path = write_pyramid(tmp_path / "a.tif", tissue_image, mpp=0.5)
    whole = path.read_bytes()
    faults.corrupt_tiles(path, level=1, tiles=[1])
    assert "a.tif: pixels at level 1" in failure(Entry("a", str(path)), workspace)
    path.write_bytes(whole)
    faults.remove_tiles(path, level=1, tiles=[1])
    assert "missing from the file" in failure(Entry("a", str(path)), workspace)
    path.write_bytes(whole)
    faults.truncate_file(path, 0.5)
    assert "a.tif" in failure(Entry("a", str(path)), workspace)
    PillowImage.new("I;16", (32, 32)).save(path)
    assert "8-bit RGB" in failure(Entry("a", str(path)), workspace)


def test_a_slide_without_tissue_is_a_recorded_outcome(tmp_path: Path, workspace: Workspace) -> None:
    path = write_pyramid(tmp_path / "a.tif", np.full((512, 512, 3), 255, np.uint8), mpp=0.5)
    row = plan_slide(Entry("a", str(path)), FINE, LEVEL_0, workspace)
    assert (row.status, row.num_patches) == ("no_tissue", 0)
    assert row.reason.startswith("no tissue found; look at masks/a.jpg and lower tissue.sthresh")
    assert files(workspace) == ["contours/a.geojson", "masks/a.jpg"]


def test_files_of_an_earlier_plan_go_when_nothing_is_found_any_more(
    entry: Entry, workspace: Workspace
) -> None:
    plan_slide(entry, FINE, LEVEL_0, workspace)
    row = plan_slide(entry, FINE.model_copy(update={"a_t": 500}), LEVEL_0, workspace)
    assert (row.status, row.num_patches, row.coords_checksum) == ("no_tissue", 0, None)
    assert files(workspace) == ["contours/painted.geojson", "masks/painted.jpg"]
    assert not len(read_contours(workspace.contours("painted")))


def test_tissue_that_no_patch_fits_says_so(entry: Entry, workspace: Workspace) -> None:
    params = FINE.model_copy(update={"use_padding": False})
    settings = replace(PLAIN, spec=PatchSpec(level=0, size_px=2000))
    row = plan_slide(entry, params, settings, workspace)
    assert row.status == "no_tissue"
    assert row.reason.startswith("no patch fits the tissue found")


def test_a_first_look_places_no_patches(entry: Entry, workspace: Workspace) -> None:
    row = plan_slide(entry, FINE, replace(LEVEL_0, seg_only=True), workspace)
    assert (row.status, row.num_patches, row.coords_checksum) == ("ok", None, None)
    assert files(workspace) == ["contours/painted.geojson", "masks/painted.jpg"]
    nothing = FINE.model_copy(update={"a_t": 500})
    row = plan_slide(entry, nothing, replace(LEVEL_0, seg_only=True), workspace)
    assert row.status == "no_tissue"


def move_vertices(path: Path) -> str:
    """The first contour becomes a square, as somebody might draw it."""
    tree = json.loads(path.read_text())
    square = [[100, 100], [500, 100], [500, 400], [100, 400], [100, 100]]
    tree["features"] = tree["features"][:1]
    tree["features"][0]["geometry"]["coordinates"] = [square]
    path.write_text(json.dumps(tree))
    return path.read_text()


def test_edited_contours_are_not_overwritten(entry: Entry, workspace: Workspace) -> None:
    plan_slide(entry, FINE, PLAIN, workspace)
    path = Path(workspace.contours("painted"))
    text = move_vertices(path)
    row = plan_slide(entry, FINE, PLAIN, workspace)
    assert row.status == "failed"
    assert "edited since they were written" in row.reason
    assert "--contours FOLDER" in row.reason
    assert path.read_text() == text


@pytest.mark.parametrize("where", ["in place", "a copy", "elsewhere"])
def test_edited_contours_are_taken_back(
    tmp_path: Path, entry: Entry, workspace: Workspace, where: str
) -> None:
    plan_slide(entry, FINE, PLAIN, workspace)
    path, folder = Path(workspace.contours("painted")), tmp_path / "edited"
    if where == "elsewhere":
        shutil.copytree(path.parent, folder)
        move_vertices(folder / path.name)
    else:
        move_vertices(path)
        shutil.copytree(path.parent, folder)
    given = path.parent if where == "in place" else folder
    text = (given / path.name).read_text()
    settings = replace(PLAIN, contours=str(given))
    row = plan_slide(entry, FINE, settings, workspace)
    assert (row.status, row.reason) == ("ok", "")
    assert row.num_patches == 7 * 5, "lattice points of the square by the rule of any inner point"
    corners = read_patches(workspace.patches("painted"), "painted").xy
    assert corners.min(axis=0).tolist() == [100, 100]
    assert (given / path.name).read_text() == text, "the user's file stays as it is"
    (contour,) = read_contours(str(path)).contours
    assert contour.outline.tolist() == [[100, 100], [500, 100], [500, 400], [100, 400]]
    again = plan_slide(entry, FINE, settings, workspace)
    assert replace(again, seconds=None) == replace(row, seconds=None)


def test_slides_without_an_edited_file_are_segmented(
    tmp_path: Path, entry: Entry, workspace: Workspace
) -> None:
    (tmp_path / "edited").mkdir()
    settings = replace(PLAIN, contours=str(tmp_path / "edited"))
    row = plan_slide(entry, FINE, settings, workspace)
    assert row == replace(plan_slide(entry, FINE, PLAIN, workspace), seconds=row.seconds)


def test_keep_ids_choose_among_edited_contours(
    tmp_path: Path, entry: Entry, workspace: Workspace
) -> None:
    plan_slide(entry, FINE, PLAIN, workspace)
    shutil.copytree(Path(workspace.root) / "contours", tmp_path / "edited")
    settings = replace(PLAIN, contours=str(tmp_path / "edited"))
    params = FINE.model_copy(update={"keep_ids": (1,)})
    every = plan_slide(entry, FINE, settings, workspace).num_patches
    one = plan_slide(entry, params, settings, workspace).num_patches
    assert one is not None
    assert every is not None
    assert 0 < one < every


def test_keep_ids_choose_among_contours_edited_in_place(entry: Entry, workspace: Workspace) -> None:
    plan_slide(entry, FINE, PLAIN, workspace)
    path = Path(workspace.contours("painted"))
    tree = json.loads(path.read_text())
    del tree["features"][0]
    path.write_text(json.dumps(tree))
    settings = replace(PLAIN, contours=str(path.parent))
    row = plan_slide(entry, FINE.model_copy(update={"keep_ids": (1,)}), settings, workspace)
    assert (row.status, row.reason) == ("ok", "")
    assert json.loads(path.read_text()) == tree


def test_unusable_contours_fail_their_slide(
    tmp_path: Path, entry: Entry, workspace: Workspace
) -> None:
    (tmp_path / "painted.geojson").write_text("{}")
    reason = failure(entry, workspace, replace(PLAIN, contours=str(tmp_path)))
    assert "painted.geojson: not usable GeoJSON" in reason


def test_the_fingerprint_covers_all_that_decides_the_patches(tmp_path: Path, entry: Entry) -> None:
    edited = tmp_path / "painted.geojson"
    edited.write_text("[]")
    given = replace(PLAIN, contours=str(tmp_path))
    prints = [
        plan_fingerprint(entry, FINE, PLAIN),
        plan_fingerprint(replace(entry, mpp=0.5), FINE, PLAIN),
        plan_fingerprint(replace(entry, uri="/other.svs"), FINE, PLAIN),
        plan_fingerprint(entry, FINE.model_copy(update={"sthresh": 9}), PLAIN),
        plan_fingerprint(entry, FINE.model_copy(update={"contour_fn": "basic"}), PLAIN),
        plan_fingerprint(entry, FINE, replace(PLAIN, spec=PatchSpec(level=1))),
        plan_fingerprint(entry, FINE, replace(PLAIN, segmenter="other")),
        plan_fingerprint(entry, FINE, replace(PLAIN, seg_only=True)),
        plan_fingerprint(entry, FINE, given),
    ]
    edited.write_text("[ ]")
    prints.append(plan_fingerprint(entry, FINE, given))
    assert len(set(prints)) == len(prints)
    same = [
        plan_fingerprint(entry, FINE, LEVEL_0),
        plan_fingerprint(entry, FINE.model_copy(update={"preset": "custom"}), PLAIN),
        plan_fingerprint(replace(entry, case_id="x"), FINE, PLAIN),
        plan_fingerprint(entry, FINE, replace(PLAIN, contours=str(tmp_path / "gone"))),
    ]
    assert set(same) == {prints[0]}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_workspace_that_cannot_be_written_stops_the_run(
    entry: Entry, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def broken(path: str, data: bytes, *, durable: bool = False) -> None:
        raise storage.write_error(path, OSError(code, "no"))

    monkeypatch.setattr(storage, "put_bytes", broken)
    with pytest.raises(StorageError, match="cannot be written"):
        plan_slide(entry, FINE, PLAIN, workspace)


def test_a_file_in_the_way_of_a_folder_stops_the_run(entry: Entry, workspace: Workspace) -> None:
    Path(workspace.root).mkdir()
    (Path(workspace.root) / "contours").touch()
    with pytest.raises(StorageError, match="a file is in the way of a folder"):
        plan_slide(entry, FINE, PLAIN, workspace)


def test_our_own_bug_costs_one_slide_and_is_logged(
    entry: Entry,
    workspace: Workspace,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def load(package: str, name: str) -> ModuleType:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(planning, "load_plugin", load)
    assert failure(entry, workspace) == "ZeroDivisionError: oops"
    assert "painted" in caplog.text
    assert "Traceback" in caplog.text


def test_a_segmenter_of_ones_own_is_used(
    entry: Entry, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab_everything.py").write_text(
        "import numpy as np\n"
        "from crane_ray.slides.tissue import TissueContour, TissueContours\n"
        "def segment(reader, params):\n"
        "    w, h = reader.info.dimensions\n"
        "    return TissueContours((TissueContour(np.array([[0, 0], [w, 0], [w, h], [0, h]])),))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    row = plan_slide(entry, FINE, replace(PLAIN, segmenter="lab_everything"), workspace)
    assert row.status == "failed"
    assert "lab_everything: no such segmenter" in row.reason
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "__init__.py").touch()
    (tmp_path / "lab_everything.py").rename(tmp_path / "lab" / "everything.py")
    row = plan_slide(entry, FINE, replace(PLAIN, segmenter="lab.everything"), workspace)
    assert (row.status, row.num_patches) == ("ok", (1024 // 64) * (768 // 64))
