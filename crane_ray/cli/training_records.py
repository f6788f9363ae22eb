"""Trainings and searches as records of a log in JSON."""

import logging
from collections.abc import Sequence
from typing import Any

from crane_ray.cohort.findings import counted
from crane_ray.runtime.folds import FoldKey, FoldOutcome
from crane_ray.runtime.training_course import TrainingReporter
from crane_ray.search.leaderboard import Trial

log = logging.getLogger(__name__)


class _Notes:
    """What both reporters share."""

    def note(self, text: str) -> None:
        """See `TrainingReporter`."""
        log.warning(text, extra={"event": "note"})

    def end(self) -> None:
        """See `TrainingReporter`."""
        log.info("over", extra={"event": "stage_end"})


class RecordTraining(_Notes):
    """A record for each epoch of a fold, and for its end."""

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        """See `TrainingReporter`."""
        more = {"event": "begin", "folds": len(keys), "of_epochs": epochs}
        log.info("training: %s", counted(len(keys), "fold"), extra=more)

    def packing(self, done: int, num_slides: int) -> None:
        """See `TrainingReporter`."""
        more = {"event": "packing", "slides": done, "of_slides": num_slides}
        log.info("features packed", extra=more)

    def epoch(self, message: dict[str, Any]) -> None:
        """See `TrainingReporter`."""
        more = {"event": "epoch", **{name: message[name] for name in message if name != "kind"}}
        fold, epoch = message["fold"], message["epoch"] + 1
        log.info("fold %d, epoch %d", fold, epoch, extra=more)

    def finished(self, outcome: FoldOutcome) -> None:
        """See `TrainingReporter`."""
        more = {"event": "fold_end", "seed": outcome.seed, "fold": outcome.fold}
        more |= {"epochs": outcome.epochs, "best_epoch": outcome.best_epoch}
        more |= {"best_loss": outcome.best_loss, "seconds": outcome.seconds}
        more |= {"failure": outcome.failure}
        level = logging.ERROR if outcome.failure else logging.INFO
        log.log(level, "%s", outcome.failure or f"fold {outcome.fold} is trained", extra=more)


class RecordSearch(_Notes):
    """A record when a trial ends."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def begin(self, title: str, num_trials: int, objective: str) -> None:
        """See `SearchReporter`."""
        self._said = set()
        more = {"event": "begin", "trials": num_trials, "objective": objective}
        log.info("%s: %s", title, counted(num_trials, "trial"), extra=more)

    def trial(self, trial: Trial) -> None:
        """See `SearchReporter`."""
        if trial.status == "unfinished" or trial.trial_id in self._said:
            return
        self._said.add(trial.trial_id)
        more = {"event": "trial_end", "trial": trial.number, "status": trial.status}
        more |= {"value": trial.value, "params": dict(trial.params), "epochs": trial.epochs}
        more |= {"seconds": trial.seconds, "error": trial.error}
        level = logging.ERROR if trial.status == "failed" else logging.INFO
        log.log(level, "trial %d: %s", trial.number, trial.status, extra=more)

    def training(self) -> TrainingReporter:
        """See `SearchReporter`."""
        return RecordTraining()
