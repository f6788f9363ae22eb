"""Slides to diagnoses in one command: what it says, what it leaves out, what it never repeats."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crane_ray.cli.main import call
from crane_ray.maps.folder import MapsFolder
from crane_ray.runtime import slide_assessment
from crane_ray.runtime.extraction import run_extraction
from crane_ray.runtime.jobs import ExtractJob, PatchJob
from crane_ray.runtime.patching import run_patching
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.runtime.training import run_training
from crane_ray.testing.cohorts import SyntheticCohort
from tests.ray.helpers import SLOW

pytestmark = pytest.mark.ray

STORE = "features/slow_colour"
TRAINING: dict[str, Any] = {
    "task": "cardiac-mtl",
    "model.hidden_dim": 8,
    "model.attention_dim": 4,
    "training.epochs": 2,
    "tracking.tensorboard": False,
}


@pytest.fixture(scope="module")
def run(cohort: SyntheticCohort, local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two folds on features of the cohort, as each verb by itself makes them."""
    root = tmp_path_factory.mktemp("trained")
    work = str(root / "work")
    patching = {
        "slides.source": str(cohort.slides_csv),
        "work": work,
        "tissue.preset": "bwh_biopsy",
        "patch.size_px": 64,
        "pictures": False,
    }
    assert not run_patching(PatchJob.load(overrides=patching.items())).left_out
    extraction = {"work": work, "encoder.name": SLOW, "encoder.weights": "random"}
    assert not run_extraction(ExtractJob.load(overrides=extraction.items())).left_out
    (root / "splits").mkdir()
    names = [slide.slide_id for slide in cohort.slides]
    for fold in range(2):
        first, second, val, test = np.roll(names, fold)
        text = f",train,val,test\n0,{first},{val},{test}\n1,{second},,\n"
        (root / "splits" / f"splits_{fold}.csv").write_text(text)
    training = {
        **TRAINING,
        "bags.labels": str(cohort.labels_csv),
        "bags.features": f"{work}/{STORE}",
        "bags.pack.folder": str(root / "packs"),
        "splits": str(root / "splits"),
        "results": str(root / "results"),
    }
    summary = run_training(TrainJob.load(overrides=training.items()))
    assert not summary.failures
    return Path(summary.folders[0])


@pytest.fixture(scope="module")
def new_slides(cohort: SyntheticCohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of the cohort's slides elsewhere, one more of a case that breaks, and one alone."""
    folder = tmp_path_factory.mktemp("new")
    table = pd.read_csv(cohort.slides_csv, dtype=str)
    for slide in cohort.slides:
        shutil.copy(slide.path, folder)
    table["uri"] = [f"{name}.tif" for name in table["slide_id"]]
    whole = (folder / "slide_0000.tif").read_bytes()
    for name in ("cut", "lone"):
        (folder / f"{name}.tif").write_bytes(whole[:2000])
    broken = [("cut", "cut.tif", "case_0001", "0.5"), ("lone", "lone.tif", "case_lone", "0.5")]
    more = pd.DataFrame(broken, columns=["slide_id", "uri", "case_id", "mpp"])
    pd.concat([table, more]).to_csv(folder / "slides.csv", index=False)
    return folder / "slides.csv"


def of_slides(run: Path, slides: Path, work: Path, *more: str) -> list[str]:
    return [
        "assess", "--model", str(run), "--slides", str(slides), "--work", str(work),
        "--pack-folder", str(work.parent / "packs"), *more,
    ]  # fmt: skip


def counts(work: Path, verb: str) -> dict[str, int]:
    """What the last run of a verb counted."""
    folder = work / "heatmaps" / "cardiac-mtl_s1" if verb == "heatmap" else work
    path = max((folder / "manifests").glob(f"*-{verb}-*.json"), key=lambda it: it.stat().st_mtime)
    found: dict[str, int] = json.loads(path.read_text())["counts"]
    return found


def written(folder: Path) -> dict[str, int]:
    """When each file beneath a folder was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_slides_are_diagnosed_as_by_each_verb_alone_and_nothing_is_done_twice(
    run: Path,
    cohort: SyntheticCohort,
    new_slides: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    work, alone = tmp_path / "work", tmp_path / "alone"

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(slide_assessment, "run_heatmaps", interrupt)
        assert call(of_slides(run, new_slides, work)) == 130
    before = {**written(work / "patches"), **written(work / STORE / "slides")}
    assert len(before) >= 2 * len(cohort.slides)
    assert call(of_slides(run, new_slides, work)) == 1, "two slides are broken"
    out = capsys.readouterr().out
    assert {**written(work / "patches"), **written(work / STORE / "slides")} == before
    extracted = counts(work, "extract")
    assert (extracted["done"], extracted["skipped"], extracted["patches"]) == (0, 4, 0)
    assert "no usable slide" in out
    assert f"crane-ray view {work}" in out

    words = ["assess", "--model", str(run), "--cases", str(cohort.labels_csv), "--out", str(alone)]
    features = run.parents[1] / "work" / STORE
    assert call([*words, "--features", str(features)]) == 0
    found = pd.read_parquet(work / "assessment" / "assessment.parquet").set_index("case_id")
    expected = pd.read_parquet(alone / "assessment.parquet").set_index("case_id")
    verdict = [name for name in map(str, found) if name.startswith(("p_", "decision_"))]
    assert len(verdict) == 9
    shared = found.reindex(expected.index)
    pd.testing.assert_frame_equal(shared[verdict], expected[verdict], check_exact=True)
    assert (found["features_recipe"] == expected["features_recipe"].iloc[0]).all()
    assert found[verdict].loc["case_lone"].isna().all()
    assert found["num_slides"].tolist() == [1, 1, 2, 0]
    assert found["num_left_out"].tolist() == [0, 1, 0, 1]
    left_out = pd.read_csv(work / "assessment" / "left_out.csv")
    assert left_out["slide_id"].tolist() == ["cut", "lone"]
    assert left_out["reason"].str.len().min() > 20
    maps = MapsFolder(str(work / "heatmaps" / "cardiac-mtl_s1"))
    assert sorted(maps.read_index()) == [slide.slide_id for slide in cohort.slides]
    assert maps.read_header().heads == ("cell", "amr", "quilty")

    drawn = written(work / "heatmaps" / "cardiac-mtl_s1" / "scores")
    assert call(of_slides(run, new_slides, work)) == 1
    assert written(work / "heatmaps" / "cardiac-mtl_s1" / "scores") == drawn
    assert counts(work, "heatmap")["skipped"] == 4


def test_without_a_single_usable_slide_there_still_is_a_table(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slides = tmp_path / "slides"
    slides.mkdir()
    for name in ("a", "b"):
        (slides / f"{name}.svs").write_bytes(b"no slide at all")
    assert call(of_slides(run, slides, tmp_path / "work")) == 1
    out = capsys.readouterr().out
    assert "each slide is a case of its own" in out
    table = pd.read_csv(tmp_path / "work" / "assessment" / "assessment.csv")
    assert table["case_id"].tolist() == ["a", "b"]
    assert table["decision_cell"].isna().all()
    assert table["left_out"].str.contains("a slide that can be read").all()
    assert not (tmp_path / "work" / "features").exists()
