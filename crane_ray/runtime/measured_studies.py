"""Reporters of trainings and searches that tell Ray's metrics, and pass on what they are told."""

from collections.abc import Sequence
from typing import Any

from crane_ray.runtime import metrics
from crane_ray.runtime.folds import FoldKey, FoldOutcome
from crane_ray.runtime.measured import Quiet
from crane_ray.runtime.search_course import SearchReporter, SilentSearch
from crane_ray.runtime.training_course import SilentTraining, TrainingReporter
from crane_ray.search.leaderboard import Trial


class MeasuredTraining:
    """A reporter that counts a training's epochs and folds for Prometheus."""

    def __init__(self, run: str, reporter: TrainingReporter) -> None:
        self._run, self._inner = run, reporter
        self._quiet = Quiet("train")
        self._left = 0
        self._losses: dict[tuple[str, ...], dict[str, str]] = {}

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        """See `TrainingReporter`."""
        self._left = len(keys)
        metrics.show(metrics.FOLDS_LEFT, lambda: self._left, run=self._run)
        self._quiet.begin()
        self._inner.begin(keys, epochs)

    def packing(self, done: int, num_slides: int) -> None:
        """See `TrainingReporter`."""
        self._quiet.moved()
        self._inner.packing(done, num_slides)

    def epoch(self, message: dict[str, Any]) -> None:
        """See `TrainingReporter`."""
        self._quiet.moved()
        metrics.count(metrics.EPOCHS, 1, run=self._run)
        metrics.count(metrics.EPOCH_SECONDS, message["seconds"], run=self._run)
        for part in ("train", "val"):
            loss = message[f"{part}_loss"]
            if loss is not None:
                fold = {"seed": str(message["seed"]), "fold": str(message["fold"])}
                tags = {"run": self._run, **fold, "part": part}
                metrics.show(metrics.LOSS, loss, **tags)
                self._losses[tuple(tags.values())] = tags
        self._inner.epoch(message)

    def finished(self, outcome: FoldOutcome) -> None:
        """See `TrainingReporter`."""
        self._quiet.moved()
        self._left -= 1
        metrics.count(metrics.FOLDS, 1, status="failed" if outcome.failure else "done")
        self._inner.finished(outcome)

    def note(self, text: str) -> None:
        """See `TrainingReporter`."""
        self._inner.note(text)

    def end(self) -> None:
        """See `TrainingReporter`."""
        metrics.hide(metrics.FOLDS_LEFT, run=self._run)
        for tags in self._losses.values():
            metrics.hide(metrics.LOSS, **tags)
        self._losses.clear()
        self._quiet.end()
        self._inner.end()


def measured_training(run: str, reporter: TrainingReporter | None) -> TrainingReporter:
    """What a training reports to; ``run`` is its name."""
    return MeasuredTraining(run, reporter or SilentTraining())


class MeasuredSearch:
    """A reporter that counts a search's trials for Prometheus."""

    def __init__(self, reporter: SearchReporter) -> None:
        self._inner = reporter
        self._quiet = Quiet("tune")
        self._most = 0
        self._over: set[str] = set()

    def begin(self, title: str, num_trials: int, objective: str) -> None:
        """See `SearchReporter`."""
        self._most, self._over = num_trials, set()
        metrics.show(metrics.TRIALS_LEFT, lambda: max(self._most - len(self._over), 0))
        self._quiet.begin()
        self._inner.begin(title, num_trials, objective)

    def trial(self, trial: Trial) -> None:
        """See `SearchReporter`."""
        self._quiet.moved()
        if trial.status != "unfinished" and trial.trial_id not in self._over:
            self._over.add(trial.trial_id)
            metrics.count(metrics.TRIALS, 1, status=trial.status)
        self._inner.trial(trial)

    def note(self, text: str) -> None:
        """See `SearchReporter`."""
        self._inner.note(text)

    def end(self) -> None:
        """See `SearchReporter`."""
        metrics.hide(metrics.TRIALS_LEFT)
        self._quiet.end()
        self._inner.end()

    def training(self) -> TrainingReporter:
        """See `SearchReporter`."""
        return self._inner.training()


def measured_search(reporter: SearchReporter | None) -> SearchReporter:
    """What a search reports to."""
    return MeasuredSearch(reporter or SilentSearch())
