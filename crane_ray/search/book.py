"""The record of a search's trials while they go: one small file a trial, so that none is lost.

::

    SEARCH/trials/{trial_id}.json
"""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from crane_ray import storage
from crane_ray.search.leaderboard import Status, Trial

WRITE_EVERY_S = 5.0
"""Between writes of a trial that goes on, beside those at each of its checkpoints."""
FILE = re.compile(r"([\w.-]+)\.json")
NOT_METRICS = {"objective", "epochs", "over", "failure", "saved"}


class TrialBook:
    """All trials of a search, those of interrupted runs too."""

    def __init__(self, folder: str, watch: Callable[[Trial], None] = lambda trial: None) -> None:
        """``watch`` is told of each change of a trial."""
        self._folder, self._watch = storage.join(folder, "trials"), watch
        self._trials: dict[str, Trial] = {}
        self._begun: dict[str, float] = {}
        self._written: dict[str, float] = {}
        for path in storage.list_files(self._folder, ".json"):
            trial = _read(path)
            self._trials[trial.trial_id] = trial

    def trials(self) -> tuple[Trial, ...]:
        """In the order in which they were started."""
        return tuple(sorted(self._trials.values(), key=lambda trial: trial.number))

    def started(self, trial_id: str, params: Mapping[str, Any]) -> None:
        """A trial begins, or goes on after an interruption."""
        number = max((trial.number for trial in self._trials.values()), default=-1) + 1
        fresh = Trial(trial_id, number, dict(params), "unfinished", None, {}, 0, 0.0)
        known = self._trials.get(trial_id, fresh)
        self._begun[trial_id] = time.monotonic() - known.seconds
        if known.status == "unfinished":
            self._put(replace(known, params=dict(params)), write=True)

    def told(self, trial_id: str, numbers: Mapping[str, Any]) -> None:
        """A trial is through an epoch; see `runtime.trials.run_trial` for the numbers."""
        trial = self._trials[trial_id]
        if trial.status != "unfinished":  # ended before, and says so once more
            return
        failure, epochs = numbers.get("failure", ""), int(numbers["epochs"])
        if not failure:
            history = {**dict(trial.history), epochs - 1: float(numbers["objective"])}
            metrics = {name: numbers[name] for name in numbers if name not in NOT_METRICS}
            trial = replace(
                trial,
                value=float(numbers["objective"]),
                metrics=metrics,
                epochs=epochs,
                history=tuple(sorted(history.items())),
            )
        over = bool(numbers.get("over"))
        status: Status = "failed" if failure else "done" if over else "unfinished"
        trial = replace(
            trial,
            status=status,
            error=failure,
            seconds=round(time.monotonic() - self._begun[trial_id], 1),
        )
        # No trial goes on from an epoch that its file does not have.
        due = time.monotonic() > self._written.get(trial_id, 0.0) + WRITE_EVERY_S
        self._put(trial, write=over or bool(numbers.get("saved")) or due)

    def ended(self, trial_id: str, error: str = "") -> None:
        """A trial is over: by its own word, stopped by the scheduler, or by an error."""
        trial = self._trials[trial_id]
        if trial.status == "unfinished":
            status: Status = "failed" if error else "stopped"
            over = replace(trial, status=status, error=error)
            self._put(over, write=True)

    def _put(self, trial: Trial, *, write: bool) -> None:
        self._trials[trial.trial_id] = trial
        if write:
            path = trial_path(self._folder, trial.trial_id)
            storage.put_bytes(path, json.dumps(asdict(trial), indent=1).encode())
            self._written[trial.trial_id] = time.monotonic()
        self._watch(trial)


def trial_path(folder: str, trial_id: str) -> str:
    """The file of a trial in the book's folder."""
    return storage.join(folder, f"{trial_id}.json")


def finished_trial(folder: str, trial_id: str) -> Trial | None:
    """A trial of a search that ended already, whatever the scheduler remembers of it."""
    path = trial_path(storage.join(folder, "trials"), trial_id)
    if not storage.exists(path):
        return None
    trial = _read(path)
    return None if trial.status == "unfinished" else trial


def _read(path: str) -> Trial:
    facts = json.loads(storage.read_bytes(path))
    history = tuple((int(epoch), float(value)) for epoch, value in facts["history"])
    return Trial(**{**facts, "history": history})
