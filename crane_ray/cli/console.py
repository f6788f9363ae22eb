"""What a person sees of a run: live bars on a terminal, a line now and then in a log, a table."""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from crane_ray.cohort.findings import counted
from crane_ray.logs import is_json
from crane_ray.manifest import LeftOut
from crane_ray.runtime.reporting import Reporter, Summary

LINE_EVERY_S = 30.0
REASONS_SHOWN = 50

LOG_COLUMNS = 160
"""Width of tables where nobody watches: a log has none of its own."""

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = LOG_COLUMNS


def make_reporter() -> Reporter:
    """Bars where somebody watches, records in a log of JSON, else lines."""
    if is_json():
        from crane_ray.cli.records import RecordReporter

        return RecordReporter()
    return BarReporter() if console.is_terminal else LineReporter()


class Pace:
    """Counts and rates of a stage."""

    def __init__(self, slides: int, patches: int | None) -> None:
        self.slides = self.patches = self.failures = 0
        self.of_slides, self.of_patches = slides, patches
        self.begun = time.monotonic()
        self.limit = ""

    def advance(self, slides: int, patches: int, failures: int) -> None:
        """Adds to the counts."""
        self.slides += slides
        self.patches += patches  # a shard tried again counts twice: shown, never recorded
        self.failures += failures

    @property
    def rate(self) -> float:
        """Patches a second since the stage began."""
        return self.patches / max(time.monotonic() - self.begun, 1e-9)

    def left_s(self) -> float | None:
        """Seconds to go at the pace so far; None before there is one."""
        done, whole = (
            (self.patches, self.of_patches) if self.of_patches else (self.slides, self.of_slides)
        )
        if not done:
            return None
        return (time.monotonic() - self.begun) * max(whole - done, 0) / done

    def words(self) -> str:
        """Rate, failures and time left."""
        left = self.left_s()
        parts = [f"{self.rate:,.0f} patches/s"] if self.patches else []
        if not (self.patches or self.slides):
            parts.append("starting")
        if self.failures:
            parts.append(f"{self.failures} failed")
        if left is not None:
            parts.append(f"{clock(left)} left")
        if self.limit:
            parts.append(self.limit)
        return ", ".join(parts)


class BarReporter:
    """Live bars of slides and patches with rate, failures and time left."""

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._pace = Pace(0, None)
        self._tasks: list[TaskID] = []

    def begin(self, title: str, *, slides: int, patches: int | None = None) -> None:
        """See `Reporter`."""
        self._pace = Pace(slides, patches)
        self._bars = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks = [self._bars.add_task(title, total=slides, count="", words="starting")]
        if patches is not None:
            self._tasks.append(self._bars.add_task("patches", total=patches, count="", words=""))
        self._bars.start()
        self._draw()

    def advance(self, *, slides: int = 0, patches: int = 0, failures: int = 0) -> None:
        """See `Reporter`."""
        self._pace.advance(slides, patches, failures)
        self._draw()

    def note(self, text: str) -> None:
        """See `Reporter`."""
        console.print(f"[yellow]{escape(text)}[/]")

    def failure(self, slide_id: str, reason: str) -> None:
        """See `Reporter`."""
        self.note(f"{slide_id}: {reason}")

    def limit(self, words: str) -> None:
        """See `Reporter`."""
        self._pace.limit = words
        self._draw()

    def end(self) -> None:
        """See `Reporter`."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _draw(self) -> None:
        if self._bars is None:
            return
        pace = self._pace
        counts = [(pace.slides, pace.of_slides, "slides"), (pace.patches, pace.of_patches, "")]
        for place, (task, (done, whole, unit)) in enumerate(zip(self._tasks, counts, strict=False)):
            words = pace.words() if place == len(self._tasks) - 1 else ""
            count = f"{done:,}/{whole:,} {unit}".strip()
            self._bars.update(task, completed=min(done, whole or done), count=count, words=words)


class PacedReporter(ABC):
    """Says something when a stage begins and ends, and now and then between; how, is another's."""

    def __init__(self) -> None:
        self._title = ""
        self._pace = Pace(0, None)
        self._next = 0.0

    def begin(self, title: str, *, slides: int, patches: int | None = None) -> None:
        """See `Reporter`."""
        self._title, self._pace = title, Pace(slides, patches)
        self._next = time.monotonic() + LINE_EVERY_S
        self._say("begin")

    def advance(self, *, slides: int = 0, patches: int = 0, failures: int = 0) -> None:
        """See `Reporter`."""
        self._pace.advance(slides, patches, failures)
        if time.monotonic() >= self._next:
            self._say("progress")
            self._next = time.monotonic() + LINE_EVERY_S

    def limit(self, words: str) -> None:
        """See `Reporter`."""
        self._pace.limit = words

    def end(self) -> None:
        """See `Reporter`."""
        if self._title:
            self._say("stage_end")
            self._title = ""

    @abstractmethod
    def _say(self, event: str) -> None:
        """Says it, of the stage and its pace: begin, progress, stage_end."""


class LineReporter(PacedReporter):
    """A line of text each time."""

    def note(self, text: str) -> None:
        """See `Reporter`."""
        console.print(escape(text))

    def failure(self, slide_id: str, reason: str) -> None:
        """See `Reporter`."""
        self.note(f"{slide_id}: {reason}")

    def _say(self, event: str) -> None:
        pace = self._pace
        if event == "begin":
            words = counted(pace.of_slides, "slide")
            if pace.of_patches is not None:
                words += f", {counted(pace.of_patches, 'patch', 'patches')}"
        else:
            patches = f"{pace.patches:,} patches, " if pace.patches else ""
            words = f"{pace.slides:,} of {pace.of_slides:,} slides, {patches}{pace.words()}"
        console.print(f"{self._title}: {words}")


def print_summary(summary: Summary) -> None:
    """The table at the end: how many slides went which way, and why some did not."""
    if is_json():
        from crane_ray.cli.records import log_summary

        log_summary(summary)
        return
    table = Table(title=f"crane-ray {summary.verb}", title_justify="left", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    rows = [
        ("slides done", summary.done),
        ("done before (skipped)", summary.skipped),
        ("without tissue", summary.no_tissue),
        ("failed", len(summary.failures)),
        ("patches", summary.patches),
    ]
    for name, number in rows:
        table.add_row(name, f"{number:,}")
    table.add_row("time", clock(summary.seconds))
    console.print(table)
    if summary.verdict:
        console.print(escape(summary.verdict))
    print_reasons(summary.left_out)
    console.print(f"results: {escape(summary.where)}")
    if summary.manifest:
        console.print(f"manifest: {escape(summary.manifest)}")


def print_reasons(left_out: Sequence[LeftOut]) -> None:
    """The slides that are not in a result, and why."""
    for status, colour in (("failed", "red"), ("no_tissue", "yellow")):
        slides = [slide for slide in left_out if slide.status == status]
        for slide in slides[:REASONS_SHOWN]:
            word = status.replace("_", " ")
            console.print(f"[{colour}]{word}[/] {escape(slide.slide_id)}: {escape(slide.reason)}")
        if len(slides) > REASONS_SHOWN:
            kinds = Counter(slide.reason.split(":")[0] for slide in slides[REASONS_SHOWN:])
            common = "; ".join(f"{count} x {kind}" for kind, count in kinds.most_common(5))
            console.print(f"... and {len(slides) - REASONS_SHOWN} more in the manifest ({common})")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
