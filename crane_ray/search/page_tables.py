"""The tables of a search's page, as HTML text."""

import json
from collections.abc import Mapping
from typing import Any

from crane_ray.pages.drawing import element, escaped
from crane_ray.pages.wording import duration_text, is_number, key_of, number_text, value_text
from crane_ray.search.leaderboard import ABSENT, Leaderboard, Trial
from crane_ray.search.wording import objective_text, short_names


def trials_table(leaderboard: Leaderboard) -> str:
    """Every trial, best first; params that never differ are left out."""
    paths = leaderboard.varied_paths()
    names = short_names(paths)
    numeric = {path: _is_numeric(leaderboard, path) for path in paths}
    heads = [_head("rank", right=True), _head("trial", right=True), _head("status")]
    heads.append(_head(leaderboard.metric, right=True))
    heads += [_head(names[path], right=numeric[path], whole=path) for path in paths]
    heads += [_head(name, right=True) for name in leaderboard.metric_names()]
    heads += [_head("epochs", right=True), _head("time", right=True)]
    rows = [
        _trial_row(leaderboard, trial, rank, numeric)
        for rank, trial in enumerate(leaderboard.ranked(), start=1)
    ]
    head = element("thead", element("tr", *heads))
    return element("table", head, element("tbody", *rows), class_="trials")


def failures_table(leaderboard: Leaderboard) -> str:
    """Each trial with an error, and the error; nothing where there is none."""
    rows = [
        element(
            "tr",
            element("td", str(trial.number)),
            element("td", escaped(trial.status)),
            element("td", element("code", escaped(trial.error))),
            data_trial=trial.number,
        )
        for trial in sorted(leaderboard.trials, key=lambda trial: trial.number)
        if trial.error
    ]
    if not rows:
        return ""
    heads = [element("th", name, scope="col") for name in ("trial", "status", "reason")]
    return element("table", element("thead", element("tr", *heads)), element("tbody", *rows))


def best_table(leaderboard: Leaderboard, best: Trial) -> str:
    """The best trial's params beside those of the default config."""
    default = leaderboard.baseline_trial
    beside = default is not None and default is not best
    heads = ["param", "best", *(["default"] if beside else [])]
    rows = []
    for path in leaderboard.param_paths():
        value = best.params.get(path, ABSENT)
        cells = [element("td", element("code", escaped(path)))]
        other = default.params.get(path, ABSENT) if default is not None else ABSENT
        differs = beside and _exact(value) != _exact(other)
        best_cell = element("code", escaped(_exact(value)))
        cells.append(element("td", best_cell, class_="changed" if differs else None))
        if beside:
            cells.append(element("td", element("code", escaped(_exact(other)))))
        rows.append(element("tr", *cells))
    head = element("tr", *(element("th", name, scope="col") for name in heads))
    return element("table", element("thead", head), element("tbody", *rows))


def _trial_row(
    leaderboard: Leaderboard, trial: Trial, rank: int, numeric: Mapping[str, bool]
) -> str:
    best, default = trial is leaderboard.best, trial.trial_id == leaderboard.baseline
    cells = [_number(None if trial.score is None else rank, str), _trial_cell(trial, default)]
    cells.append(_cell(trial.status, trial.status))
    cells.append(_number(trial.value, objective_text))
    for path, right in numeric.items():
        value = trial.params.get(path, ABSENT)
        shown = "" if value is ABSENT else value_text(value)
        sorts = str(value) if is_number(value) else shown
        cells.append(_cell(shown, sorts, right=right, whole=_exact(value)))
    for name in leaderboard.metric_names():
        cells.append(_number(trial.metrics.get(name), number_text))
    cells.append(_number(trial.epochs, str))
    cells.append(_number(trial.seconds, duration_text))
    classes = " ".join(name for name, on in (("best", best), ("default", default)) if on)
    return element("tr", *cells, data_trial=trial.number, tabindex=0, class_=classes or None)


def _trial_cell(trial: Trial, default: bool) -> str:
    shown = f"{trial.number}, default" if default else str(trial.number)
    return _cell(shown, str(trial.number), right=True, whole=trial.trial_id)


def _head(name: str, *, right: bool = False, whole: str | None = None) -> str:
    # A long path may go on in the next line after a dot.
    words = escaped(name).replace(".", ".<wbr>")
    title = whole if whole != name else None
    return element("th", words, scope="col", class_="n" if right else None, title=title)


def _number(value: float | None, write: Any) -> str:
    if value is None:
        return _cell("", "", right=True)
    exact = repr(value) if isinstance(value, float) else None
    return _cell(write(value), repr(value), right=True, whole=exact)


def _cell(shown: str, sorts: str, *, right: bool = False, whole: str | None = None) -> str:
    title = whole if whole != shown else None
    cell = escaped(shown) or "\u2013"
    return element("td", cell, data_v=sorts, class_="n" if right else None, title=title)


def _is_numeric(leaderboard: Leaderboard, path: str) -> bool:
    there = [trial.params[path] for trial in leaderboard.trials if path in trial.params]
    return all(value is None or is_number(value) for value in there)


def _exact(value: Any) -> str:
    """A param's value to the last digit; text that could be something else is quoted."""
    if value is ABSENT:
        return ""
    if isinstance(value, str):
        plain = value.replace("_", "").replace("-", "").isalpha() and value.isascii()
        return value if plain and value not in ("none", "true", "false") else key_of(value)
    if value is None or isinstance(value, bool):
        return value_text(value)
    return repr(value) if is_number(value) else json.dumps(value)
