"""How a search goes, for those who want to know, and what came of it. Imports no ray."""

from dataclasses import dataclass, field
from typing import Protocol

from crane_ray.cohort.findings import Finding
from crane_ray.runtime.training_course import SilentTraining, TrainingReporter
from crane_ray.search.leaderboard import Leaderboard, Trial


class SearchReporter(Protocol):
    """Told how a search is going."""

    def begin(self, title: str, num_trials: int, objective: str) -> None:
        """A search starts; there are several in a nested one."""
        ...

    def trial(self, trial: Trial) -> None:
        """A trial has changed."""
        ...

    def note(self, text: str) -> None:
        """Something a person should know."""
        ...

    def end(self) -> None:
        """The search is over, well or not."""
        ...

    def training(self) -> TrainingReporter:
        """For the trainings of a nested search."""
        ...


class SilentSearch:
    """A reporter that says nothing."""

    def begin(self, title: str, num_trials: int, objective: str) -> None:
        """Says nothing."""

    def trial(self, trial: Trial) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def end(self) -> None:
        """Says nothing."""

    def training(self) -> TrainingReporter:
        """Says nothing."""
        return SilentTraining()


@dataclass
class SearchSummary:
    """What came of a search."""

    folder: str
    leaderboards: dict[str, Leaderboard] = field(default_factory=dict)
    """By folder; several of a nested search."""
    findings: tuple[Finding, ...] = ()
    rows: list[dict[str, str]] = field(default_factory=list)
    """Of the metrics table on the outer test parts of a nested search."""
    seconds: float = 0.0

    @property
    def has_best(self) -> bool:
        """Whether every search found a config that trains."""
        return all(one.best is not None for one in self.leaderboards.values())
