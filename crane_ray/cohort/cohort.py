"""A cohort: slides, whose they are, and their labels.

Shapes: S slides, T tasks, C cases.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from crane_ray.cohort.case_checks import conflicting_labels, two_spellings
from crane_ray.cohort.findings import Finding, counted, some
from crane_ray.cohort.label_tables import ID_COLUMNS, LabelTable, read_label_table
from crane_ray.cohort.labels import read_labels
from crane_ray.cohort.slide_ids import bare_slide_id, spelling_key, whole_number
from crane_ray.cohort.tasks import MISSING, TaskSet
from crane_ray.errors import ConfigError

Labels = npt.NDArray[np.int64]
CaseLabel = Literal["max", "majority"]
FIRST_COLUMNS = ("slide_id", "case_id", "source")


@dataclass(frozen=True, eq=False)
class Cohort:
    """The labelled slides of a table, in its order."""

    task_set: TaskSet
    table: pd.DataFrame
    """slide_id (without a file's extension), case_id, source ('' where there is none), then the
    table's other columns as text; rows numbered from 0."""
    labels_ST: Labels
    """(S, T) class indices, MISSING where a slide has no label for a task."""
    findings: tuple[Finding, ...] = ()

    @cached_property
    def slide_ids(self) -> tuple[str, ...]:
        """The slides."""
        return tuple(self.table["slide_id"].tolist())

    @cached_property
    def case_ids(self) -> tuple[str, ...]:
        """The case of each slide."""
        return tuple(self.table["case_id"].tolist())

    def subset(self, slide_ids: Iterable[str]) -> "Cohort":
        """The cohort of some of its slides, in the table's order; others are no part of it."""
        wanted = {bare_slide_id(slide) for slide in slide_ids} | set(slide_ids)
        return self._rows(np.array([slide in wanted for slide in self.slide_ids], dtype=bool))

    def case_slides(self) -> dict[str, tuple[str, ...]]:
        """The slides of each case: cases sorted, slides in the table's order."""
        slides: dict[str, list[str]] = {case: [] for case in sorted(set(self.case_ids))}
        for slide, case in zip(self.slide_ids, self.case_ids, strict=True):
            slides[case].append(slide)
        return {case: tuple(own) for case, own in slides.items()}

    def case_labels(self, how: CaseLabel = "max") -> tuple[tuple[str, ...], Labels]:
        """The cases, sorted, and their (C, T) labels.

        Args:
            how: of a case's slides that have a label, the ``max`` of the class indices, or the
                ``majority`` (the lower class of a tie).
        """
        rows: dict[str, list[int]] = {case: [] for case in sorted(set(self.case_ids))}
        for row, case in enumerate(self.case_ids):
            rows[case].append(row)
        merge = _greatest if how == "max" else _most_frequent
        labels = [merge(self.labels_ST[own]) for own in rows.values()]
        shape = (len(rows), self.labels_ST.shape[1])
        return tuple(rows), np.array(labels, dtype=np.int64).reshape(shape)

    def _rows(self, keep_S: npt.NDArray[np.bool_]) -> "Cohort":
        table = self.table[keep_S].reset_index(drop=True)
        return Cohort(self.task_set, table, self.labels_ST[keep_S], self.findings)


def read_cohort(path: str, task_set: TaskSet, *, normalise: bool = False) -> Cohort:
    """The labelled slides of a CSV or Parquet table.

    Slides without a label for any of the tasks are left out; the findings name them.

    Args:
        path: the table, of a path or any URI: case_id, slide_id, the tasks' columns, optionally
            source, and whatever else.
        task_set: the tasks, and the rows that take part.
        normalise: take labels that differ from the map's in case, spaces, dashes and underscores
            alone; a finding says which.

    Raises:
        ConfigError: the file is no such table, a column is missing, a row lacks its ids, a slide
            is there twice, a label is outside its task's map, or nothing is left.
        StorageError: the storage fails.
    """
    table = read_label_table(path)
    for task in task_set.tasks:
        table.require(task.column, f"labels of task {task.name}")
    kept, findings = _filtered(table, task_set)
    kept = _arranged(path, kept)
    columns = [
        read_labels(kept[task.column].tolist(), task, normalise=normalise)
        for task in task_set.tasks
    ]
    problems = [column.problem for column in columns if column.problem]
    if problems:
        raise ConfigError("\n  ".join([f"table {path}:", *problems]))
    findings += [finding for column in columns for finding in column.findings]
    labels_ST = np.stack([column.labels_S for column in columns], axis=1)
    whole = Cohort(task_set, kept.reset_index(drop=True), labels_ST)
    cohort, dropped = _drop_unlabelled(path, whole)
    findings += dropped
    findings += two_spellings(cohort.case_ids)
    findings += conflicting_labels(task_set, cohort.case_ids, cohort.labels_ST)
    return replace(cohort, findings=tuple(findings))


def read_cases(path: str, task_set: TaskSet) -> Cohort:
    """The slides of a table without a look at their labels: a cohort that is yet to be diagnosed.

    Args:
        path: CSV or Parquet table with case_id and slide_id.
        task_set: the tasks; every label is MISSING.

    Raises:
        ConfigError: the file is no such table, a row lacks its ids, or a slide is there twice.
        StorageError: the storage fails.
    """
    return make_cases(path, read_label_table(path).rows, task_set)


def make_cases(path: str, rows: pd.DataFrame, task_set: TaskSet) -> Cohort:
    """As `read_cases`, of rows that are at hand: case_id and slide_id as text.

    Args:
        path: where they are from, for messages.
        rows: the index is the row's number there.
        task_set: the tasks; every label is MISSING.

    Raises:
        ConfigError: a row lacks its ids, or a slide is there twice.
    """
    arranged = _arranged(path, rows).reset_index(drop=True)
    labels_ST = np.full((len(arranged), len(task_set.tasks)), MISSING, dtype=np.int64)
    findings = two_spellings(arranged["case_id"].tolist())
    return Cohort(task_set, arranged, labels_ST, tuple(findings))


def with_features(cohort: Cohort, feature_ids: Iterable[str]) -> Cohort:
    """The slides of a cohort that have features; those that lack them are a finding.

    Args:
        cohort: the labelled slides.
        feature_ids: ids of the slides that there are features of, with or without extension.

    Raises:
        ConfigError: no slide has any.
    """
    given = list(feature_ids)
    there = {bare_slide_id(slide) for slide in given}
    keep_S = np.array([slide in there for slide in cohort.slide_ids], dtype=bool)
    if not keep_S.any():
        raise ConfigError(_no_overlap(cohort, given))
    findings = list(cohort.findings)
    without = [slide for slide in cohort.slide_ids if slide not in there]
    if without:
        findings.append(_without_features(cohort, without, there))
    unused = sorted(there.difference(cohort.slide_ids))
    if unused:
        lacks = "but without a label" if (cohort.labels_ST != MISSING).any() else "beside the table"
        findings.append(
            Finding(
                "note",
                "features_without_label",
                f"{counted(len(unused), 'slide')} with features {lacks} "
                f"({some(unused)}); they take no part",
                tuple(unused),
            )
        )
    return replace(cohort._rows(keep_S), findings=tuple(findings))


def _filtered(table: LabelTable, task_set: TaskSet) -> tuple[pd.DataFrame, list[Finding]]:
    rows, findings = table.rows, list[Finding]()
    for column, values in task_set.filter.items():
        table.require(column, f"filter of task set {task_set.name}")
        cells = [cell if cell in values else whole_number(cell) for cell in rows[column]]
        keep = [cell in values for cell in cells]
        if not any(keep):
            found = ", ".join(
                f"{cell!r} ({number})" for cell, number in Counter(cells).most_common(20)
            )
            raise ConfigError(
                f"table {table.path}: the filter of task set {task_set.name} leaves no row: "
                f"{column} should be {' or '.join(map(repr, values))}; found: {found}"
            )
        left_out = len(keep) - sum(keep)
        if left_out:
            findings.append(
                Finding(
                    "note",
                    "filtered",
                    f"filter {column} = {' or '.join(values)}: {counted(left_out, 'row')} of "
                    f"{len(keep):,} take no part",
                )
            )
        rows = rows[keep]
    return rows, findings


def _arranged(path: str, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with bare slide ids and the first columns first; every row has its ids, once."""
    for column in ID_COLUMNS:
        empty = [str(row) for row, cell in rows[column].items() if not cell]
        if empty:
            raise ConfigError(
                f"table {path}: no {column} in row {some(empty, 10)} (the header is row 1); every "
                "row needs one: fill it in, or delete the row"
            )
    spelled: dict[str, list[str]] = {}
    for row, slide in rows["slide_id"].items():
        spelled.setdefault(bare_slide_id(slide), []).append(f"{slide} in row {row}")
    twice = [", ".join(places) for places in spelled.values() if len(places) > 1]
    if twice:
        raise ConfigError(
            f"table {path}: {counted(len(twice), 'slide')} there more than once: "
            f"{some(twice, 5)}; keep one row a slide (extensions do not tell slides apart)"
        )
    others = [column for column in rows.columns if column not in FIRST_COLUMNS]
    source = rows["source"] if "source" in rows.columns else ""
    bare = rows.assign(slide_id=list(spelled), source=source)
    return bare[[*FIRST_COLUMNS, *others]]


def _drop_unlabelled(path: str, cohort: Cohort) -> tuple[Cohort, list[Finding]]:
    has_label_S = (cohort.labels_ST != MISSING).any(axis=1)
    if not has_label_S.any():
        columns = ", ".join(task.column for task in cohort.task_set.tasks)
        raise ConfigError(
            f"table {path}: none of its {len(has_label_S):,} rows that take part has a label in "
            f"{columns}; fill them in, or check --task"
        )
    if has_label_S.all():
        return cohort, []
    names = [slide for slide, has in zip(cohort.slide_ids, has_label_S, strict=True) if not has]
    finding = Finding(
        "warning",
        "unlabelled",
        f"{counted(len(names), 'slide')} of {len(has_label_S):,} without a label for any task "
        f"({some(names)}); left out",
        tuple(names),
    )
    return cohort._rows(has_label_S), [finding]


def _without_features(cohort: Cohort, without: Sequence[str], there: set[str]) -> Finding:
    by_key = {spelling_key(slide): slide for slide in sorted(there)}
    near = [(slide, by_key[key]) for slide in without if (key := spelling_key(slide)) in by_key]
    hint = f"; {near[0][0]} may be {near[0][1]} of the features: mend one spelling" if near else ""
    return Finding(
        "warning",
        "without_features",
        f"{counted(len(without), 'slide')} of {len(cohort.slide_ids):,} without features "
        f"({some(without)}); left out{hint}, or extract theirs",
        tuple(without),
    )


def _no_overlap(cohort: Cohort, given: Sequence[str]) -> str:
    if not given:
        return "features: there are none of any slide; run crane-ray extract first"
    return (
        f"features: none of the {len(cohort.slide_ids):,} labelled slides is among the "
        f"{len(given):,} slides with features: the table says {cohort.slide_ids[0]!r}, the "
        f"features {min(given)!r}; make both spell slides alike (extensions do not matter)"
    )


def _greatest(labels_NT: Labels) -> Labels:
    return np.asarray(labels_NT.max(axis=0))  # MISSING is less than any class


def _most_frequent(labels_NT: Labels) -> Labels:
    """Of each column the most frequent class, the lowest of a tie; MISSING where there is none."""
    columns = [column[column != MISSING] for column in labels_NT.T]
    return np.array([np.bincount(own).argmax() if own.size else MISSING for own in columns])
