"""A column of labels as class indices, and what is to be said about it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crane_ray.cohort.findings import Finding, counted
from crane_ray.cohort.label_tables import nearest
from crane_ray.cohort.slide_ids import spelling_key, whole_number
from crane_ray.cohort.tasks import MISSING, TaskSpec

EMPTY = frozenset({"", "nan", "na", "n/a", "#n/a", "<na>", "null", "nat"})
"""Cells that hold no label, whatever their case. Not "none": it is a diagnosis as often."""
MOST_SHOWN = 20


@dataclass(frozen=True)
class ReadLabels:
    """The labels of one task."""

    labels_S: npt.NDArray[np.int64]
    """(S,) class indices, MISSING where there is none."""
    findings: tuple[Finding, ...]
    problem: str = ""
    """What is wrong with labels outside the task's map; empty where there are none."""


class _Reader:
    """What a task makes of a cell, and what had to be changed for it."""

    def __init__(self, task: TaskSpec, *, normalise: bool) -> None:
        self.index = {name: place for place, name in enumerate(task.classes)}
        self.index |= {label: self.index[name] for label, name in task.aliases.items()}
        self.index |= dict.fromkeys(task.ignore, MISSING)
        self.normalise = normalise
        spelled: dict[str, set[int]] = {}
        for label, place in self.index.items():
            spelled.setdefault(spelling_key(label), set()).add(place)
        self._by_key = {key: label for label, key in map(_keyed, reversed(self.index))}
        self._clear = {key for key, places in spelled.items() if len(places) == 1}

    def variant_of(self, cell: str) -> str | None:
        """The one label of the map that a cell is another spelling of."""
        key = spelling_key(cell)
        return self._by_key[key] if key in self._clear else None

    def known_as(self, cell: str) -> str | None:
        """The label of the map that a cell stands for; '' for none given, None for unknown."""
        if cell in self.index:
            return cell
        if cell.casefold() in EMPTY:
            return ""
        whole = whole_number(cell)
        if whole in self.index:
            return whole
        return self.variant_of(cell) if self.normalise else None


def read_labels(cells: Sequence[str], task: TaskSpec, *, normalise: bool = False) -> ReadLabels:
    """The class index of each cell of a task's column.

    Args:
        cells: the column's text.
        task: the classes, aliases and labels to be ignored.
        normalise: take labels that differ from the map's in case, spaces, dashes and underscores
            alone.
    """
    reader = _Reader(task, normalise=normalise)
    found = Counter(cells)
    meaning = {cell: reader.known_as(cell) for cell in found}
    index = reader.index
    places = {cell: index[label] if label else MISSING for cell, label in meaning.items()}
    labels_S = np.array([places[cell] for cell in cells], dtype=np.int64)
    unknown = sorted(cell for cell, label in meaning.items() if label is None)
    problem = _problem(task, found, unknown, reader) if unknown else ""
    findings = [*_changed(task, found, meaning), *_masked(task, found, meaning)]
    if not problem:
        findings += _absent(task, labels_S)
    return ReadLabels(labels_S, tuple(findings), problem)


def _keyed(label: str) -> tuple[str, str]:
    return label, spelling_key(label)


def _problem(task: TaskSpec, found: Counter[str], unknown: list[str], reader: _Reader) -> str:
    rows = sum(found[cell] for cell in unknown)
    told = []
    for cell in unknown[:MOST_SHOWN]:
        near = reader.variant_of(cell) or nearest(cell, reader.index)
        told.append(f"{cell!r} ({found[cell]})" + (f", nearest {near!r}" if near else ""))
    more = f"; and {len(unknown) - MOST_SHOWN} others" if len(unknown) > MOST_SHOWN else ""
    fits = [cell for cell in unknown if reader.variant_of(cell) is not None]
    expected = ", ".join(repr(label) for label in reader.index)
    step = "Mend the table, or give aliases or ignore in the task's YAML."
    if fits:
        which = "them" if len(fits) == len(unknown) else ", ".join(map(repr, fits))
        step = f"--normalise-labels accepts {which}; else mend the table, or give aliases or ignore"
    known = [f"{cell!r} ({number})" for cell, number in found.most_common() if cell in reader.index]
    also = f" Found besides: {', '.join(known[:MOST_SHOWN])}." if known else ""
    return (
        f"task {task.name}, column {task.column}: {counted(rows, 'row')} of {found.total():,} with "
        f"labels outside its map: {'; '.join(told)}{more}. Expected: {expected}.{also} {step}"
    )


def _changed(task: TaskSpec, found: Counter[str], meaning: dict[str, str | None]) -> list[Finding]:
    changed = sorted(cell for cell, label in meaning.items() if label and label != cell)
    if not changed:
        return []
    told = ", ".join(f"{cell!r} -> {meaning[cell]!r} ({found[cell]})" for cell in changed)
    rows = sum(found[cell] for cell in changed)
    return [
        Finding(
            "note",
            "normalised_labels",
            f"task {task.name}: {counted(rows, 'label')} read in another spelling: {told}",
            tuple(changed),
        )
    ]


def _masked(task: TaskSpec, found: Counter[str], meaning: dict[str, str | None]) -> list[Finding]:
    empty = sum(found[cell] for cell, label in meaning.items() if label == "")
    ignored = {
        cell: found[cell] for cell, label in meaning.items() if label and label in task.ignore
    }
    reasons = [f"{empty:,} empty"] if empty else []
    reasons += [f"{number:,} ignored {cell!r}" for cell, number in sorted(ignored.items())]
    if not reasons:
        return []
    rows = empty + sum(ignored.values())
    return [
        Finding(
            "note",
            "masked_labels",
            f"task {task.name}: {counted(rows, 'slide')} of {found.total():,} without a label "
            f"({', '.join(reasons)}); they are masked in this task",
        )
    ]


def _absent(task: TaskSpec, labels_S: npt.NDArray[np.int64]) -> list[Finding]:
    there = set(labels_S.tolist())
    absent = tuple(name for place, name in enumerate(task.classes) if place not in there)
    if not absent:
        return []
    return [
        Finding(
            "warning",
            "absent_classes",
            f"task {task.name}: no slide has the label {', '.join(absent)}; what is trained on "
            "this table cannot know it",
            absent,
        )
    ]
