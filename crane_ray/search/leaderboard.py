"""Trials of a search, best first: as a table for programs, for spreadsheets and for a screen."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import pyarrow as pa

from crane_ray import storage, tables
from crane_ray.pages.wording import duration_text, value_text
from crane_ray.search.wording import objective_text, short_names

FORMAT = 1
"""Version of leaderboard.parquet and leaderboard.csv."""

SCHEMA_KEY = b"crane_ray.leaderboard"
"""Where leaderboard.parquet says its version, metric, direction and default trial, as JSON."""

BEFORE = ("rank", "trial_id", "number", "status", "value")
AFTER = ("epochs", "seconds", "error")
"""Columns before and after those of params and metrics."""

ROW_NAMES = ("rank", "trial", "status", "value", "epochs", "time")
"""Keys of `Leaderboard.rows` besides the params."""

EXACT = 2**53
"""Whole numbers up to this are the same as float64."""

ABSENT = object()
"""Stands for the value of a param that a trial does not have; None is a value."""

Status = Literal["done", "stopped", "failed", "unfinished"]


@dataclass(frozen=True)
class Trial:
    """One training of a search."""

    trial_id: str
    number: int
    """Place in the order of start, from 0."""
    params: Mapping[str, Any]
    """Dotted path in the training config to None, bool, int, float or str."""
    status: Status
    """``stopped``: ended early by the scheduler."""
    value: float | None
    """The objective."""
    metrics: Mapping[str, float | None]
    """Further numbers, such as ``val_loss``."""
    epochs: int
    seconds: float
    error: str = ""
    history: tuple[tuple[int, float], ...] = ()
    """Epoch, from 0, and objective."""

    @property
    def score(self) -> float | None:
        """The value by which it is ranked.

        None where the trial has no finite one, and where it failed or did not end, since what it
        had reached by then is not what its config reaches.
        """
        if self.status not in ("done", "stopped") or self.value is None:
            return None
        return self.value if math.isfinite(self.value) else None


@dataclass(frozen=True)
class Leaderboard:
    """All trials of a search."""

    metric: str
    """The objective in words: ``macro AUC, val``."""
    mode: Literal["max", "min"]
    trials: tuple[Trial, ...]
    baseline: str | None = None
    """The trial_id of the default config."""

    def __post_init__(self) -> None:
        ids = [trial.trial_id for trial in self.trials]
        assert len(set(ids)) == len(ids), "two trials of one trial_id"

    def ranked(self) -> tuple[Trial, ...]:
        """Trials with a score, best first, ties by number; then those without, by number."""
        sign = -1.0 if self.mode == "max" else 1.0

        def order(trial: Trial) -> tuple[bool, float, int]:
            score = trial.score
            return score is None, sign * (score or 0.0), trial.number

        return tuple(sorted(self.trials, key=order))

    @property
    def scored(self) -> tuple[Trial, ...]:
        """Trials with a score, best first."""
        return tuple(trial for trial in self.ranked() if trial.score is not None)

    @property
    def best(self) -> Trial | None:
        """The trial of rank 1; None where no trial has a score."""
        return self.scored[0] if self.scored else None

    @property
    def baseline_trial(self) -> Trial | None:
        """The trial of the default config; None where it was not run."""
        found = [trial for trial in self.trials if trial.trial_id == self.baseline]
        return found[0] if found else None

    @property
    def gain(self) -> float | None:
        """How much better the best score is than the default config's; None where one lacks."""
        best, baseline = self.best, self.baseline_trial
        if best is None or baseline is None or best.score is None or baseline.score is None:
            return None
        return (best.score - baseline.score) * (1 if self.mode == "max" else -1)

    def param_paths(self) -> tuple[str, ...]:
        """Paths of all params, in the order in which trials name them."""
        return _in_order(path for trial in self.trials for path in trial.params)

    def varied_paths(self) -> tuple[str, ...]:
        """Paths of the params that are not the same in all trials."""
        return tuple(path for path in self.param_paths() if self._differs(path))

    def metric_names(self) -> tuple[str, ...]:
        """Names of all further metrics, in the order in which trials name them."""
        return _in_order(name for trial in self.trials for name in trial.metrics)

    def frame(self) -> pd.DataFrame:
        """A row a trial, best first; rank is null where there is no score.

        Columns: rank, trial_id, number, status, value, one a param named by its path, one a
        metric, epochs, seconds, error. A name that is taken already is followed by ``(param)`` or
        ``(metric)``. Params of one type have that type, nullable; others are objects.
        """
        columns = self._columns()
        return pd.DataFrame({column.name: column.series() for column in columns})

    def write(self, folder: str) -> None:
        """Writes leaderboard.parquet and leaderboard.csv.

        Parquet has one type a column: a param with values of several types is kept as JSON text,
        and its field says so (metadata ``encoding: json``).

        Raises:
            StorageError: they cannot be written.
        """
        columns = self._columns()
        facts = {"format": FORMAT, "metric": self.metric, "mode": self.mode}
        about = json.dumps({**facts, "baseline": self.baseline}).encode()
        schema = pa.schema([column.field() for column in columns], {SCHEMA_KEY: about})
        arrays = [column.array() for column in columns]
        table = pa.Table.from_arrays(arrays, schema=schema)
        tables.write_arrow(storage.join(folder, "leaderboard.parquet"), table)
        text = self.frame().to_csv(index=False, lineterminator="\n")
        storage.put_bytes(storage.join(folder, "leaderboard.csv"), text.encode())

    def rows(self, most: int) -> list[dict[str, str]]:
        """The best trials as text for a table on a screen, at most so many.

        Params go by the shortest end of their path that is no other's, and those that never
        differ are left out.
        """
        names = short_names(self.varied_paths(), taken=ROW_NAMES)
        return [
            {
                "rank": "" if trial.score is None else str(rank),
                "trial": trial.trial_id,
                "status": trial.status,
                "value": "" if trial.value is None else objective_text(trial.value),
                **{
                    name: value_text(trial.params[path]) if path in trial.params else ""
                    for path, name in names.items()
                },
                "epochs": str(trial.epochs),
                "time": duration_text(trial.seconds),
            }
            for rank, trial in enumerate(self.ranked()[:most], start=1)
        ]

    def _differs(self, path: str) -> bool:
        values = [trial.params.get(path, ABSENT) for trial in self.trials]
        # True is 1 to Python, but not to a config; nan is not itself.
        kinds = {
            (isinstance(value, bool), repr(value) if value != value else value)  # noqa: PLR0124
            for value in values
        }
        return len(kinds) > 1

    def _columns(self) -> list["_Column"]:
        ranked = self.ranked()
        ranks = [None if trial.score is None else n for n, trial in enumerate(ranked, start=1)]
        columns = [_Column("rank", ranks, pa.int32())]
        fixed = {"trial_id": pa.string(), "number": pa.int32(), "status": pa.string(),
                 "value": pa.float64(), "epochs": pa.int32(), "seconds": pa.float64(),
                 "error": pa.string()}  # fmt: skip
        columns += [_plain(name, ranked, fixed[name]) for name in BEFORE[1:]]
        taken = [*BEFORE, *AFTER]
        for path in self.param_paths():
            values = [trial.params.get(path) for trial in ranked]
            columns.append(_param_column(_free(path, taken, "param"), values))
        for name in self.metric_names():
            numbers = [trial.metrics.get(name) for trial in ranked]
            columns.append(_Column(_free(name, taken, "metric"), numbers, pa.float64()))
        return columns + [_plain(name, ranked, fixed[name]) for name in AFTER]


DTYPES = {
    pa.bool_(): "boolean",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.float64(): "float64",
    pa.string(): "object",
}
"""Arrow's types as those of pandas that can lack a value."""


@dataclass(frozen=True)
class _Column:
    """Values of a column of the table, and how Parquet keeps them."""

    name: str
    values: list[Any]
    kind: Any
    json: bool = field(default=False)

    def series(self) -> "pd.Series[Any]":
        return pd.Series(self.values, dtype="object" if self.json else DTYPES[self.kind])

    def array(self) -> Any:
        values = [_as_json(value) for value in self.values] if self.json else self.values
        return pa.array(values, type=self.kind)

    def field(self) -> Any:
        return pa.field(self.name, self.kind, metadata={"encoding": "json"} if self.json else None)


def _plain(name: str, ranked: Iterable[Trial], kind: Any) -> _Column:
    return _Column(name, [getattr(trial, name) for trial in ranked], kind)


def _param_column(name: str, values: list[Any]) -> _Column:
    there = [value for value in values if value is not None]
    types = {type(value) for value in there}
    if types <= {str}:
        return _Column(name, values, pa.string())
    if types == {bool}:
        return _Column(name, values, pa.bool_())
    if types == {int} and all(-(2**63) <= value < 2**63 for value in there):
        return _Column(name, values, pa.int64())
    if types <= {int, float} and all(type(n) is float or abs(n) <= EXACT for n in there):
        numbers = [None if value is None else float(value) for value in values]
        return _Column(name, numbers, pa.float64())
    return _Column(name, values, pa.string(), json=True)


def _as_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _free(name: str, taken: list[str], what: str) -> str:
    while name in taken:
        name = f"{name} ({what})"
    taken.append(name)
    return name


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
