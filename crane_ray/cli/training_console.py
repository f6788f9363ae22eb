"""What a person sees of a training: a live table of folds, or a line now and then; then metrics."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from crane_ray.cli.console import LINE_EVERY_S, clock, console
from crane_ray.cohort.findings import Finding, counted
from crane_ray.logs import is_json
from crane_ray.manifest import LeftOut
from crane_ray.runtime.folds import FoldKey, FoldOutcome
from crane_ray.runtime.training_course import TrainingReporter, TrainingSummary

NOTES_SHOWN = 30
GROUPS_SHOWN = 10
WITH_INTERVALS = {"AUC", "balanced accuracy"}
"""Metrics that are shown with their intervals; metrics.csv has all."""


def make_training_reporter() -> TrainingReporter:
    """A live table where somebody watches, records in a log of JSON, else lines."""
    if is_json():
        from crane_ray.cli.training_records import RecordTraining

        return RecordTraining()
    return LiveTable() if console.is_terminal else Lines()


class _Folds:
    """How far each fold is."""

    def __init__(self) -> None:
        self.keys: list[FoldKey] = []
        self.epochs = 0
        self.packed = ""
        self.last: dict[FoldKey, Mapping[str, Any]] = {}
        self.over: dict[FoldKey, FoldOutcome] = {}

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        self.keys, self.epochs = list(keys), epochs
        self.last, self.over = {}, {}

    @property
    def several_seeds(self) -> bool:
        return len({key.seed for key in self.keys}) > 1

    def name(self, key: FoldKey) -> str:
        return key.name(several_seeds=self.several_seeds)

    def table(self) -> Table:
        packed = f": {self.packed}" if self.packed and not self.last else ""
        table = Table(title=f"training{packed}", title_justify="left")
        several = self.several_seeds
        for name in (["seed"] if several else []) + [
            "fold", "epoch", "best", "train loss", "val loss", "val AUC", "s/epoch", "",
        ]:  # fmt: skip
            table.add_column(name, justify="right")
        for key in self.keys:
            row = self._row(key)
            table.add_row(*([str(key.seed)] if several else []), str(key.fold), *row)
        return table

    def _row(self, key: FoldKey) -> list[str]:
        last, over = self.last.get(key), self.over.get(key)
        state = "waiting" if last is None else "training"
        if over is not None:
            early = "stopped early" if over.stopped_early else "done"
            state = "[red]failed[/]" if over.failure else f"[green]{early}[/]"
        if last is None:
            return ["", "", "", "", "", "", state]
        return [
            f"{last['epoch'] + 1}/{self.epochs}",
            str(last["best_epoch"] + 1),
            f"{last['train_loss']:.4f}",
            _number(last["val_loss"]),
            _aucs(last["val_auc"]),
            f"{last['seconds']:.1f}",
            state,
        ]


class LiveTable:
    """A table of folds that moves."""

    def __init__(self) -> None:
        self._folds = _Folds()
        self._live: Live | None = None

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        """See `TrainingReporter`."""
        self._folds.begin(keys, epochs)
        self._live = Live(self._folds.table(), console=console, refresh_per_second=4)
        self._live.start()

    def packing(self, done: int, num_slides: int) -> None:
        """See `TrainingReporter`."""
        self._folds.packed = packing_words(done, num_slides)
        self._draw()

    def epoch(self, message: dict[str, Any]) -> None:
        """See `TrainingReporter`."""
        self._folds.last[FoldKey(message["seed"], message["fold"])] = message
        self._draw()

    def finished(self, outcome: FoldOutcome) -> None:
        """See `TrainingReporter`."""
        self._folds.over[outcome.key] = outcome
        self._draw()

    def note(self, text: str) -> None:
        """See `TrainingReporter`."""
        console.print(f"[yellow]{escape(text)}[/]")

    def end(self) -> None:
        """See `TrainingReporter`."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self) -> None:
        if self._live is not None:
            self._live.update(self._folds.table())


class Lines:
    """A line when a fold ends, and how far all are now and then."""

    def __init__(self) -> None:
        self._folds = _Folds()
        self._next = 0.0

    def begin(self, keys: Sequence[FoldKey], epochs: int) -> None:
        """See `TrainingReporter`."""
        self._folds.begin(keys, epochs)
        console.print(f"training: {counted(len(keys), 'fold')}, {epochs} epochs at most")
        self._next = time.monotonic() + LINE_EVERY_S

    def packing(self, done: int, num_slides: int) -> None:
        """See `TrainingReporter`."""
        self._now_and_then(packing_words(done, num_slides))

    def epoch(self, message: dict[str, Any]) -> None:
        """See `TrainingReporter`."""
        self._folds.last[FoldKey(message["seed"], message["fold"])] = message
        far = ", ".join(
            f"{self._folds.name(key)}: epoch {last['epoch'] + 1}, "
            f"val loss {_number(last['val_loss'])}"
            for key, last in self._folds.last.items()
            if key not in self._folds.over
        )
        self._now_and_then(far)

    def finished(self, outcome: FoldOutcome) -> None:
        """See `TrainingReporter`."""
        self._folds.over[outcome.key] = outcome
        console.print(escape(outcome_words(outcome, self._folds.name(outcome.key))))

    def note(self, text: str) -> None:
        """See `TrainingReporter`."""
        console.print(escape(text))

    def end(self) -> None:
        """See `TrainingReporter`."""

    def _now_and_then(self, text: str) -> None:
        if time.monotonic() >= self._next:
            console.print(f"training: {escape(text)}")
            self._next = time.monotonic() + LINE_EVERY_S


def packing_words(done: int, num_slides: int) -> str:
    """How far the packing of features is."""
    return f"features of {done:,} of {num_slides:,} slides packed"


def outcome_words(outcome: FoldOutcome, name: str) -> str:
    """A fold's end in a line."""
    if outcome.failure:
        return f"{name}: failed after {counted(outcome.epochs, 'epoch')}"
    bags = f"{outcome.num_train}/{outcome.num_val}/{outcome.num_test}"
    best = f"best {outcome.best_epoch + 1}"
    if outcome.best_loss is not None:
        best += f" (val loss {outcome.best_loss:.4f})"
    return (
        f"{name}: {counted(outcome.epochs, 'epoch')}, {best}, {bags} train/val/test bags, "
        f"{outcome.seconds:.0f} s"
    )


def print_training(summary: TrainingSummary) -> None:
    """The end of a training: what failed, the metrics, where the results are."""
    print_findings(finding for finding in summary.findings if finding.severity == "error")
    print_left_out(summary.left_out)
    for failure in summary.failures:
        console.print(f"[red]failed[/] {escape(failure)}")
    print_metrics(summary.rows, "test parts")
    console.print(f"time: {clock(summary.seconds)}")
    for folder in summary.folders:
        console.print(f"results: {escape(folder)}")
    for path in summary.reports:
        console.print(f"report: {escape(path)}")


def print_left_out(slides: Sequence[LeftOut]) -> None:
    """Slides whose features could not be used, and why."""
    for slide in slides[:NOTES_SHOWN]:
        console.print(f"[red]left out[/] {escape(slide.slide_id)}: {escape(slide.reason)}")
    if len(slides) > NOTES_SHOWN:
        console.print(f"... and {len(slides) - NOTES_SHOWN} more in manifest.json")


def print_findings(findings: Iterable[Finding]) -> None:
    """What was noticed about the cohort or its splits."""
    for finding in findings:
        colour = "red" if finding.severity == "error" else "yellow"
        console.print(f"[{colour}]{finding.severity}[/]: {escape(finding.message)}")


def print_metrics(rows: Iterable[Mapping[str, str]], title: str) -> None:
    """A table of metrics with their intervals."""
    held = list(rows)
    if not held:
        return
    table = Table(title=title, title_justify="left")
    groups = list(dict.fromkeys(row["group"] for row in held if row["group"] != "all"))
    shown = {"all", *groups[:GROUPS_SHOWN]}
    names = [name for name in held[0] if name != "group" or groups]
    for name in names:
        table.add_column(name, no_wrap=True)
    for row in held:
        if row["group"] not in shown:
            continue
        cells = (
            row[name] if name in WITH_INTERVALS else row[name].split(" [")[0] for name in names
        )
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    if len(groups) > GROUPS_SHOWN:
        console.print(f"... and {len(groups) - GROUPS_SHOWN:,} more groups in metrics.csv")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _aucs(found: Mapping[str, float]) -> str:
    if len(found) == 1:
        return f"{next(iter(found.values())):.3f}"
    return " ".join(f"{task} {auc:.3f}" for task, auc in found.items())


def print_assessment(table: pd.DataFrame, most: int) -> None:
    """The first cases of an assessment: decisions, each with its probability."""
    tasks = [
        name.removeprefix("decision_") for name in map(str, table) if name.startswith("decision_")
    ]
    shown = Table(title=f"{len(table):,} cases", title_justify="left")
    for name in ("case", "slides", *tasks):
        shown.add_column(name)
    for row in table.head(most).to_dict("records"):
        cells = []
        for task in tasks:
            decision = row[f"decision_{task}"]
            graded = not pd.isna(decision)
            cells.append(f"{decision} ({row[f'p_{task}_{decision}']:.2f})" if graded else "-")
        if not row["num_slides"]:
            cells = ["no usable slide", *[""] * (len(tasks) - 1)]
        shown.add_row(escape(str(row["case_id"])), str(row["num_slides"]), *map(escape, cells))
    console.print(shown)
    if len(table) > most:
        console.print(f"... and {len(table) - most:,} more in assessment.csv")
