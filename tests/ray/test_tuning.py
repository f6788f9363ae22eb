"""Searches on a cluster: trials that fail, several workers, weights that move, drivers killed."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from crane_ray.manifest import RunManifest
from crane_ray.runtime.search_course import SilentSearch
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.runtime.training import run_training
from crane_ray.runtime.tuning import run_search
from crane_ray.search.leaderboard import Trial
from tests.ray.helpers import command, finish, kill_one, wait_for
from tests.unit.runtime.small_study import SmallStudy, make_study

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SmallStudy:
    return make_study(tmp_path_factory.mktemp("study"))


class Watching(SilentSearch):
    """Notes how trials change."""

    def __init__(self, harm: Callable[[], None] | None = None, after: int = 3) -> None:
        self.trials: list[Trial] = []
        self._harm, self._after = harm, after

    def trial(self, trial: Trial) -> None:
        self.trials.append(trial)
        if self._harm is not None and trial.epochs >= self._after:
            harm, self._harm = self._harm, None
            harm()


def val_auc(folder: str) -> float:
    table = pd.read_csv(Path(folder) / "metrics.csv")
    chosen = (table["split"] == "val") & (table["metric"] == "auc") & table["group"].isna()
    return float(table.loc[chosen & ~table["fold"].isin(["sd"]), "value"].iloc[-1])


def test_a_nested_search_its_results_and_its_best_config(
    local_ray: None, study: SmallStudy, tmp_path: Path
) -> None:
    space = {"optim.lr": {"choice": [0.01, 1e30]}}
    settings: dict[str, Any] = {
        "folds": "0",
        "nested": True,
        "objective__inner_folds": 2,
        "search__searcher": "grid",
    }
    job = study.search(tmp_path, space, **settings)
    watching = Watching()
    summary = run_search(job, watching)
    whole = tmp_path / "own_search"
    folder = whole / "fold_0"
    (board,) = summary.leaderboards.values()
    best = board.best
    assert best is not None
    assert best.params == {"training.optim.lr": 0.01}
    assert best is board.baseline_trial
    assert sorted(trial.status for trial in board.trials) == ["done", "failed"]
    (failed,) = (trial for trial in board.trials if trial.status == "failed")
    assert "lower --lr" in failed.error
    assert {trial.status for trial in watching.trials} == {"unfinished", "done", "failed"}

    table = pd.read_parquet(folder / "leaderboard.parquet")
    assert list(table["trial_id"]) == [trial.trial_id for trial in board.ranked()]
    assert "<svg" in (folder / "search.html").read_text()
    manifest = RunManifest.model_validate_json((whole / "manifest.json").read_bytes())
    assert manifest.outcome == "failures"
    assert manifest.counts == {"trials": 2, "failed": 1}
    assert (whole / "outer_0_s1" / "s_0_checkpoint.safetensors").exists()
    assert {"test", "val"} <= set(pd.read_csv(whole / "metrics.csv")["split"])
    assert summary.rows[0]["AUC"]

    repeated = run_training(TrainJob.load(folder / "best.yaml"))
    assert not repeated.failures
    assert val_auc(repeated.folders[0]) == pytest.approx(best.value, abs=1e-9)

    before = {path.name: path.read_bytes() for path in (folder / "trials").iterdir()}
    again = Watching()
    run_search(study.search(tmp_path, space, resume=True, **settings), again)
    assert not again.trials, "finished trials are not repeated"
    assert {path.name: path.read_bytes() for path in (folder / "trials").iterdir()} == before


def test_trials_of_several_workers(local_ray: None, study: SmallStudy, tmp_path: Path) -> None:
    job = study.search(
        tmp_path,
        {"model.dropout": {"choice": [0.0]}},
        search__searcher="grid",
        workers__count=2,
        training__epochs=2,
    )
    (board,) = run_search(job).leaderboards.values()
    (trial,) = board.trials
    assert trial.status == "done"
    assert [epoch for epoch, _ in trial.history] == [0, 1]
    assert not (tmp_path / "own_search" / "workers" / trial.trial_id).exists()


@pytest.mark.chaos
def test_a_trial_whose_worker_is_killed_goes_on(
    local_ray: None, study: SmallStudy, tmp_path: Path
) -> None:
    space = {"model.dropout": {"choice": [0.0]}}
    recipe: dict[str, Any] = {
        "search__searcher": "grid",
        "training__epochs": 60,
        "training__stopping__enabled": False,
        "checkpoint_every_s": 0,
    }
    job = study.search(tmp_path, space, **recipe)
    undisturbed = study.search(tmp_path, space, exp_code="undisturbed", **recipe)
    watching = Watching(lambda: kill_one("ray::ImplicitFunc"))
    found = run_search(job, watching).leaderboards.values()
    expected = run_search(undisturbed).leaderboards.values()
    assert [trial.history for board in found for trial in board.trials] == [
        trial.history for board in expected for trial in board.trials
    ]


def test_networks_that_are_behind_go_on_with_the_weights_of_others(
    local_ray: None, study: SmallStudy, tmp_path: Path
) -> None:
    space = {"optim.lr": {"loguniform": [1e-9, 0.02]}, "model.dropout": {"uniform": [0, 0.1]}}
    job = study.search(
        tmp_path,
        space,
        scheduler__name="pbt",
        scheduler__interval_epochs=2,
        search__trials=4,
        training__epochs=6,
        objective__metric="loss",
    )
    (board,) = run_search(job).leaderboards.values()
    assert len(board.trials) == 4
    assert board.best is not None
    assert list((tmp_path / "own_search" / "tune").glob("pbt_policy_*.txt")), "nobody was behind"
    for trial in board.trials:
        assert 0 <= trial.params["model.dropout"] <= 0.1
        assert 1e-9 <= trial.params["training.optim.lr"] <= 0.02


@pytest.mark.chaos
def test_a_search_whose_driver_is_killed_goes_on(study: SmallStudy, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("optim.lr: {choice: [0.01, 0.02, 0.005]}\n")
    words = study.words(
        tmp_path, "--space", str(space), "--searcher", "grid", "--cpus", "1", "--max-epochs", "40",
        "--no-early-stopping", verb="tune",
    )  # fmt: skip
    trials = tmp_path / "own_search" / "trials"

    def statuses() -> dict[str, str]:
        return {path.name: json.loads(path.read_text())["status"] for path in trials.glob("*.json")}

    process = command(*words)
    try:
        wait_for(
            lambda: "done" in statuses().values() or process.poll() is not None, "a trial to end"
        )
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    ended = [name for name, status in statuses().items() if status == "done"]
    before = {name: (trials / name).read_bytes() for name in ended}
    code, output = finish(command(*words, "--resume"))
    assert code == 0, output
    assert list(statuses().values()) == ["done"] * 3
    for name, content in before.items():
        assert (trials / name).read_bytes() == content
    assert "next: crane-ray train --config" in output
