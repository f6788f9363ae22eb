"""Nodes, workers and drivers of trainings and searches fail on three nodes; results never differ.

The networks wait in mid-run (`crane_test_plugins.paced_network`) until the harm is done.
"""

import json
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crane_ray.mil.checkpoints import load_checkpoint
from tests.ray.clusters import Nodes, is_alive, three_nodes
from tests.ray.helpers import LONG, command, finish, wait_for
from tests.unit.runtime.small_study import DIM, SmallStudy, make_study

pytestmark = [pytest.mark.ray, pytest.mark.chaos]

EPOCHS, STEPS = 8, 2
"""Of a fold, and of its epoch; a training part has eight bags."""
HALT = 7
"""Steps: in the middle of an epoch, after three that are whole."""
RECIPE = (
    "--set=model.name=crane_test_plugins.paced_network",
    "--set=training.optim.name=sgd",
    "--set=training.bags_per_step=4",
    f"--set=training.epochs={EPOCHS}",
    "--set=workers.cpus=1",
    "--set=checkpoint_every_s=0",
    "--no-early-stopping",
)
FILES = [*(f"s_{fold}_checkpoint.safetensors" for fold in range(3)), "predictions.parquet"]
DROPOUTS = (0.0, 0.1, 0.2)


@dataclass
class Ground:
    """A cluster and a study, and the commands that are run on them."""

    nodes: Nodes
    study: SmallStudy
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def start(self, results: Path, *words: str, verb: str = "train") -> "subprocess.Popen[str]":
        fixed = [*RECIPE, "--address", self.nodes.cluster.address]
        process = command(*self.study.words(results, *fixed, *words, verb=verb))
        self.started.append(process)
        return process

    def search(self, results: Path, *words: str) -> "subprocess.Popen[str]":
        return self.start(results, "--metric", "loss", *words, verb="tune")

    def halted(self, process: "subprocess.Popen[str]", count: int) -> list[int]:
        """The workers that wait, once there are so many."""

        def there() -> list[int]:
            return [int(pid) for pid in self.nodes.noted("halted")]

        wait_for(
            lambda: len(there()) >= count or process.poll() is not None, f"{count} to wait", 240
        )
        assert process.poll() is None, finish(process)[1]
        return there()

    def new_workers(self, first: list[int]) -> set[int]:
        """All but the first ones, who may take a step before they are replaced."""
        return {int(pid) for pid in self.nodes.noted("steps")} - set(first)

    def lose_a_node_of(self, workers: list[int]) -> int:
        """Kills the node of one of the workers, which is returned."""
        lost = next(worker for worker in workers if self.nodes.may_be_lost(worker))
        self.nodes.kill_node_of(lost)
        return lost


@pytest.fixture(scope="module")
def cluster(isolated_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with three_nodes(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SmallStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def ground(cluster: Nodes, study: SmallStudy) -> Iterator[Ground]:
    """The cluster is whole and without faults, and again without commands at the end."""
    cluster.order()
    cluster.complete()
    ground = Ground(cluster, study)
    yield ground
    for process in ground.started:
        if process.poll() is None:  # of a test that failed
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def undisturbed(
    cluster: Nodes, study: SmallStudy, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run of a training that nothing disturbed."""
    results = tmp_path_factory.mktemp("undisturbed")
    cluster.order()
    status, output = finish(Ground(cluster, study).start(results))
    assert status == 0, output
    assert len(cluster.noted("steps")) == 3 * EPOCHS * STEPS
    return results / "own_s1"


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Words for a search of three trials."""
    path = tmp_path_factory.mktemp("space") / "space.yaml"
    path.write_text(f"model.dropout: {{choice: {list(DROPOUTS)}}}\n")
    return ("--space", str(path), "--searcher", "grid")


@pytest.fixture(scope="module")
def expected(
    cluster: Nodes,
    study: SmallStudy,
    space: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[float, Any]:
    """The histories of the trials of a search that nothing disturbed, by dropout."""
    results = tmp_path_factory.mktemp("expected")
    cluster.order()
    status, output = finish(Ground(cluster, study).search(results, *space))
    assert status == 0, output
    return histories(results)


def files(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in FILES}


def outcome(folder: Path) -> str:
    found: str = json.loads((folder / "manifest.json").read_text())["outcome"]
    return found


def trials(results: Path) -> dict[str, dict[str, Any]]:
    """What is recorded of each trial, by its file's name."""
    folder = results / "own_search" / "trials"
    return {path.name: json.loads(path.read_text()) for path in folder.glob("*.json")}


def histories(results: Path) -> dict[float, Any]:
    found = trials(results).values()
    assert [trial["status"] for trial in found] == ["done"] * len(found)
    board = pd.read_csv(results / "own_search" / "leaderboard.csv")
    assert len(board) == len(found)
    return {trial["params"]["model.dropout"]: trial["history"] for trial in found}


def weights(run: Path) -> dict[str, Any]:
    network = load_checkpoint(str(run / "s_0_checkpoint.safetensors")).network
    return {name: values.numpy() for name, values in network.state_dict().items()}


def assert_close(run: Path, undisturbed: Path) -> None:
    found = weights(run)
    for name, values in weights(undisturbed).items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def wait_until_gone(workers: list[int]) -> None:
    wait_for(lambda: not any(map(is_alive, workers)), "the workers to be gone")


def test_a_node_that_dies_costs_a_training_time_alone(
    ground: Ground, undisturbed: Path, tmp_path: Path
) -> None:
    """Its fold goes on elsewhere, from its last epoch; no node takes its place."""
    ground.nodes.order(halt=str(HALT))
    process = ground.start(tmp_path)
    ground.lose_a_node_of(ground.halted(process, 3))
    ground.nodes.order()
    status, output = finish(process)
    assert status == 0, output
    assert "Traceback" not in output
    assert len(ground.nodes.cluster.list_all_nodes()) == 2
    repeated = HALT % STEPS
    assert len(ground.nodes.noted("steps")) == 3 * (EPOCHS * STEPS - HALT) + repeated
    assert files(tmp_path / "own_s1") == files(undisturbed)


def test_a_training_whose_driver_is_killed_or_terminated_goes_on(
    ground: Ground, undisturbed: Path, tmp_path: Path
) -> None:
    """At once and on the same cluster; the first one's workers do not train beside the others."""
    ground.nodes.order(halt=str(HALT))
    process = ground.start(tmp_path)
    orphans = ground.halted(process, 3)
    process.kill()
    finish(process)
    ground.nodes.order(halt=str(HALT))
    process = ground.start(tmp_path, "--resume")
    workers = ground.halted(process, 3)
    assert not any(map(is_alive, orphans))
    process.send_signal(signal.SIGTERM)
    status, output = finish(process)
    assert status == 143, output
    assert "the same command with --resume goes on" in output
    assert outcome(tmp_path / "own_s1") == "stopped"
    wait_until_gone(workers)
    ground.nodes.order()
    status, output = finish(ground.start(tmp_path, "--resume"))
    assert status == 0, output
    # The second command came from epoch 3 to epoch 6; so two are left.
    assert len(ground.nodes.noted("steps")) == 3 * 2 * STEPS
    assert outcome(tmp_path / "own_s1") == "done"
    assert files(tmp_path / "own_s1") == files(undisturbed)


def test_an_elastic_training_goes_on_with_the_workers_that_are_left(
    ground: Ground, undisturbed: Path, tmp_path: Path
) -> None:
    """It begins with two of three workers, since there is room for no more, and ends with one."""
    ground.nodes.kill_node(next(iter(ground.nodes.cluster.worker_nodes)))
    ground.nodes.order(halt=str(HALT))
    words = ["--folds", "0", "--workers", "3", "--set=workers.min_count=1"]
    process = ground.start(tmp_path, *words)
    first = ground.halted(process, 2)
    ground.lose_a_node_of(first)
    ground.nodes.order()
    status, output = finish(process)
    assert status == 0, output
    assert len(ground.new_workers(first)) == 1
    assert_close(tmp_path / "own_s1", undisturbed)


def test_a_training_of_several_workers_waits_for_a_node_in_place_of_the_lost_one(
    ground: Ground, undisturbed: Path, tmp_path: Path
) -> None:
    ground.nodes.order(halt=str(HALT))
    process = ground.start(tmp_path, "--folds", "0", "--workers", "3")
    first = ground.halted(process, 3)
    ground.lose_a_node_of(first)
    ground.nodes.order()
    ground.nodes.complete()
    status, output = finish(process)
    assert status == 0, output
    assert len(ground.new_workers(first)) == 3
    assert_close(tmp_path / "own_s1", undisturbed)


def test_a_fold_whose_worker_dies_too_often_fails_alone(ground: Ground, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", num_folds=2)
    study.put_features("S0", np.full((3, DIM), 9, dtype=np.float32))
    rest = list(study.slide_ids[1:])
    study.put_split(0, train=rest[:8], val=rest[8:12], test=rest[12:])
    ground.nodes.order(deadly_value="8")
    ground.study = study
    status, output = finish(ground.start(tmp_path, "--set=workers.max_failures=1"))
    assert status == 1, output
    assert "failed fold 1: its worker was lost each time that it was tried" in _plain(output)
    assert "Traceback" not in output
    assert len(set(ground.nodes.noted("deaths"))) == 2
    run = tmp_path / "own_s1"
    assert outcome(run) == "failures"
    assert load_checkpoint(str(run / "s_0_checkpoint.safetensors"))
    assert not (run / "s_1_checkpoint.safetensors").exists()
    ground.nodes.order()
    status, output = finish(ground.start(tmp_path, "--resume"))
    assert status == 0, output
    assert len(ground.nodes.noted("steps")) == EPOCHS * STEPS
    assert load_checkpoint(str(run / "s_1_checkpoint.safetensors"))


def test_a_node_that_dies_costs_a_search_time_alone(
    ground: Ground, space: tuple[str, ...], expected: dict[float, Any], tmp_path: Path
) -> None:
    process, ended, workers = begin_search(ground, space, tmp_path)
    ground.lose_a_node_of(workers)
    ground.nodes.order()
    status, output = finish(process)
    assert status == 0, output
    assert "Traceback" not in output
    assert histories(tmp_path) == expected
    assert trials(tmp_path).items() >= ended.items()
    # Two trials that waited, of which one repeats the epoch that it was in.
    assert len(ground.nodes.noted("steps")) == 2 * (EPOCHS * STEPS - HALT) + HALT % STEPS


def begin_search(
    ground: Ground, space: tuple[str, ...], results: Path, *words: str
) -> tuple["subprocess.Popen[str]", dict[str, Any], list[int]]:
    """A search of which one trial is done, and two wait; the first one's record, their workers."""
    ground.nodes.order(halt=f"{HALT} 0.1 0.2")
    process = ground.search(results, *space, *words)
    workers = ground.halted(process, 2)

    def ended() -> dict[str, Any]:
        return {name: it for name, it in trials(results).items() if it["status"] == "done"}

    wait_for(lambda: bool(ended()), "a trial to end")
    return process, ended(), workers


def test_a_search_that_is_interrupted_or_terminated_goes_on(
    ground: Ground, space: tuple[str, ...], expected: dict[float, Any], tmp_path: Path
) -> None:
    process, ended, workers = begin_search(ground, space, tmp_path)
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process.send_signal(number)
        status, output = finish(process)
        assert status == code, output
        assert "the same command with --resume goes on" in output
        assert "Traceback" not in output
        assert outcome(tmp_path / "own_search") == "stopped"
        wait_until_gone(workers)
        if number == signal.SIGINT:
            process, again, workers = begin_search(ground, space, tmp_path, "--resume")
            assert again == ended
    ground.nodes.order()
    status, output = finish(ground.search(tmp_path, *space, "--resume"))
    assert status == 0, output
    assert histories(tmp_path) == expected
    assert trials(tmp_path).items() >= ended.items()


@LONG
def test_a_trial_of_several_workers_goes_on_without_the_lost_node(
    ground: Ground, expected: dict[float, Any], tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("model.dropout: {choice: [0.0]}\n")
    ground.nodes.order(halt=str(HALT))
    words = ["--space", str(path), "--searcher", "grid", "--workers", "2"]
    process = ground.search(tmp_path, *words)
    ground.lose_a_node_of(ground.halted(process, 2))
    ground.nodes.order()
    status, output = finish(process)
    assert status == 0, output
    found = histories(tmp_path)[0.0]
    assert [epoch for epoch, _ in found] == list(range(EPOCHS))
    np.testing.assert_allclose(np.array(found), np.array(expected[0.0]), atol=1e-5)
    assert len(ground.nodes.noted("steps")) < 2 * EPOCHS * STEPS  # it did not begin anew


@LONG
def test_trials_that_take_over_weights_go_on_without_the_lost_node(
    ground: Ground, tmp_path: Path
) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("optim.lr: {loguniform: [1e-9, 0.02]}\n")
    ground.nodes.order(halt=str(HALT))
    words = ["--space", str(path), "--scheduler", "pbt", "--trials", "3"]
    process = ground.search(tmp_path, *words, "--set=scheduler.interval_epochs=2")
    ground.lose_a_node_of(ground.halted(process, 2))
    ground.nodes.order()
    status, output = finish(process)
    assert status == 0, output
    assert "Traceback" not in output
    found = trials(tmp_path).values()
    assert [(trial["status"], trial["epochs"]) for trial in found] == [("done", EPOCHS)] * 3


def test_a_trial_whose_worker_dies_too_often_fails_alone(
    ground: Ground, space: tuple[str, ...], expected: dict[float, Any], tmp_path: Path
) -> None:
    ground.nodes.order(deadly_dropout="0.1")
    status, output = finish(ground.search(tmp_path, *space, "--set=workers.max_failures=1"))
    assert status == 0, output
    assert "Traceback" not in output
    assert len(set(ground.nodes.noted("deaths"))) == 2
    found = {trial["params"]["model.dropout"]: trial for trial in trials(tmp_path).values()}
    assert found[0.1]["status"] == "failed"
    assert found[0.1]["error"]
    for dropout in (0.0, 0.2):
        assert found[dropout]["status"] == "done"
        assert found[dropout]["history"] == expected[dropout]
    assert outcome(tmp_path / "own_search") == "failures"


def _plain(output: str) -> str:
    return " ".join(output.split())
