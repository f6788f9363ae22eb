"""CLAM's process list: a CSV of slides with the parameters of each, written out and taken back."""

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.slides.listing import read_table
from crane_ray.slides.params import TissueParams
from crane_ray.slides.workspace import SlideRow

STATUSES = {"ok": "processed", "no_tissue": "processed", "failed": "failed"}


def write_process_list(
    path: str, rows: Iterable[SlideRow], params: dict[str, TissueParams]
) -> None:
    """Writes one row a slide in CLAM's columns; ``process`` is 0 where nothing is left to do.

    A slide is named by its file's name, as CLAM does, or by its slide_id where several files
    have that name. Set ``process`` to 1 and change parameters in a row, and ``--process-list``
    runs just those slides again.
    """
    records = []
    rows = sorted(rows, key=lambda row: row.slide_id)
    num_named = Counter(Path(row.uri).name for row in rows)
    for row in rows:
        name = Path(row.uri).name
        status = "failed_seg" if "failed_seg" in row.reason else STATUSES[row.status]
        head = {
            "slide_id": name if name and num_named[name] == 1 else row.slide_id,
            "process": int(row.status == "failed"),
            "status": status,
        }
        records.append({**head, **params[row.slide_id].clam_row()})
    text = io.StringIO()
    columns = ["slide_id", "process", "status", *TissueParams().clam_row()]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    storage.put_bytes(path, text.getvalue().encode())


def read_process_list(path: str) -> dict[str, dict[str, Any]]:
    """The rows to process (``process`` 1 or no such column), by slide_id as written there.

    It may be a slide's id or its file's name: `find_row` tries both.

    Raises:
        ConfigError: it cannot be read, or lacks the slide_id column.
    """
    table = read_table(path)
    if "slide_id" not in table.columns:
        found = ", ".join(map(str, table.columns))
        raise ConfigError(f"--process-list {path}: needs the column slide_id; found: {found}")
    wanted: dict[str, dict[str, Any]] = {}
    for record in table.to_dict("records"):
        row = {str(key): value for key, value in record.items()}
        if str(row.get("process", "1")).strip() in {"1", "1.0", "True", "true", ""}:
            wanted[str(row["slide_id"])] = row
    return wanted


def find_row(wanted: dict[str, dict[str, Any]], slide_id: str, uri: str) -> dict[str, Any] | None:
    """The process list's row for a slide, named by id or by file name; None where it has none."""
    return wanted.get(slide_id) or wanted.get(Path(uri).name)
