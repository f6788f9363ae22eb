"""Trained networks judged: what the run itself said, other cohorts, and what does not fit."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crane_ray.cli.main import call
from crane_ray.evaluation.predictions import ENSEMBLE, Predictions
from crane_ray.manifest import RunManifest
from crane_ray.runtime import evaluation
from crane_ray.runtime.training import run_training
from tests.unit.runtime.small_study import DIM, SmallStudy, make_study

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SmallStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def run(local_ray: None, study: SmallStudy) -> Path:
    summary = run_training(study.job(study.root / "results"))
    return Path(summary.folders[0])


def words(study: SmallStudy, model: Path, results: Path, *more: str) -> list[str]:
    return [
        "evaluate", "--model", str(model), "--labels", str(study.labels), "--features",
        str(study.features), "--pack-folder", str(study.root / "packs"),
        "--results", str(results), "--set", "num_replicates=50", *more,
    ]  # fmt: skip


def predictions(folder: Path) -> Predictions:
    return Predictions.from_parquet(str(folder / "predictions.parquet"))


def test_the_test_part_again_is_what_the_run_said(
    study: SmallStudy, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(words(study, run, tmp_path, "--ensemble", "--by", "site")) == 0
    out = capsys.readouterr().out
    assert "test part" in out
    assert "ensemble" in out
    folder = tmp_path / "EVAL_own_s1_test"
    found, own = predictions(folder), predictions(run).select(split="test")
    assert found.folds() == [ENSEMBLE, 0, 1, 2]
    for fold in own.folds():
        one, two = (it.select(fold=fold).arrays("kind") for it in (found, own))
        assert one.slide_ids_N.tolist() == two.slide_ids_N.tolist()
        np.testing.assert_allclose(one.logits_NC, two.logits_NC, atol=1e-6)
        np.testing.assert_array_equal(one.labels_N, two.labels_N)
    table = pd.read_csv(folder / "fold_1.csv")
    assert list(table.columns) == ["slide_id", "Y", "Y_hat", "p_0", "p_1"]
    numbers = json.loads((folder / "metrics.json").read_text())
    assert {"site=north", "site=south"} == set(numbers["groups"])
    whole = json.loads((run / "metrics.json").read_text())["tasks"]["kind"]["test"]["0"]
    again = numbers["tasks"]["kind"]["test"]["0"]
    # Temperatures are fitted on the run's own val predictions.
    for metric in ("auc", "ece", "ece_calibrated", "sensitivity_at_youden"):
        assert again[metric]["value"] == pytest.approx(whole[metric]["value"], abs=1e-5)
    facts = json.loads((folder / "manifest.json").read_text())["facts"]
    for name in "012":
        outcome = json.loads((run / "folds" / name / "outcome.json").read_text())
        assert facts["checkpoints"][name]["fingerprint"] == outcome["fingerprint"]
    page = (folder / "report.html").read_text()
    assert "Evaluation EVAL_own_s1_test" in page and "ensemble of the folds" in page
    assert call(words(study, run, tmp_path)) == 2
    assert "there is an evaluation already" in capsys.readouterr().out


def test_a_published_checkpoint_says_the_same(study: SmallStudy, run: Path, tmp_path: Path) -> None:
    path = run / "s_1_checkpoint.pt"
    more = ("--task", str(study.task), "--splits", str(study.splits))
    assert call(words(study, path, tmp_path, *more)) == 0
    found = predictions(tmp_path / "EVAL_s_1_checkpoint_test")
    assert found.folds() == [1]
    own = predictions(run).select(split="test", fold=1).arrays("kind")
    np.testing.assert_allclose(found.arrays("kind").logits_NC, own.logits_NC, atol=1e-6)


def test_an_external_cohort_of_cases_some_of_which_were_trained_on(
    study: SmallStudy, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--split", "external", "--bag-level", "case", "--ensemble", "--eval-code", "other")
    assert call(words(study, run, tmp_path, *more)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "error: 16 slides of 16 of cases in the run's own train or val parts" in out
    assert "trained on bags of a slide each, and are judged on bags of a case each" in out
    found = predictions(tmp_path / "EVAL_other").select(fold=ENSEMBLE).arrays("kind")
    assert len(found) == 15
    assert set(found.splits_N) == {"external"}
    manifest = tmp_path / "EVAL_other" / "manifest.json"
    kinds = {
        finding["kind"]
        for finding in RunManifest.model_validate_json(manifest.read_bytes()).facts["findings"]
    }
    assert kinds == {"seen_in_training", "other_bag_level"}


def test_folds_without_a_bag_are_told_and_the_others_judged(
    study: SmallStudy, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = tmp_path / "splits"
    splits.mkdir()
    (splits / "splits_0.csv").write_text(",train,val,test\n0,S1,S2,S3\n1,,,S4\n2,,,unknown\n")
    (splits / "splits_1.csv").write_text(",train,val,test\n0,S1,S2,\n")
    more = ("--splits", str(splits), "--folds", "0-1")
    assert call(words(study, run, tmp_path, *more)) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "1 fold without a bag in the test part: 1" in out
    assert "1 slide without a label" in out
    only = ("--splits", str(splits), "--folds", "1", "--overwrite")
    assert call(words(study, run, tmp_path, *only)) == 2
    assert "no fold has a bag with features and labels there" in capsys.readouterr().out


def test_features_that_do_not_fit_or_cannot_be_used(
    local_ray: None, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_study(tmp_path / "other")
    for slide_id in other.slide_ids:
        other.put_features(slide_id, np.ones((3, DIM + 2), dtype=np.float32))
    assert call(words(other, run, tmp_path, "--split", "external")) == 2
    assert f"vectors of {DIM + 2} numbers, the network takes {DIM}" in capsys.readouterr().out
    for slide_id in other.slide_ids:
        other.put_features(slide_id, np.ones((4, DIM), dtype=np.float32))
    other.put_features("S5", np.full((3, DIM), np.nan, dtype=np.float32))
    assert call(words(other, run, tmp_path, "--split", "external")) == 1
    assert "left out S5: 3 of its 3 patches" in capsys.readouterr().out
    found = predictions(tmp_path / "EVAL_own_s1_external")
    assert "S5" not in found.table["slide_id"].to_pylist()


def test_all_parts_in_place_of_another_evaluation(
    study: SmallStudy, run: Path, tmp_path: Path
) -> None:
    stale = tmp_path / "EVAL_own_s1_all" / "fold_7.csv"
    stale.parent.mkdir()
    stale.touch()
    (stale.parent / "manifest.json").touch()
    assert call(words(study, run, tmp_path, "--split", "all", "--folds", "2")) == 2
    assert stale.exists()
    assert call(words(study, run, tmp_path, "--split", "all", "--folds", "2", "--overwrite")) == 0
    assert not stale.exists()
    found = predictions(tmp_path / "EVAL_own_s1_all")
    assert found.splits() == ["test", "train", "val"]
    assert len(found) == 16
    table = pd.read_csv(tmp_path / "EVAL_own_s1_all" / "fold_2.csv")
    assert sorted(table["slide_id"]) == sorted(study.slide_ids)


@pytest.mark.parametrize(
    ("threshold", "told"),
    [("other=0.5", "threshold of task other: not a task"), ("kind=50", "is no probability")],
)
def test_thresholds_are_looked_at_before_any_work(
    study: SmallStudy,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    threshold: str,
    told: str,
) -> None:
    def begin(*_: object) -> None:
        raise AssertionError("work started")

    monkeypatch.setattr(evaluation, "connected", begin)
    assert call(words(study, run, tmp_path, "--set", f"thresholds.{threshold}")) == 2
    assert told in " ".join(capsys.readouterr().out.split())
