"""Made-up runs for the tests of this folder."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.config import Config
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.summary import evaluate
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.mil.history import Epoch
from crane_ray.report.results import FoldCourse, RunResults, TaskResults
from tests.unit.evaluation.made_up import BINARY, THREE, predict

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
FEW = 40
"""Bootstrap replicates."""


def course(fold: int, **changes: Any) -> FoldCourse:
    """A fold of three epochs, of which the second was kept."""
    losses = (0.7, 0.5, 0.6)
    epochs = tuple(
        Epoch(epoch, 0.7 - 0.2 * epoch, loss + 0.01 * fold, {"amr": 0.5 + 0.1 * epoch})
        for epoch, loss in enumerate(losses)
    )
    outcome = {"fold": fold, "epochs": 3, "best_epoch": 1, "best_loss": 0.5, "num_train": 8,
               "num_val": 4, "num_test": 12, "failure": "", **changes}  # fmt: skip
    return FoldCourse(fold, outcome, epochs)


def manifest(**changes: Any) -> RunManifest:
    """Of a training that left out a slide and noticed things."""
    facts = {
        "findings": [
            {"severity": "error", "message": "2 cases in two parts"},
            {"severity": "warning", "message": "few cases"},
        ],
        "features": {"features": {"root": "/cohort/features/uni", "identity": "0123456789abcdef"}},
        "cohort": {"slides": 30, "cases": 24,
                   "classes": {"amr": [["no_amr", 18, 15], ["amr", 10, 9], [None, 2, 1]]}},
    }  # fmt: skip
    left_out = [LeftOut(slide_id="s-9", status="failed", reason="features are not finite")]
    started = RunManifest.start("train", Config())
    return started.finish("failures", facts=facts, left_out=left_out).model_copy(update=changes)


def run_of(
    predictions: Predictions,
    tasks: Sequence[TaskSpec] = (BINARY,),
    *,
    by: dict[str, dict[str, str]] | None = None,
    **changes: Any,
) -> RunResults:
    """A training with these predictions, measured."""
    results = RunResults(
        folder="/results/amr_s1",
        kind="training",
        name="amr_s1",
        tasks=tuple(tasks),
        config={"task": "cardiac-mtl", "training": {"seed": 1, "stopping": {"enabled": True}}},
        manifest=manifest(),
        predictions=predictions,
        evaluation=evaluate(predictions, tasks, by=by, num_replicates=FEW),
        courses=(course(0), course(1)),
        checkpoints={"0": "aaaa000011112222", "1": "bbbb000011112222"},
    )
    return replace(results, **changes)


def two_folds(task: TaskSpec = BINARY, **how: Any) -> Predictions:
    """Test and val parts of two folds; cases of the test parts are the same."""
    return Predictions.concat(
        predict(task, fold=fold, split=split, seed=fold, **how)
        for fold in (0, 1)
        for split in ("val", "test")
    )


def task_of(predictions: Predictions, task: TaskSpec = BINARY) -> TaskResults:
    """The results of one task."""
    found = run_of(predictions, (task,)).of_task(0)
    assert found is not None
    return found


__all__ = ["BINARY", "EVIL", "THREE", "course", "manifest", "run_of", "task_of", "two_folds"]
