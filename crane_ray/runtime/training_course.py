"""How a training goes, for those who want to know: a person, trackers, and the summary."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from crane_ray.cohort.findings import Finding
from crane_ray.manifest import LeftOut
from crane_ray.runtime.folds import FoldKey, FoldOutcome
from crane_ray.runtime.tracking import Tracker, tracker_name

log = logging.getLogger(__name__)


class TrainingReporter(Protocol):
    """Told how a training is going."""

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        """Training starts."""
        ...

    def packing(self, done: int, num_slides: int) -> None:
        """So many slides' features are on a node's own disk."""
        ...

    def epoch(self, message: dict[str, Any]) -> None:
        """A fold's epoch is over; see `fold_training` for what the message has."""
        ...

    def finished(self, outcome: FoldOutcome) -> None:
        """A fold is over."""
        ...

    def note(self, text: str) -> None:
        """Something a person should know."""
        ...

    def end(self) -> None:
        """Training is over, well or not."""
        ...


class SilentTraining:
    """A reporter that says nothing."""

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        """Says nothing."""

    def packing(self, done: int, num_slides: int) -> None:
        """Says nothing."""

    def epoch(self, message: dict[str, Any]) -> None:
        """Says nothing."""

    def finished(self, outcome: FoldOutcome) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def end(self) -> None:
        """Says nothing."""


@dataclass
class TrainingSummary:
    """What came of a training."""

    folders: list[str]
    """Of the runs, one a seed."""
    outcomes: list[FoldOutcome] = field(default_factory=list)
    """Of the folds of the runs, those that an earlier job trained too."""
    findings: tuple[Finding, ...] = ()
    rows: list[dict[str, str]] = field(default_factory=list)
    """Of the metrics table on the test parts."""
    reports: list[str] = field(default_factory=list)
    """Paths of the runs' pages."""
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """Folds that failed, in words."""
        several = len(self.folders) > 1
        return [
            f"seed {outcome.seed}, {outcome.failure}" if several else outcome.failure
            for outcome in self.outcomes
            if outcome.failure
        ]

    @property
    def left_out(self) -> list[LeftOut]:
        """Slides whose features cannot be used, by any of the folds."""
        slides = {slide.slide_id: slide for it in self.outcomes for slide in it.left_out}
        return [slides[slide_id] for slide_id in sorted(slides)]


@dataclass
class Course:
    """Those who are told while folds train."""

    summary: TrainingSummary
    reporter: TrainingReporter
    trackers: list[Tracker]
    folders: Mapping[int, str]
    """Folder of the run, by seed."""

    def told(self, messages: Sequence[dict[str, Any]]) -> None:
        """Passes on what workers say."""
        for message in messages:
            if message["kind"] == "packing":
                self.reporter.packing(message["done"], message["all"])
            else:
                self.reporter.epoch(message)
                self._track(message)

    def finished(self, outcomes: Sequence[FoldOutcome]) -> None:
        """Some folds are over."""
        for outcome in outcomes:
            self.summary.outcomes.append(outcome)
            self.reporter.finished(outcome)

    def _track(self, message: dict[str, Any]) -> None:
        for tracker in list(self.trackers):
            try:
                tracker.epoch(self.folders[message["seed"]], message)
            except Exception as error:  # its server is away: no reason to lose a training
                log.warning("tracking ends", exc_info=True)
                self.trackers.remove(tracker)
                name = tracker_name(tracker)
                self.reporter.note(f"warning: {name} is no longer told of epochs: {error}")
