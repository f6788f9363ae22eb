"""What a running job says of itself, and what is left to say at its end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from crane_ray.config import Config
from crane_ray.manifest import LeftOut, RunManifest, concluded


class Reporter(Protocol):
    """Told how a job is going; a terminal draws bars from it, a log prints a line now and then."""

    def begin(self, title: str, *, slides: int, patches: int | None = None) -> None:
        """A stage starts; patches is None where they are not known yet."""
        ...

    def advance(self, *, slides: int = 0, patches: int = 0, failures: int = 0) -> None:
        """So many more are done."""
        ...

    def note(self, text: str) -> None:
        """Something a person should know while it runs."""
        ...

    def failure(self, slide_id: str, reason: str) -> None:
        """A slide failed."""
        ...

    def limit(self, words: str) -> None:
        """What limits the run at present."""
        ...

    def end(self) -> None:
        """The stage is over, well or not."""
        ...


class Silent:
    """A reporter that says nothing."""

    def begin(self, title: str, *, slides: int, patches: int | None = None) -> None:
        """Says nothing."""

    def advance(self, *, slides: int = 0, patches: int = 0, failures: int = 0) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def failure(self, slide_id: str, reason: str) -> None:
        """Says nothing."""

    def limit(self, words: str) -> None:
        """Says nothing."""

    def end(self) -> None:
        """Says nothing."""


@dataclass
class Summary:
    """What came of a run; failed slides carry their reasons."""

    verb: str
    where: str
    """The workspace or store."""
    done: int = 0
    skipped: int = 0
    """Done by an earlier run with the same parameters."""
    patches: int = 0
    """Placed or encoded in this run."""
    seconds: float = 0.0
    left_out: list[LeftOut] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    manifest: str = ""
    verdict: str = ""
    """What limited the run, and the setting to change."""

    @property
    def failures(self) -> list[LeftOut]:
        """The slides that failed."""
        return [slide for slide in self.left_out if slide.status == "failed"]

    @property
    def no_tissue(self) -> int:
        """How many slides have no patches, for lack of tissue."""
        return sum(slide.status == "no_tissue" for slide in self.left_out)

    def leave_out(
        self, slide_id: str, reason: str, status: Literal["failed", "no_tissue"] = "failed"
    ) -> None:
        """Takes in a slide that is not in the result, and why."""
        self.left_out.append(LeftOut(slide_id=slide_id, status=status, reason=reason))

    def counts(self) -> dict[str, int]:
        """The numbers for the manifest."""
        return {
            "done": self.done,
            "skipped": self.skipped,
            "no_tissue": self.no_tissue,
            "failed": len(self.failures),
            "patches": self.patches,
        }


@dataclass
class RunRecord:
    """A run that is being recorded."""

    manifest: RunManifest
    summarise: Callable[[], Summary] | None = None
    """Says what came of the run so far; set as soon as there is something to say."""
    summary: Summary | None = None
    """The whole of it, once the run is over."""


@contextmanager
def recorded(verb: str, config: Config, folder: str) -> Iterator[RunRecord]:
    """A manifest in ``folder`` from the run's begin, finished however the run ends."""
    begun = time.perf_counter()
    record = RunRecord(RunManifest.start(verb, config))
    record.manifest.write(folder)

    def conclude(outcome: str, reason: str) -> None:
        summary = record.summarise() if record.summarise else Summary(verb, folder)
        summary.seconds = round(time.perf_counter() - begun, 1)
        if outcome == "done" and summary.failures:
            outcome = "failures"
        finished = record.manifest.finish(
            outcome,
            error=reason,
            counts=summary.counts(),
            left_out=summary.left_out,
            facts=summary.facts,
        )
        summary.manifest = finished.write(folder)
        record.summary = summary

    with record.manifest.told(), concluded(conclude):
        yield record


class Throttle:
    """Runs a write now and then: often while it is cheap, seldom once it is not."""

    def __init__(self, write: Callable[[], None], *, every_s: float = 1.0) -> None:
        self._write = write
        self._every_s = every_s
        self._next = 0.0

    def __call__(self, *, force: bool = False) -> None:
        """Writes if it is time to; at most a twentieth of the run goes into it."""
        begun = time.monotonic()
        if begun < self._next and not force:
            return
        self._write()
        ended = time.monotonic()
        self._next = ended + max(self._every_s, 20 * (ended - begun))
