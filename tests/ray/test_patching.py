"""Patching on a real local Ray: outcomes, reruns, edited inputs, and slides that are broken."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from crane_ray.cli.main import call
from crane_ray.runtime.jobs import PatchJob
from crane_ray.runtime.patching import run_patching
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.workspace import Workspace
from crane_ray.testing.cohorts import SyntheticCohort
from crane_ray.testing.faults import corrupt_tiles, remove_tiles, truncate_file
from crane_ray.testing.pyramids import write_pyramid

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def job(source: object, work: Path, **more: object) -> PatchJob:
    settings = {"slides.source": str(source), "work": str(work), "tissue.preset": "bwh_biopsy"}
    return PatchJob.load(overrides=[*settings.items(), *more.items()])


def test_a_cohort_is_patched_once_and_then_left_alone(
    cohort: SyntheticCohort, tmp_path: Path
) -> None:
    first = run_patching(job(cohort.slides_csv, tmp_path))
    workspace = Workspace(str(tmp_path))
    rows = workspace.read_slides()
    assert (first.done, first.skipped, first.failures) == (4, 0, [])
    assert sorted(rows) == [slide.slide_id for slide in cohort.slides]
    for slide_id, row in rows.items():
        assert row.num_patches == len(read_patches(workspace.patches(slide_id), slide_id)) > 0
        assert row.case_id.startswith("case")
        for path in (workspace.mask, workspace.stitch, workspace.contours):
            assert Path(path(slide_id)).stat().st_size > 0
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")}
    again = run_patching(job(cohort.slides_csv, tmp_path))
    assert (again.done, again.skipped) == (0, 4)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.h5")} == stamps
    manifest = json.loads(Path(again.manifest).read_text())
    assert manifest["outcome"] == "done"
    assert manifest["counts"]["skipped"] == 4


def test_other_parameters_plan_again_and_an_edited_process_list_only_its_slides(
    cohort: SyntheticCohort, tmp_path: Path
) -> None:
    run_patching(job(cohort.slides_csv, tmp_path))
    workspace = Workspace(str(tmp_path))
    before = workspace.read_slides()
    table = pd.read_csv(workspace.process_list)
    assert table["process"].tolist() == [0, 0, 0, 0]
    table.loc[0, "process"] = 1
    table.loc[0, "contour_fn"] = "four_pt_hard"
    edited = tmp_path / "edited.csv"
    table.to_csv(edited, index=False)
    summary = run_patching(job(cohort.slides_csv, tmp_path, process_list=str(edited)))
    after = workspace.read_slides()
    assert summary.done == 1
    changed = [name for name in before if before[name] != after[name]]
    assert changed == [cohort.slides[0].slide_id]
    patches_before, patches_after = (rows[changed[0]].num_patches or 0 for rows in (before, after))
    assert 0 < patches_after < patches_before


def test_an_edited_contour_is_taken_back_and_never_overwritten(
    cohort: SyntheticCohort, tmp_path: Path
) -> None:
    run_patching(job(cohort.slides_csv, tmp_path))
    workspace = Workspace(str(tmp_path))
    slide_id = cohort.slides[0].slide_id
    path = Path(workspace.contours(slide_id))
    box = [[256, 256], [768, 256], [768, 512], [256, 512], [256, 256]]
    geometry = {"type": "Polygon", "coordinates": [box]}
    path.write_text(json.dumps({"type": "Feature", "properties": {}, "geometry": geometry}))
    edited = path.read_text()
    refused = run_patching(job(cohort.slides_csv, tmp_path, overwrite=True))
    assert [slide.slide_id for slide in refused.failures] == [slide_id]
    assert "edited" in refused.failures[0].reason
    assert path.read_text() == edited
    own = tmp_path / "mine"
    own.mkdir()
    shutil.move(path, own / path.name)
    taken = run_patching(job(cohort.slides_csv, tmp_path, contours=str(own)))
    assert not taken.failures
    grid = read_patches(workspace.patches(slide_id), slide_id)
    assert grid.xy.min(axis=0).tolist() == [256, 256]
    assert (grid.xy.max(axis=0) <= [768, 512]).all()


def test_seg_only_draws_and_places_no_patches(cohort: SyntheticCohort, tmp_path: Path) -> None:
    summary = run_patching(job(cohort.slides_csv, tmp_path, seg_only=True))
    assert summary.done == 4
    assert len(list((tmp_path / "masks").iterdir())) == 4
    assert not (tmp_path / "patches").exists()
    assert {row.num_patches for row in Workspace(str(tmp_path)).read_slides().values()} == {None}
    assert run_patching(job(cohort.slides_csv, tmp_path)).done == 4


def test_each_bad_slide_costs_itself_alone(cohort: SyntheticCohort, tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    source = cohort.slides[0].path
    for name in ("good", "cut_short", "no_pixels", "holes_in_file"):
        shutil.copy(source, slides / f"{name}.tif")
    truncate_file(slides / "cut_short.tif", 0.9)
    for level in range(3):
        corrupt_tiles(slides / "no_pixels.tif", level=level)
        remove_tiles(slides / "holes_in_file.tif", level=level)
    (slides / "text.svs").write_text("not a slide")
    (slides / "empty.ndpi").touch()
    shutil.copy(source, slides / "twice.tif")
    shutil.copy(source, slides / "twice.tiff")
    summary = run_patching(job(slides, tmp_path / "work"))
    reasons = {slide.slide_id: slide.reason for slide in summary.failures}
    assert summary.done == 1
    assert reasons.keys() == {"cut_short", "no_pixels", "holes_in_file", "text", "empty", "twice"}
    assert "cut short" in reasons["cut_short"]
    assert "cannot be decoded" in reasons["no_pixels"]
    assert "missing from the file" in reasons["holes_in_file"]
    assert "not a slide that can be read" in reasons["text"]
    assert "twice.tiff" in reasons["twice"]
    assert "rename" in reasons["twice"]


def test_as_many_slides_may_fail_as_the_user_allows(
    cohort: SyntheticCohort, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    shutil.copy(cohort.slides[0].path, slides / "good.tif")
    for name in ("bad", "worse"):
        (slides / f"{name}.svs").write_text("not a slide")
    words = ["patch", "--slides", str(slides), "--work", str(tmp_path / "work")]
    words += ["--preset", "bwh_biopsy"]
    for allowed, status in (([], 1), (["--max-failures", "1"], 1), (["--max-failures", "2"], 0)):
        assert call([*words, *allowed]) == status
        assert "bad" in capsys.readouterr().out  # named in either case
    rows = Workspace(str(tmp_path / "work")).read_slides()
    assert {name: row.status for name, row in rows.items()} == {
        "good": "ok", "bad": "failed", "worse": "failed",
    }  # fmt: skip
    ended = [json.loads(one.read_text()) for one in (tmp_path / "work").glob("manifests/*.json")]
    assert [manifest["outcome"] for manifest in ended] == ["failures"] * 3


@pytest.mark.chaos
def test_a_slide_that_kills_its_worker_is_given_up_and_recorded(
    cohort: SyntheticCohort, tmp_path: Path
) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    shutil.copy(cohort.slides[0].path, slides / "good.tif")
    shutil.copy(cohort.slides[1].path, slides / "also_good.tif")
    import numpy as np

    write_pyramid(slides / "poison.tif", np.full((900, 1000, 3), 200, np.uint8), mpp=0.5)
    segmenter = "crane_test_plugins.crashing_segmenter"
    summary = run_patching(job(slides, tmp_path / "work", segmenter=segmenter))
    assert summary.done == 2
    assert [slide.slide_id for slide in summary.failures] == ["poison"]
    assert "its worker died" in summary.failures[0].reason
