from pathlib import Path

import pytest

from crane_ray.search import book as module
from crane_ray.search.book import TrialBook, finished_trial
from crane_ray.search.leaderboard import Trial


def numbers(epochs: int, objective: float, **more: object) -> dict[str, object]:
    return {"epochs": epochs, "objective": objective, "val_loss": 0.5, "over": False, **more}


def test_a_trial_from_its_begin_to_its_end(tmp_path: Path) -> None:
    told: list[Trial] = []
    book = TrialBook(str(tmp_path), told.append)
    book.started("x", {"lr": 0.1})
    book.told("x", numbers(1, 0.5))
    book.told("x", numbers(2, 0.6, over=True))
    book.ended("x")
    (trial,) = book.trials()
    assert (trial.status, trial.value, trial.epochs) == ("done", 0.6, 2)
    assert trial.history == ((0, 0.5), (1, 0.6))
    assert trial.metrics == {"val_loss": 0.5}
    assert [one.status for one in told] == ["unfinished", "unfinished", "done"]
    assert TrialBook(str(tmp_path)).trials() == (trial,)
    assert finished_trial(str(tmp_path), "x") == trial


def test_a_trial_that_a_scheduler_stops_and_one_whose_worker_is_lost(tmp_path: Path) -> None:
    book = TrialBook(str(tmp_path))
    for name in ("stopped", "lost", "failed"):
        book.started(name, {"lr": 0.1})
    book.told("stopped", numbers(3, 0.4))
    book.ended("stopped")
    book.ended("lost", "its worker was lost")
    book.told("failed", numbers(0, -1.0, over=True, failure="the loss is nan"))
    book.ended("failed")
    found = {trial.trial_id: trial for trial in TrialBook(str(tmp_path)).trials()}
    assert [trial.number for trial in found.values()] == [0, 1, 2]
    assert (found["stopped"].status, found["stopped"].value) == ("stopped", 0.4)
    assert (found["lost"].status, found["lost"].error) == ("failed", "its worker was lost")
    assert (found["failed"].status, found["failed"].error) == ("failed", "the loss is nan")
    assert found["failed"].value is None, "the worst objective is for searchers alone"


def test_a_trial_goes_on_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WRITE_EVERY_S", 0.0)
    book = TrialBook(str(tmp_path))
    book.started("x", {"lr": 0.1})
    book.told("x", numbers(1, 0.5))
    book.told("x", numbers(2, 0.6))
    again = TrialBook(str(tmp_path))
    assert finished_trial(str(tmp_path), "x") is None
    again.started("y", {"lr": 0.2})
    again.started("x", {"lr": 0.1})
    again.told("x", numbers(2, 0.6))
    again.told("x", numbers(3, 0.7, over=True))
    first, second = again.trials()
    assert (first.trial_id, second.trial_id) == ("x", "y")
    assert [epoch for epoch, _ in first.history] == [0, 1, 2]
    assert first.status == "done"


def test_what_a_trial_goes_on_from_is_in_its_file(tmp_path: Path) -> None:
    """However seldom the file is written else."""
    book = TrialBook(str(tmp_path))
    book.started("x", {"lr": 0.1})
    for epochs in range(1, 4):
        book.told("x", {**numbers(epochs, 0.5), "saved": True})
    (trial,) = TrialBook(str(tmp_path)).trials()
    assert [epoch for epoch, _ in trial.history] == [0, 1, 2]
    assert "saved" not in trial.metrics


def test_a_trial_that_ended_is_not_changed_by_what_comes_late(tmp_path: Path) -> None:
    book = TrialBook(str(tmp_path))
    book.started("x", {"lr": 0.1})
    book.told("x", numbers(1, 0.5, over=True))
    before = book.trials()
    book.started("x", {"lr": 0.1})
    book.told("x", numbers(1, 0.1, over=True))
    book.ended("x", "lost")
    assert book.trials() == before


def test_settings_that_change_while_a_trial_goes_are_its_last(tmp_path: Path) -> None:
    book = TrialBook(str(tmp_path))
    book.started("x", {"lr": 0.1})
    book.told("x", numbers(1, 0.5))
    book.started("x", {"lr": 0.3})
    assert book.trials()[0].params == {"lr": 0.3}
    with pytest.raises(KeyError):
        book.told("y", numbers(1, 0.5))
