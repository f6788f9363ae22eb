"""A trial of a search, without a cluster."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.cohort.splits import Split
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.summary import evaluate
from crane_ray.runtime.fold_training import train_folds
from crane_ray.runtime.folds import FoldKey
from crane_ray.runtime.search_plan import plan_search
from crane_ray.runtime.shares import Share
from crane_ray.runtime.trials import TrialWork, run_trial
from tests.unit.runtime.small_study import DIM, SmallStudy, make_study, work_of

SPACE = {"optim.lr": {"loguniform": [1e-4, 1e-1]}, "model.hidden_dim": {"choice": [8, 12]}}
PARAMS = {"training.optim.lr": 0.02, "model.hidden_dim": 12}


@pytest.fixture
def study(tmp_path: Path) -> SmallStudy:
    return make_study(tmp_path / "study")


def trial_work(study: SmallStudy, folder: Path, **settings: Any) -> TrialWork:
    job = study.search(folder / "results", SPACE, **settings)
    plan = plan_search(job)
    return TrialWork(
        tree=job.training_tree(),
        studies=plan.parts_of(plan.splits),
        splits={fold: Split(one.train, one.val, ()) for fold, one in plan.splits.items()},
        objective=plan.objective,
        folder=str(folder),
        share=Share(1, 0.0, 1),
        checkpoint_every=1,
    )


def follow(
    work: TrialWork, params: dict[str, Any], keep: Path | None = None, **how: Any
) -> list[dict[str, Any]]:
    """The reports of a trial; its folders to go on from are copied below ``keep``, by epoch."""
    reports: list[dict[str, Any]] = []

    def report(numbers: dict[str, Any], folder: str | None) -> None:
        reports.append(numbers)
        if keep is not None and folder is not None:
            shutil.copytree(folder, keep / str(numbers["epochs"]))

    run_trial(work, params, report, **how)
    return reports


def test_the_objective_is_what_training_with_those_settings_comes_to(
    study: SmallStudy, tmp_path: Path
) -> None:
    settings = {"folds": "0-1", "training__epochs": 6}
    work = trial_work(study, tmp_path, **settings)
    *_, last = follow(work, PARAMS)
    assert last["over"]
    assert last["epochs"] == 6
    job = work.job(PARAMS)
    folds = work_of(job)
    outcomes = train_folds(folds, [FoldKey(1, fold) for fold in (0, 1)])
    found = Predictions.concat(
        Predictions.from_parquet(str(Path(folds.folder(it.key)) / "predictions.parquet"))
        for it in outcomes
    )
    judged = evaluate(found, folds.tasks, num_replicates=0)
    assert last["objective"] == judged.find("auc", task="kind", split="val").value
    losses = [it.best_loss for it in outcomes]
    assert last["val_loss"] == pytest.approx(np.mean([loss for loss in losses if loss is not None]))


def test_the_test_part_is_never_read(study: SmallStudy, tmp_path: Path) -> None:
    before = follow(trial_work(study, tmp_path / "a"), PARAMS)
    test = plan_search(study.search(tmp_path, SPACE)).splits[0].test
    poison = np.full((4, DIM + 3), np.nan, dtype=np.float32)
    rows = study.labels.read_text().splitlines()
    for slide_id in test:
        study.put_features(slide_id, poison)
        rows = [
            row.replace(",a,", ",?,").replace(",b,", ",a,").replace(",?,", ",b,")
            if f",{slide_id}.svs," in row
            else row
            for row in rows
        ]
    study.labels.write_text("\n".join(rows) + "\n")
    assert follow(trial_work(study, tmp_path / "b"), PARAMS) == before
    for slide_id in test:
        (study.features / "pt_files" / f"{slide_id}.pt").write_bytes(b"no features")
    assert follow(trial_work(study, tmp_path / "c"), PARAMS) == before


def test_a_trial_goes_on_where_it_was(study: SmallStudy, tmp_path: Path) -> None:
    work = trial_work(study, tmp_path, folds="0-1")
    whole = follow(work, PARAMS, tmp_path / "kept")
    for epochs in (1, 2, 3):
        rest = follow(work, PARAMS, resume=str(tmp_path / "kept" / str(epochs)))
        assert rest == whole[epochs:]
    over = follow(work, PARAMS, resume=str(tmp_path / "kept" / "4"))
    assert over == whole[-1:], "nothing was left to train, and it says so"


def test_a_trial_goes_on_with_anothers_weights_and_its_own_settings(
    study: SmallStudy, tmp_path: Path
) -> None:
    work = trial_work(study, tmp_path)
    donor = follow(work, PARAMS, tmp_path / "kept")
    kept = tmp_path / "kept" / "2"
    frozen = follow(work, {**PARAMS, "training.optim.lr": 1e-30}, resume=str(kept))
    state = torch.load(kept / "state_0.pt", weights_only=True)
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.02
    assert [one["epochs"] for one in frozen] == [3, 4]
    assert frozen[-1]["objective"] == donor[1]["objective"]
    assert frozen[-1]["val_loss"] == pytest.approx(donor[1]["val_loss"], abs=1e-6)
    assert frozen[-1]["val_loss"] != pytest.approx(donor[-1]["val_loss"], abs=1e-6)


def test_a_loss_that_is_not_finite_ends_the_trial_with_the_reason(
    study: SmallStudy, tmp_path: Path
) -> None:
    work = trial_work(study, tmp_path)
    *_, last = follow(work, {**PARAMS, "training.optim.lr": 1e30})
    assert last["over"]
    assert last["objective"] == work.objective.worst
    assert "the loss is" in last["failure"] or "the val loss is" in last["failure"]


def test_features_that_cannot_be_used_end_the_trial_with_the_reason(
    study: SmallStudy, tmp_path: Path
) -> None:
    work = trial_work(study, tmp_path)
    broken = replace(work, share=Share(1, 0.5, 1))
    (report,) = follow(broken, PARAMS)
    if not torch.cuda.is_available():
        assert "a GPU was asked for" in report["failure"]
