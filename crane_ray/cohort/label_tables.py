"""Label tables: CSV or Parquet in, columns of text out."""

import csv
import difflib
import io
import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from crane_ray import storage
from crane_ray.cohort.slide_ids import spelling_key, undo_floats
from crane_ray.errors import ConfigError

ID_COLUMNS = ("slide_id", "case_id")


@dataclass(frozen=True)
class LabelTable:
    """A table as text, and where it came from."""

    path: str
    rows: pd.DataFrame
    """Text without blanks at either end; '' for an empty cell. The index is the row's number in
    the file, the header being row 1."""

    def require(self, column: str, why: str) -> None:
        """Makes sure that there is a column.

        Raises:
            ConfigError: there is none; those there are and the nearest are named.
        """
        if column in self.rows.columns:
            return
        known = [str(name) for name in self.rows.columns]
        near = nearest(column, known)
        hint = f"; did you mean {near}?" if near else "."
        for sign, word in ((";", "semicolons"), ("\t", "tabs")):
            if len(known) == 1 and sign in known[0]:
                hint = f"; its columns are separated by {word}: save it with commas."
        raise ConfigError(
            f"table {self.path}: no column {column} ({why}){hint} Columns there: {', '.join(known)}"
        )


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is spelled most like this one, if any is near."""
    by_key = {spelling_key(name): name for name in known}
    near = difflib.get_close_matches(spelling_key(word), by_key, n=1)
    return by_key[near[0]] if near else None


def read_label_table(path: str) -> LabelTable:
    """The table in a CSV (UTF-8) or Parquet file, of a path or any URI.

    Numbers stay as they are written (``007``). Columns without a name are left out.

    Raises:
        ConfigError: it is missing, empty, not UTF-8, no such table, or lacks case_id or slide_id.
        StorageError: the storage fails.
    """
    kind = storage.kind_of(path)
    if kind != "file":
        what = "no such file; check --labels" if kind is None else "a folder"
        raise ConfigError(f"table {path}: {what}; a CSV or Parquet file is needed")
    data = storage.read_bytes(path)
    if not data.strip():
        raise ConfigError(f"table {path}: the file is empty; it needs the columns {_needed()}")
    is_parquet = path.lower().endswith((".parquet", ".pq"))
    rows = _from_parquet(path, data) if is_parquet else _from_csv(path, data)
    table = LabelTable(path, rows)
    for column in ID_COLUMNS:
        table.require(column, "every row needs one")
        rows[column] = undo_floats(rows[column].tolist())
    if rows.empty:
        raise ConfigError(f"table {path}: there is no row below the header")
    return table


def _from_csv(path: str, data: bytes) -> pd.DataFrame:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"table {path}: not UTF-8 text (byte 0x{data[error.start]:02x} in line {line}); save "
            "it as CSV UTF-8, or name a Parquet file .parquet"
        ) from error
    if "\0" in text:
        raise ConfigError(f"table {path}: not a text file (it holds NUL bytes); give a CSV")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        header = _header(path, next(reader))
        for number, cells in enumerate(reader, 2):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(header):
                raise ConfigError(
                    f"table {path}: row {number} has {len(cells)} cells, the header has "
                    f"{len(header)}; put a cell that holds a comma in quotes"
                )
            filled = [cell.strip() for cell in cells] + [""] * (len(header) - len(cells))
            rows.append(filled)
            numbers.append(number)
    except csv.Error as error:
        raise ConfigError(
            f"table {path}: not valid CSV at line {reader.line_num}: {error}"
        ) from error
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    cells_of = {name: columns[place] for place, name in enumerate(header) if name}
    return pd.DataFrame(cells_of, index=pd.Index(numbers, dtype="int64"), dtype=object)


def _from_parquet(path: str, data: bytes) -> pd.DataFrame:
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise ConfigError(f"table {path}: not a readable Parquet file: {reason}") from error
    header = _header(path, table.column_names)
    cells_of = {
        name: [_text(value) for value in column.to_pylist()]
        for name, column in zip(header, table.columns, strict=True)
        if name and not name.startswith("__index_level_")
    }
    numbers = pd.RangeIndex(2, 2 + len(table))
    return pd.DataFrame(cells_of, index=numbers, dtype=object)


def _header(path: str, names: list[str]) -> list[str]:
    header = [name.strip() for name in names]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise ConfigError(
            f"table {path}: column {', '.join(twice)} is there more than once; rename or drop one"
        )
    return header


def _text(value: object) -> str:
    is_gap = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if is_gap else str(value).strip()


def _needed() -> str:
    return "case_id, slide_id and those of the labels"
