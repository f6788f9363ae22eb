"""What a person sees of a search: a live table of trials, or a line a trial; then the best."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from crane_ray.cli.console import clock, console
from crane_ray.cli.training_console import make_training_reporter, print_metrics
from crane_ray.cohort.findings import counted
from crane_ray.logs import is_json
from crane_ray.runtime.search_course import SearchReporter, SearchSummary
from crane_ray.runtime.training_course import TrainingReporter
from crane_ray.search.leaderboard import Leaderboard, Trial

BEST_SHOWN = 10
FINISHED_SHOWN = 5


def make_search_reporter() -> SearchReporter:
    """A live table where somebody watches, records in a log of JSON, else lines."""
    if is_json():
        from crane_ray.cli.training_records import RecordSearch

        return RecordSearch()
    return LiveTrials() if console.is_terminal else TrialLines()


class _Notes:
    """What both reporters share."""

    def note(self, text: str) -> None:
        """See `SearchReporter`."""
        console.print(f"[yellow]{escape(text)}[/]")

    def training(self) -> TrainingReporter:
        """See `SearchReporter`."""
        return make_training_reporter()


class LiveTrials(_Notes):
    """A table of the trials that run, and of those that ended last."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._trials: dict[str, Trial] = {}
        self._title, self._most, self._objective = "", 0, ""

    def begin(self, title: str, num_trials: int, objective: str) -> None:
        """See `SearchReporter`."""
        self._title, self._most, self._objective = title, num_trials, objective
        self._trials = {}
        self._live = Live(self._table(), console=console, refresh_per_second=4)
        self._live.start()

    def trial(self, trial: Trial) -> None:
        """See `SearchReporter`."""
        self._trials[trial.trial_id] = trial
        if self._live is not None:
            self._live.update(self._table())

    def end(self) -> None:
        """See `SearchReporter`."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        over = [trial for trial in self._trials.values() if trial.status != "unfinished"]
        running = [trial for trial in self._trials.values() if trial.status == "unfinished"]
        title = f"{self._title}: {len(over)} of {self._most} trials over"
        table = Table(title=escape(title), title_justify="left")
        for name in ("trial", "settings", "epoch", self._objective, "time", ""):
            table.add_column(name, justify="left" if name == "settings" else "right")
        for trial in [*over[-FINISHED_SHOWN:], *running]:
            table.add_row(
                str(trial.number),
                escape(settings_words(trial.params)),
                str(trial.epochs),
                _number(trial.value),
                clock(trial.seconds),
                _state(trial),
            )
        return table


class TrialLines(_Notes):
    """A line when a trial ends."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def begin(self, title: str, num_trials: int, objective: str) -> None:
        """See `SearchReporter`."""
        self._said = set()
        console.print(f"{escape(title)}: {counted(num_trials, 'trial')}")

    def trial(self, trial: Trial) -> None:
        """See `SearchReporter`."""
        if trial.status != "unfinished" and trial.trial_id not in self._said:
            self._said.add(trial.trial_id)
            why = f" ({trial.error})" if trial.error else ""
            console.print(
                f"trial {trial.number}: {trial.status} after {counted(trial.epochs, 'epoch')}, "
                f"{_number(trial.value)}, {escape(settings_words(trial.params))}{escape(why)}"
            )

    def end(self) -> None:
        """See `SearchReporter`."""


def print_search(summary: SearchSummary) -> None:
    """The end of a search: the best trials, and what to do next."""
    for folder, board in summary.leaderboards.items():
        _print_leaderboard(board, folder)
    print_metrics(summary.rows, "test parts of the outer folds")
    console.print(f"time: {clock(summary.seconds)}")
    console.print(f"results: {escape(summary.folder)}")


def _print_leaderboard(board: Leaderboard, folder: str) -> None:
    _print_rows(board.rows(BEST_SHOWN), f"best trials by {board.metric}")
    failed = [trial for trial in board.trials if trial.status == "failed"]
    for trial in failed[:BEST_SHOWN]:
        console.print(f"[red]failed[/] trial {trial.number}: {escape(trial.error)}")
    if board.best is None:
        console.print(f"[red]no trial could be trained[/]; see {escape(folder)}/leaderboard.csv")
        return
    default = board.baseline_trial
    if default is not None and default.score is not None and board.best is not default:
        console.print(
            f"the config as it was: {default.score:.4f}, the best trial: {board.best.score:.4f}"
        )
    console.print(f"page: {escape(folder)}/search.html")
    console.print(f"next: crane-ray train --config {escape(folder)}/best.yaml")


def _print_rows(rows: Sequence[Mapping[str, str]], title: str) -> None:
    if not rows:
        return
    table = Table(title=escape(title), title_justify="left")
    for name in rows[0]:
        table.add_column(escape(name))
    for row in rows:
        table.add_row(*map(escape, row.values()))
    console.print(table)


def settings_words(params: Mapping[str, Any]) -> str:
    """A trial's settings in a line."""
    return ", ".join(f"{path.rsplit('.', 1)[-1]} {_word(value)}" for path, value in params.items())


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _state(trial: Trial) -> str:
    colours = {"done": "green", "stopped": "yellow", "failed": "red", "unfinished": "cyan"}
    words = {"unfinished": "training"}
    return f"[{colours[trial.status]}]{words.get(trial.status, trial.status)}[/]"
