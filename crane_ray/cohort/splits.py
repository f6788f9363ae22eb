"""Split files, as CLAM and CRANE keep them: three CSV files a fold.

======================== =========================================================================
splits_{i}.csv           unnamed index; columns train, val, test of slide ids, ragged
splits_{i}_bool.csv      a row a slide of train, val and test in this order; True in its part
splits_{i}_descriptor.csv  slides of each class (rows) in each part
======================== =========================================================================
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from crane_ray import storage
from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.drawing import PARTS, Part
from crane_ray.cohort.slide_ids import bare_slide_id, undo_floats
from crane_ray.errors import ConfigError

SPLIT_FILE = re.compile(r"splits_(\d+)(_bool|_descriptor)?\.csv")


@dataclass(frozen=True)
class Split:
    """The slides of one fold's parts, without a file's extension."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def part(self, name: Part) -> tuple[str, ...]:
        """The slides of train, val or test."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]


def read_splits(folder: str, folds: Iterable[int] | None = None) -> dict[int, Split]:
    """The splits in a folder (or at a URI), by fold, in order.

    Reads ``splits_{i}.csv``, and ``splits_{i}_bool.csv`` of folds that have no other.

    Args:
        folder: where they are.
        folds: just these; all that there are where not given.

    Raises:
        ConfigError: there are none, a fold is missing, or a file is not laid out like that.
        StorageError: the storage fails.
    """
    files: dict[int, str] = {}
    for path in storage.list_files(folder, ".csv"):
        name = SPLIT_FILE.fullmatch(storage.name_of(path))
        if name and name[2] != "_descriptor" and (not name[2] or int(name[1]) not in files):
            files[int(name[1])] = path
    if not files:
        raise ConfigError(
            f"splits {folder}: no splits_0.csv, splits_1.csv, ... there; give the folder that "
            "holds them (crane-ray splits makes them)"
        )
    wanted = sorted(files) if folds is None else sorted(set(folds))
    missing = [str(fold) for fold in wanted if fold not in files]
    if missing:
        there = ", ".join(map(str, sorted(files)))
        raise ConfigError(
            f"splits {folder}: no splits_{missing[0]}.csv (folds there: {there}); "
            "draw more folds, or ask for fewer"
        )
    return {fold: _read(files[fold]) for fold in wanted}


def write_splits(folder: str, splits: Mapping[int, Split], cohort: Cohort) -> None:
    """Writes the three files of each fold; see the module for what is in them.

    Args:
        folder: where; a URI is as good.
        splits: by fold.
        cohort: has the labels that the descriptor counts.

    Raises:
        StorageError: they cannot be written.
    """
    for name, text in split_files(splits, cohort).items():
        storage.put_bytes(storage.join(folder, name), text.encode(), durable=True)


def split_files(splits: Mapping[int, Split], cohort: Cohort) -> dict[str, str]:
    """Name and content of each file that `write_splits` writes."""
    files = {}
    for fold, split in splits.items():
        files[f"splits_{fold}.csv"] = _csv(_ragged(split))
        files[f"splits_{fold}_bool.csv"] = _csv(_bools(split))
        files[f"splits_{fold}_descriptor.csv"] = _csv(_counts(split, cohort))
    return files


def _ragged(split: Split) -> Iterator[list[str]]:
    columns = zip_longest(*(split.part(part) for part in PARTS), fillvalue="")
    return ([str(row), *cells] for row, cells in enumerate(columns))


def _bools(split: Split) -> Iterator[list[str]]:
    for own in PARTS:
        flags = [str(part == own) for part in PARTS]
        yield from ([slide, *flags] for slide in split.part(own))


def _counts(split: Split, cohort: Cohort) -> Iterator[list[str]]:
    """A row a class; of several tasks, ``task: class``."""
    row_of = {slide: row for row, slide in enumerate(cohort.slide_ids)}
    labels = {
        part: cohort.labels_ST[[row_of[slide] for slide in split.part(part) if slide in row_of]]
        for part in PARTS
    }
    tasks = cohort.task_set.tasks
    for place, task in enumerate(tasks):
        for index, name in enumerate(task.classes):
            counts = [str(np.count_nonzero(labels[part][:, place] == index)) for part in PARTS]
            yield [name if len(tasks) == 1 else f"{task.name}: {name}", *counts]


def _csv(rows: Iterable[list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["", *PARTS])
    writer.writerows(rows)
    return text.getvalue()


def _read(path: str) -> Split:
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
        header, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ConfigError(
            f"split {path}: not a readable CSV file ({error or 'it is empty'}); it needs the "
            "columns train, val, test"
        ) from error
    header = [name.strip() for name in header]
    missing = [part for part in PARTS if part not in header]
    if missing:
        raise ConfigError(
            f"split {path}: no column {', '.join(missing)}; a split has the columns train, val and "
            f"test; found: {', '.join(filter(None, header)) or 'none'}"
        )
    columns = {part: _column(rows, header.index(part)) for part in PARTS}
    if path.endswith("_bool.csv"):
        slides = undo_floats(_column(rows, 0))
        columns = {part: _chosen(path, slides, flags) for part, flags in columns.items()}
    bare = {
        part: tuple(bare_slide_id(slide) for slide in undo_floats(cells) if slide)
        for part, cells in columns.items()
    }
    return Split(bare["train"], bare["val"], bare["test"])


def _column(rows: Iterable[list[str]], place: int) -> list[str]:
    return [row[place].strip() if place < len(row) else "" for row in rows if row]


def _chosen(path: str, slides: list[str], flags: list[str]) -> list[str]:
    odd = sorted({flag for flag in flags if flag.casefold() not in {"true", "false"}})
    if odd:
        raise ConfigError(f"split {path}: cells are True or False, not {odd[0]!r}; mend the file")
    pairs = zip(slides, flags, strict=True)
    return [slide for slide, flag in pairs if flag.casefold() == "true"]
