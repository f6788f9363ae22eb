"""What reporters tell the metrics, and that nothing is lost on the way to those who show it."""

from typing import Any

import pytest

from crane_ray.runtime import metrics
from crane_ray.runtime.folds import FoldKey, FoldOutcome
from crane_ray.runtime.measured import measured
from crane_ray.runtime.measured_studies import measured_search, measured_training
from crane_ray.runtime.reporting import Silent
from crane_ray.runtime.search_course import SilentSearch
from crane_ray.runtime.training_course import SilentTraining
from crane_ray.search.leaderboard import Trial
from tests.unit.runtime.recorded_metrics import Recorded

EPOCH = {"seed": 1, "fold": 2, "epoch": 0, "train_loss": 0.5, "val_loss": None, "seconds": 3.0}


class Remembering:
    """Remembers every call, whatever its name."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    found = Recorded()
    for name in ("count", "expect", "show", "hide"):
        monkeypatch.setattr(metrics, name, getattr(found, name))
    return found


def test_slides_count_as_done_or_failed_and_as_left(recorded: Recorded) -> None:
    reporter = measured("extract", None)
    reporter.begin("extracting", slides=5, patches=100)
    assert recorded.now(metrics.SLIDES_LEFT, "extract") == 5
    reporter.advance(patches=30)
    reporter.advance(slides=1)
    reporter.advance(slides=1, failures=1)
    assert recorded.sum(metrics.SLIDES, "done", "extract") == 1
    assert recorded.sum(metrics.SLIDES, "failed", "extract") == 1
    assert recorded.sum(metrics.PATCHES_DONE, "extract") == 30
    assert recorded.now(metrics.SLIDES_LEFT, "extract") == 3
    assert recorded.now(metrics.PATCHES_LEFT, "extract") == 70
    reporter.advance(patches=200)  # a shard that was tried again counts twice
    assert recorded.now(metrics.PATCHES_LEFT, "extract") == 0
    reporter.end()
    assert not recorded.gauges, "nothing looks like work once it is over"


def test_a_stage_of_unknown_size_shows_no_patches_left(recorded: Recorded) -> None:
    reporter = measured("patch", None)
    reporter.begin("patching", slides=2)
    assert recorded.now(metrics.SLIDES_LEFT, "patch") == 2
    assert recorded.now(metrics.PATCHES_LEFT, "patch") is None


def test_how_long_nothing_has_happened(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("crane_ray.runtime.measured.time.monotonic", lambda: now[0])
    reporter = measured("patch", None)
    reporter.begin("patching", slides=2, patches=4)
    now[0] = 130.0
    assert recorded.now(metrics.QUIET_SECONDS, "patch") == 30
    reporter.advance(patches=1)
    now[0] = 131.0
    assert recorded.now(metrics.QUIET_SECONDS, "patch") == 1


@pytest.mark.parametrize(
    ("make", "silent"),
    [
        (lambda inner: measured("patch", inner), Silent),
        (lambda inner: measured_training("run", inner), SilentTraining),
        (measured_search, SilentSearch),
    ],
)
def test_all_that_is_told_is_passed_on(make: Any, silent: type[object], recorded: Recorded) -> None:
    """Each method of the protocol, so that none that is added is forgotten here."""
    trial = Trial("a", 0, {}, "done", 0.5, {}, epochs=1, seconds=1.0)
    arguments: dict[str, tuple[Any, Any]] = {
        "begin": {
            Silent: (("title",), {"slides": 2, "patches": 3}),
            SilentTraining: (([FoldKey(1, 0)], 5), {}),
            SilentSearch: (("title", 3, "loss"), {}),
        }[silent],
        "advance": ((), {"slides": 1, "patches": 2, "failures": 0}),
        "note": (("text",), {}),
        "failure": (("slide", "reason"), {}),
        "limit": (("words",), {}),
        "packing": ((1, 2), {}),
        "epoch": ((EPOCH,), {}),
        "finished": ((FoldOutcome(1, 0, ""),), {}),
        "trial": ((trial,), {}),
        "training": ((), {}),
        "end": ((), {}),
    }
    inner = Remembering()
    reporter = make(inner)
    methods = [name for name in vars(silent) if not name.startswith("_")]
    for name in sorted(methods, key=lambda name: (name != "begin", name == "end")):
        args, kwargs = arguments[name]
        getattr(reporter, name)(*args, **kwargs)
        assert inner.calls.pop() == (name, args, kwargs)
        assert not inner.calls


def test_a_run_inside_another_counts_its_slides_once(recorded: Recorded) -> None:
    outer = measured("assess", None)
    inner = measured("patch", outer)
    inner.begin("patching", slides=1, patches=1)
    inner.advance(slides=1)
    assert recorded.sum(metrics.SLIDES, "done", "patch") == 1
    assert recorded.sum(metrics.SLIDES, "done", "assess") == 0


def test_folds_epochs_and_losses(recorded: Recorded) -> None:
    training = measured_training("own_s1", None)
    training.begin([FoldKey(1, 2), FoldKey(1, 3)], 10)
    training.epoch(EPOCH)
    training.epoch({**EPOCH, "epoch": 1, "train_loss": 0.25, "val_loss": 0.75})
    tags = ("2", "train", "own_s1", "1")
    assert recorded.now(metrics.LOSS, *tags) == 0.25
    assert recorded.now(metrics.LOSS, "2", "val", "own_s1", "1") == 0.75
    assert recorded.sum(metrics.EPOCHS, "own_s1") == 2
    assert recorded.sum(metrics.EPOCH_SECONDS, "own_s1") == 6
    training.finished(FoldOutcome(1, 2, ""))
    training.finished(FoldOutcome(1, 3, "", failure="lost"))
    assert recorded.sum(metrics.FOLDS, "done") == recorded.sum(metrics.FOLDS, "failed") == 1
    assert recorded.now(metrics.FOLDS_LEFT, "own_s1") == 0
    training.end()
    assert not recorded.gauges


def test_a_trial_counts_once_when_it_ends(recorded: Recorded) -> None:
    search = measured_search(None)
    search.begin("search", 3, "loss")
    running = Trial("a", 0, {}, "unfinished", None, {}, epochs=1, seconds=1.0)
    over = Trial("a", 0, {}, "stopped", 0.5, {}, epochs=2, seconds=2.0)
    for trial in (running, over, over):
        search.trial(trial)
    assert recorded.sum(metrics.TRIALS, "stopped") == 1
    assert recorded.now(metrics.TRIALS_LEFT) == 2
    search.end()
    assert not recorded.gauges
