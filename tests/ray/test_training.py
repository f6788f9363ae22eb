"""Training on a cluster: results, going on, and workers and drivers that are killed."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crane_ray.cli.main import call
from crane_ray.evaluation.predictions import Predictions
from crane_ray.manifest import RunManifest
from crane_ray.mil.checkpoints import load_checkpoint
from crane_ray.runtime.training import run_training
from crane_ray.runtime.training_course import SilentTraining
from tests.ray.helpers import (
    LONG,
    command,
    finish,
    kill_one,
    processes_below,
    tree_digest,
    wait_for,
)
from tests.unit.runtime.small_study import DIM, SmallStudy, make_study
from tests.unit.runtime.test_tracking import events

pytestmark = pytest.mark.ray

MANY_EPOCHS = 100
"""Epochs, so that there is time to kill a worker after its first ones."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SmallStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@dataclass
class Watching(SilentTraining):
    """Notes all epochs, and does harm after one."""

    harm: Callable[[], None] = lambda: None
    after: int = -1
    epochs: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def epoch(self, message: dict[str, Any]) -> None:
        self.epochs.append(message["epoch"])
        if message["epoch"] == self.after:
            self.after = -1
            self.harm()

    def note(self, text: str) -> None:
        self.notes.append(text)


def weights(folder: Path, fold: int = 0) -> dict[str, Any]:
    network = load_checkpoint(str(folder / f"s_{fold}_checkpoint.safetensors")).network
    return {name: values.numpy() for name, values in network.state_dict().items()}


def manifest(folder: Path) -> RunManifest:
    return RunManifest.model_validate_json((folder / "manifest.json").read_bytes())


def test_a_run_its_results_and_going_on(
    local_ray: None, study: SmallStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = study.words(tmp_path, "--seeds", "2", "--by", "site", "--tensorboard")
    words = [word for word in words if word != "--set=tracking.tensorboard=False"]
    assert call([*words, "--folds", "0-1"]) == 0
    out = capsys.readouterr().out
    assert "fold 1 of seed 2: 4 epochs, best" in out
    assert "warning" not in out
    run = tmp_path / "own_s1"
    names = {path.name for path in run.iterdir()}
    assert names >= {
        "config.yaml", "manifest.json", "predictions.parquet", "metrics.csv", "metrics.json",
        "experiment_own.txt", "summary_partial_0_2.csv", "splits_0.csv", "split_1_results.pkl",
        "s_0_checkpoint.pt", "s_0_checkpoint.safetensors", "s_0_checkpoint.json", "report.html",
    }  # fmt: skip
    assert f"report: {run}/report.html" in out.replace("\n", "")
    page = (run / "report.html").read_text()
    assert "site=north" in page and "epoch 4 kept" in page
    assert (run / "splits_1.csv").read_bytes() == (study.splits / "splits_1.csv").read_bytes()
    assert [step for step, _ in events(run / "1")["train/loss"]] == [0, 1, 2, 3]
    assert manifest(run).outcome == "done"
    assert load_checkpoint(str(run / "s_1_checkpoint.pt")).dim == DIM
    assert '"site=north"' in (run / "metrics.json").read_text()
    assert call([*words, "--folds", "0-1"]) == 2
    before = {fold: tree_digest(run / "folds" / str(fold)) for fold in (0, 1)}
    capsys.readouterr()
    assert call([*words, "--resume"]) == 0
    out = capsys.readouterr().out
    assert "training: 2 folds" in out  # the third of each seed
    assert {fold: tree_digest(run / "folds" / str(fold)) for fold in (0, 1)} == before
    assert (run / "summary.csv").exists()
    assert Predictions.from_parquet(str(run / "predictions.parquet")).folds() == [0, 1, 2]
    assert call([*words, "--folds", "2", "--resume"]) == 0  # folds of other jobs stay
    assert "all folds were trained before" in capsys.readouterr().out
    assert Predictions.from_parquet(str(run / "predictions.parquet")).folds() == [0, 1, 2]
    assert call([*words, "--resume", "--set=training.optim.lr=0.5"]) == 2
    assert "another training.optim.lr (0.01, now 0.5)" in capsys.readouterr().out


def test_what_fails_is_told_recorded_and_costs_nothing_else(
    local_ray: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(tmp_path / "study")
    study.put_features("S5", np.full((3, DIM), np.nan, dtype=np.float32))
    study.put_features("S3", np.full((3, DIM), 3e38, dtype=np.float32))
    rest = [slide_id for slide_id in study.slide_ids if slide_id not in {"S2", "S3", "S6"}]
    study.put_split(0, train=[*rest[:8], "S3"], val=rest[8:], test=["S6"])
    study.put_split(1, train=rest[:8], val=rest[8:], test=[])
    study.put_split(2, train=[], val=rest[8:], test=["S6"])
    assert call(study.words(tmp_path)) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "left out S5: 3 of its 3 patches have features that are no finite numbers" in out
    assert "failed fold 0: the loss is" in out
    assert "at bag S3; lower --lr" in out
    assert "failed fold 2: its training part has no bag" in out
    assert "error: 2 parts without a slide to use: fold 1 test, fold 2 train" in out
    run = tmp_path / "own_s1"
    assert load_checkpoint(str(run / "s_1_checkpoint.safetensors"))
    found = manifest(run)
    assert found.outcome == "failures"
    assert [slide.slide_id for slide in found.left_out] == ["S5"]
    assert (found.counts["folds"], found.counts["failed_folds"]) == (3, 2)
    assert "empty_parts" in {finding["kind"] for finding in found.facts["findings"]}
    page = (run / "report.html").read_text()
    assert "at bag S3; lower --lr" in page and "features that are no finite numbers" in page
    assert call(study.words(tmp_path, "--resume")) == 1  # tried again, and told again
    out = capsys.readouterr().out
    assert "training: 2 folds" in out
    assert "left out S5" in out


def test_more_workers_than_there_is_room_for_are_refused(
    local_ray: None, study: SmallStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(study.words(tmp_path, "--workers", "3")) == 2
    assert "no room for 3 workers of 1 CPU (nodes" in capsys.readouterr().out
    assert call(study.words(tmp_path, "--gpus-per-fold", "1", "--exp-code", "gpu")) == 2
    assert "no room for 1 worker of 1 CPU and 1 GPU" in capsys.readouterr().out


@pytest.mark.chaos
def test_a_killed_worker_costs_time_alone(
    local_ray: None, study: SmallStudy, tmp_path: Path
) -> None:
    settings = {
        "folds": "0",
        "training__epochs": MANY_EPOCHS,
        "training__stopping__enabled": False,
        "model__dropout": 0.25,
        "checkpoint_every_s": 0.0,
        "workers__cpus": 1,
    }
    undisturbed = run_training(study.job(tmp_path / "undisturbed", **settings))
    watching = Watching(harm=lambda: kill_one("ray::fold_task"), after=1)
    summary = run_training(study.job(tmp_path / "killed", **settings), watching)
    assert watching.after == -1
    assert watching.epochs.count(0) == 1  # it went on, and did not begin anew
    assert set(watching.epochs) == set(range(MANY_EPOCHS))
    assert summary.outcomes[0].fingerprint == undisturbed.outcomes[0].fingerprint
    for name in ("s_0_checkpoint.safetensors", "predictions.parquet"):
        one, two = (Path(it.folders[0], name).read_bytes() for it in (undisturbed, summary))
        assert one == two


@LONG
@pytest.mark.chaos
def test_two_workers_of_which_one_is_killed_train_what_one_worker_trains(
    local_ray: None, study: SmallStudy, tmp_path: Path
) -> None:
    settings = {
        "folds": "0",
        "training__bags_per_step": 4,
        "training__epochs": MANY_EPOCHS,
        "training__optim__name": "sgd",
        "training__stopping__enabled": False,
        "checkpoint_every_s": 0.0,
        "workers__cpus": 1,
    }
    alone = run_training(study.job(tmp_path / "alone", **settings))
    watching = Watching(harm=lambda: kill_one("ray::RayTrainWorker"), after=1)
    job = study.job(tmp_path / "two", workers__count=2, **settings)
    summary = run_training(job, watching)
    assert watching.after == -1
    assert not summary.failures
    assert watching.epochs.count(0) == 1
    one, two = (weights(Path(it.folders[0])) for it in (alone, summary))
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, atol=1e-5)
    assert not (Path(summary.folders[0]) / "folds" / "0" / "ray_train").exists()


@pytest.mark.chaos
def test_an_interrupted_command_goes_on_where_it_was(
    local_ray: None, study: SmallStudy, tmp_path: Path
) -> None:
    words = study.words(tmp_path, "--set=checkpoint_every_s=0", "--set=workers.cpus=1")
    process = command(*words, "--cpus", "1", "--set=training.epochs=30")
    run = tmp_path / "own_s1"
    first = run / "folds" / "0" / "outcome.json"
    wait_for(lambda: first.exists() or process.poll() is not None, "the first fold")
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status == 130, output
    assert "the same command with --resume goes on" in output
    assert manifest(run).outcome == "stopped"
    written = first.stat().st_mtime_ns
    assert call([*words, "--set=training.epochs=30", "--resume"]) == 0
    assert first.stat().st_mtime_ns == written
    assert manifest(run).outcome == "done"
    assert manifest(run).counts["folds"] == 3


def test_a_job_that_is_stopped_leaves_nobody_training(
    local_ray: None, study: SmallStudy, tmp_path: Path
) -> None:
    """In a notebook, whose Ray goes on."""

    def stop() -> None:
        raise KeyboardInterrupt

    job = study.job(tmp_path, training__epochs=10000, training__stopping__enabled=False)
    with pytest.raises(KeyboardInterrupt):
        run_training(job, Watching(harm=stop, after=1))
    assert manifest(tmp_path / "own_s1").outcome == "stopped"
    doing = [what for _, what in processes_below(os.getpid())]
    assert doing  # Ray is there
    assert not [what for what in doing if what.startswith("ray::fold_task")]
