"""Where the course of a training is written, and what happens where it cannot be."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crane_ray.errors import ConfigError
from crane_ray.runtime import tracking
from crane_ray.runtime.study_jobs import TrackingConfig
from crane_ray.runtime.tracking import open_trackers, require_packages, tracked
from crane_ray.runtime.training_course import Course, SilentTraining, TrainingSummary

FOLDER = "/results/own_s1"


def message(epoch: int, **numbers: Any) -> dict[str, Any]:
    fixed = {"kind": "epoch", "seed": 1, "fold": 0, "train_loss": 0.5, "val_loss": 0.25}
    return {**fixed, "val_auc": {"kind": 0.75}, "epoch": epoch, **numbers}


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars in a folder's TensorBoard events, read without TensorBoard."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, list[tuple[int, float]]] = {}
    for path in folder.glob("events.out.tfevents.*"):
        data, place = path.read_bytes(), 0
        while place < len(data):  # length (8), its check (4), the record, its check (4)
            length = int.from_bytes(data[place : place + 8], "little")
            event = Event()
            event.ParseFromString(data[place + 12 : place + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
            place += 16 + length
    return found


def test_tensorboard_has_each_epoch_of_each_fold_in_its_folder(tmp_path: Path) -> None:
    (tracker,) = open_trackers(TrackingConfig(), "own_s1", {})
    run = str(tmp_path / "own_s1")
    for epoch in range(2):
        tracker.epoch(run, message(epoch))
    tracker.epoch(run, message(0, fold=3, val_loss=None, val_auc={}))
    tracker.close()
    assert events(tmp_path / "own_s1" / "0") == {
        "train/loss": [(0, 0.5), (1, 0.5)],
        "val/loss": [(0, 0.25), (1, 0.25)],
        "val/auc_kind": [(0, 0.75), (1, 0.75)],
    }
    assert events(tmp_path / "own_s1" / "3") == {"train/loss": [(0, 0.5)]}


def test_tensorboard_on_object_storage() -> None:
    pytest.importorskip("tensorboardX")
    from crane_ray import storage

    (tracker,) = open_trackers(TrackingConfig(), "own_s1", {})
    tracker.epoch("memory://tracked/own_s1", message(0))
    tracker.close()
    (path,) = storage.list_files("memory://tracked/own_s1/0")
    assert "tfevents" in path


def test_without_tensorboards_package_there_is_no_tracker_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    assert open_trackers(TrackingConfig(), "own_s1", {}) == []


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_tracker_without_its_package_is_refused(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"pip install {package}"):
        require_packages(TrackingConfig(**{package: "somewhere"}))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was asked of stand-ins for the packages."""
    made: list[tuple[Any, ...]] = []

    def noting(name: str) -> Any:
        return lambda *words, **named: made.append((name, words, named))

    run = SimpleNamespace(log=noting("log"), finish=noting("finish"))
    names = ("set_tracking_uri", "start_run", "log_dict", "log_metrics", "end_run")
    mlflow = SimpleNamespace(**{name: noting(name) for name in names})
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **named: run))
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setattr(tracking, "find_spec", lambda name: object())
    return made


def test_weights_and_biases_and_mlflow_are_told(calls: list[tuple[Any, ...]]) -> None:
    config = TrackingConfig(tensorboard=False, wandb="project", mlflow="http://server")
    trackers = open_trackers(config, "own_s1", {"task": "own"})
    for tracker in trackers:
        tracker.epoch(FOLDER, message(2))
        tracker.close()
    numbers = {
        "seed_1/fold_0/train/loss": 0.5,
        "seed_1/fold_0/val/loss": 0.25,
        "seed_1/fold_0/val/auc_kind": 0.75,
    }
    assert ("log", ({**numbers, "epoch": 2},), {}) in calls
    assert ("log_metrics", (numbers,), {"step": 2}) in calls
    assert [name for name, *_ in calls][-1] == "end_run"
    assert "finish" in [name for name, *_ in calls]


def test_a_tracker_whose_server_is_away_costs_no_training() -> None:
    class Away:
        def epoch(self, folder: str, message: dict[str, Any]) -> None:
            raise ConnectionError("no answer")

        def close(self) -> None:
            pass

    notes: list[str] = []

    class Noting(SilentTraining):
        def note(self, text: str) -> None:
            notes.append(text)

    reporter, trackers = Noting(), [Away()]
    course = Course(TrainingSummary([FOLDER]), reporter, [*trackers], {1: FOLDER})
    course.told([message(0), message(1)])
    assert notes == ["warning: Away is no longer told of epochs: no answer"]


def test_a_tracker_that_cannot_be_closed_costs_no_training_either(
    calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(sys.modules["wandb"].init(), "finish", away)
    notes: list[str] = []
    config = TrackingConfig(tensorboard=False, wandb="project", mlflow="http://server")
    with tracked(config, "own_s1", {}, notes.append) as trackers:
        trackers.clear()  # as the course does with such that do not answer
    assert notes == ["warning: WandB may lack the last epochs: no answer"]
    assert calls[-1][0] == "end_run", "the other is closed"


def test_a_tracker_that_cannot_begin_is_the_user_s_mistake(
    calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(**_: Any) -> None:
        raise PermissionError("no key")

    monkeypatch.setattr(sys.modules["wandb"], "init", begin)
    with pytest.raises(ConfigError, match=r"tracking.wandb project: cannot begin: no key"):
        open_trackers(TrackingConfig(tensorboard=False, wandb="project"), "own_s1", {})
