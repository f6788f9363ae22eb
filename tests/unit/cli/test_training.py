"""What a person is told of a training: mistakes before anything starts, its course, its end."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.cli import training_console
from crane_ray.cli.main import call
from crane_ray.cli.training_console import Lines, LiveTable, print_metrics, print_training
from crane_ray.cohort.findings import Finding
from crane_ray.manifest import LeftOut
from crane_ray.runtime import tracking
from crane_ray.runtime.folds import FoldKey, FoldOutcome
from crane_ray.runtime.training_course import TrainingSummary
from tests.unit.runtime.small_study import SmallStudy

pytestmark = pytest.mark.usefixtures("no_cluster")


class Told:
    """Runs a command that must end as a user's mistake, and gives its words."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, words: list[str]) -> str:
        assert call(words) == 2
        out = self._capsys.readouterr()
        text = out.out + out.err
        assert "Traceback" not in text
        return " ".join(text.split())


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


def test_a_label_outside_the_map(study: SmallStudy, told: Told) -> None:
    text = study.labels.read_text().replace(",b,", ",B ,", 1)
    study.labels.write_text(text)
    words = told(study.words(study.root / "r"))
    assert "'B'" in words
    assert "--normalise-labels" in words
    assert not (study.root / "r").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--labels", "nowhere.csv"], "nowhere.csv"),
        (["--features", "nowhere"], "nowhere: no such folder"),
        (["--splits", "nowhere"], "no splits_0.csv"),
        (["--task", "kidneys"], "task kidneys: no such task set; Known task sets: cardiac-grade"),
        (["--task", "cardiac-mlt"], "no such task set; did you mean cardiac-mtl?"),
        (["--task", "kidneys.yaml"], "kidneys.yaml: no such file; Known task sets: cardiac-grade"),
        (["--folds", "1,9"], "no splits_9.csv (folds there: 0, 1, 2)"),
        (["--folds", "5-2"], "5-2 runs backwards"),
        (["--model", "transformer"], "transformer"),
        (["--by", "sites"], "no column sites (--by); did you mean site?"),
        (["--set", "tracking.wandb=mine"], "pip install wandb"),
        (["--set", "tracking.mlflow=mine"], "pip install mlflow"),
        (["--grouped-folds", "--workers", "2"], "--grouped-folds trains on one device"),
        (["--set", "training.optim.lr=0"], "training.optim.lr: 0:"),
        (["--set", "training.epoch=2"], "did you mean training.epochs?"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    study: SmallStudy,
    told: Told,
    words: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert expected in told(study.words(study.root / "r", *words))
    assert not (study.root / "r").exists()


def test_features_of_other_slides(study: SmallStudy, told: Told) -> None:
    study.labels.write_text(study.labels.read_text().replace(",S", ",slide_"))
    words = told(study.words(study.root / "r"))
    assert "none of the 16 labelled slides is among the 16 slides with features" in words


def test_a_run_that_is_there_is_neither_repeated_nor_replaced(
    study: SmallStudy, told: Told
) -> None:
    config = study.root / "r" / "own_s1" / "config.yaml"
    config.parent.mkdir(parents=True)
    config.write_text("task: other\n")
    words = told(study.words(study.root / "r"))
    assert "there is a run already; --resume" in words
    assert config.read_text() == "task: other\n"


def test_to_go_on_as_another_run_is_refused_and_leaves_the_run_alone(
    study: SmallStudy, told: Told
) -> None:
    from crane_ray.runtime.folds import begin_fold
    from tests.unit.runtime.small_study import work_of

    begin_fold(work_of(study.job(study.root / "r")), FoldKey(1, 0))
    config = study.root / "r" / "own_s1" / "config.yaml"
    config.write_text("as it was\n")
    words = told(study.words(study.root / "r", "--resume", "--set=training.optim.lr=0.5"))
    assert "fold 0 began with another training.optim.lr (0.01, now 0.5)" in words
    assert config.read_text() == "as it was\n"
    assert not (config.parent / "manifest.json").exists()


def evaluate(study: SmallStudy, model: Path, *words: str) -> list[str]:
    return [
        "evaluate", "--model", str(model), "--labels", str(study.labels), "--features",
        str(study.features), "--results", str(study.root / "e"), *words,
    ]  # fmt: skip


def test_mistakes_of_an_evaluation(study: SmallStudy, told: Told, tmp_path: Path) -> None:
    assert "no s_0_checkpoint" in told(evaluate(study, tmp_path))
    path = tmp_path / "s_0_checkpoint.pt"
    path.write_bytes(b"no network")
    assert "or is cut short" in told(evaluate(study, path))
    torch.save({"weights": np.float64}, path)
    assert "pickled objects" in told(evaluate(study, path))
    from crane_ray.cohort.tasks import load_task_set
    from crane_ray.mil.aggregator import build_aggregator
    from crane_ray.mil.checkpoints import save_published
    from crane_ray.mil.configs import ModelConfig

    tasks = load_task_set(str(study.task)).tasks
    save_published(str(path), build_aggregator(ModelConfig(), 6, tasks))
    assert "does not say what its classes are; give --task" in told(evaluate(study, path))
    named = ("--task", str(study.task))
    assert "a checkpoint alone has no splits" in told(evaluate(study, path, *named))
    folds = (*named, "--splits", str(study.splits), "--folds", "1")
    assert "s_0_checkpoint.pt is of fold 0" in told(evaluate(study, path, *folds))
    heads = told(evaluate(study, path, "--task", "cardiac-mtl", "--split", "external"))
    assert "label" in heads
    column = told(evaluate(study, path, *named, "--split", "external", "--by", "hospital"))
    assert "no column hospital (--by)" in column


def outcome(fold: int, **facts: Any) -> FoldOutcome:
    fixed = {"epochs": 12, "best_epoch": 7, "best_loss": 0.25, "num_train": 10, "num_val": 3}
    return FoldOutcome(1, fold, "f", **{**fixed, **facts})


def message(fold: int, epoch: int, seed: int = 1) -> dict[str, Any]:
    return {
        "kind": "epoch", "seed": seed, "fold": fold, "epoch": epoch, "train_loss": 0.5,
        "val_loss": None if fold else 0.25, "best_epoch": epoch, "val_auc": {}, "seconds": 1.0,
    }  # fmt: skip


def test_lines_of_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = Lines()
    lines.begin([FoldKey(1, 0), FoldKey(1, 1)], 20)
    lines.epoch(message(0, 0))
    assert capsys.readouterr().out == "training: 2 folds, 20 epochs at most\n"
    monkeypatch.setattr(training_console, "LINE_EVERY_S", 0.0)
    lines.begin([FoldKey(1, 0), FoldKey(1, 1)], 20)
    lines.packing(40, 1000)
    lines.epoch(message(0, 3))
    lines.epoch(message(1, 4))
    lines.finished(outcome(0, num_test=4, seconds=61.2))
    lines.finished(outcome(1, failure="fold 1: the loss is nan"))
    lines.end()
    assert capsys.readouterr().out.splitlines()[1:] == [
        "training: features of 40 of 1,000 slides packed",
        "training: fold 0: epoch 4, val loss 0.2500",
        "training: fold 0: epoch 4, val loss 0.2500, fold 1: epoch 5, val loss -",
        "fold 0: 12 epochs, best 8 (val loss 0.2500), 10/3/4 train/val/test bags, 61 s",
        "fold 1: failed after 12 epochs",
    ]


def test_lines_name_the_seed_where_there_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines()
    lines.begin([FoldKey(1, 0), FoldKey(2, 0)], 20)
    lines.finished(outcome(0, best_loss=None))
    assert "fold 0 of seed 1: 12 epochs, best 8, 10/3/0" in capsys.readouterr().out


def test_the_live_table_has_every_state(capsys: pytest.CaptureFixture[str]) -> None:
    table = LiveTable()
    table.begin([FoldKey(1, fold) for fold in range(4)], 20)
    table.packing(3, 7)
    table.epoch(message(0, 4))
    table.epoch(message(1, 4))
    table.finished(outcome(1, stopped_early=True))
    table.finished(outcome(2, failure="no bags"))
    table.end()
    out = capsys.readouterr().out
    assert all(word in out for word in ("training", "stopped early", "failed", "waiting", "5/20"))


def test_the_end_of_a_training(capsys: pytest.CaptureFixture[str]) -> None:
    bad = LeftOut(slide_id="S3", status="failed", reason="it has no patches")
    summary = TrainingSummary(
        ["/results/own_s1"],
        [outcome(0, left_out=(bad,)), outcome(1, failure="fold 1: the loss is nan")],
        findings=(Finding("error", "shared_cases", "2 cases shared"), Finding("note", "x", "y")),
        rows=[
            {"task": "kind", "group": "all", "AUC": "0.9 [0.8, 1.0]", "ECE": "0.1 [0.0, 0.2]"},
        ],
        seconds=61,
    )  # fmt: skip
    print_training(summary)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "error: 2 cases shared",
        "left out S3: it has no patches",
        "failed fold 1: the loss is nan",
    ]
    assert any("0.9 [0.8, 1.0]" in line and "0.1 " in line for line in lines)
    assert lines[-2:] == ["time: 0:01:01", "results: /results/own_s1"]
    assert summary.left_out == [bad]


def test_ctrl_c_says_how_to_go_on(
    study: SmallStudy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*words: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("crane_ray.runtime.training.run_training", stop)
    assert call(study.words(study.root / "r")) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().out


def test_of_several_seeds_failures_name_theirs() -> None:
    summary = TrainingSummary(["a", "b"], [outcome(1, failure="fold 1: the loss is nan")])
    assert summary.failures == ["seed 1, fold 1: the loss is nan"]


def test_of_many_groups_the_first_are_shown_and_the_others_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{"fold": "0", "group": "all", "AUC": "0.5"}]
    print_metrics(rows, "test part")
    assert "group" not in capsys.readouterr().out
    rows += [{"fold": "0", "group": f"site=S{i:02}", "AUC": "0.5"} for i in range(14)]
    print_metrics(rows, "test part")
    out = capsys.readouterr().out
    assert "site=S09" in out and "site=S10" not in out
    assert "... and 4 more groups in metrics.csv" in out
