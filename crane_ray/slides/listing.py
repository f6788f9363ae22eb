"""Which slides a cohort has: a folder, a glob, a single file, or a slide table."""

import glob
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Self

import pandas as pd

from crane_ray import storage
from crane_ray.errors import ConfigError

SUFFIXES = frozenset(
    [
        ".svs",
        ".tif",
        ".tiff",
        ".ndpi",
        ".vms",
        ".vmu",
        ".scn",
        ".mrxs",
        ".svslide",
        ".bif",
        ".dcm",
        ".czi",
        ".png",
        ".jpg",
        ".jpeg",
    ]
)
"""What a slide file's name may end in when a folder or glob is searched."""

TABLE_SUFFIXES = frozenset({".csv", ".parquet"})
FORBIDDEN_IN_IDS = frozenset("/\\\0")


@dataclass(frozen=True)
class Entry:
    """One slide of the cohort as listed; ``problem`` says why it cannot be used, if so."""

    slide_id: str
    uri: str
    case_id: str = ""
    mpp: float | None = None
    problem: str = ""

    def record(self) -> dict[str, Any]:
        """Its fields for an Arrow table, whose columns take no None among numbers: mpp is NaN."""
        return {**asdict(self), "mpp": math.nan if self.mpp is None else self.mpp}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The entry of such a record."""
        return cls(**{**record, "mpp": None if math.isnan(record["mpp"]) else record["mpp"]})


def list_slides(source: str, *, recursive: bool = False) -> list[Entry]:
    """The cohort's slides, sorted by slide_id, each id once.

    Args:
        source: a folder, a glob, one slide file, or a CSV or Parquet table with a ``uri`` column
            and optionally ``slide_id`` (else the file's name without its suffix), ``case_id``
            and ``mpp``; relative uris are taken from the table's folder. Each may be a URI.
        recursive: look into sub-folders of a folder, too.

    Returns:
        One entry a slide id. An id that stands for several files, or an impossible value in a
        row, is an entry with a problem: it costs that slide, not the run.

    Raises:
        ConfigError: nothing there, no slide in it, or a table without the needed column.
        StorageError: the storage cannot be asked.
    """
    if storage.is_uri(source):
        return _each_once(_from_uri(source.rstrip("/"), recursive=recursive))
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() in TABLE_SUFFIXES:
        entries = _from_table(str(path))
    elif path.is_file():
        entries = [_from_file(path)]
    elif path.is_dir():
        entries = _from_folder(path, recursive=recursive)
    elif glob.has_magic(source):
        entries = _from_glob(str(path))
    else:
        raise _nothing_there(source)
    return _each_once(entries)


def _nothing_there(source: str) -> ConfigError:
    return ConfigError(
        f"--slides {source}: no such file or folder; give a folder, a glob in quotes, "
        "or a CSV or Parquet table"
    )


def _from_uri(source: str, *, recursive: bool) -> list[Entry]:
    kind = storage.kind_of(source)
    if kind == "file" and _suffix(source) in TABLE_SUFFIXES:
        return _from_table(source)
    if kind == "file":
        return [_from_name(source)]
    if kind == "folder":
        files = storage.list_files(source, recursive=recursive)
        below = "" if recursive else " (its sub-folders are looked into with --recursive)"
        nothing = f"no slide file in it{below}; known endings: {' '.join(sorted(SUFFIXES))}"
    elif glob.has_magic(source):
        files = storage.glob(source)
        nothing = "the pattern matches no slide file"
    else:
        raise _nothing_there(source)
    found = [uri for uri in files if _suffix(uri) in SUFFIXES and not _is_hidden(uri)]
    if not found:
        raise ConfigError(f"--slides {source}: {nothing}")
    return [_from_name(uri) for uri in found]


def _from_name(uri: str) -> Entry:
    return Entry(slide_id=PurePosixPath(storage.name_of(uri)).stem, uri=uri)


def _suffix(path: str) -> str:
    return PurePosixPath(storage.name_of(path)).suffix.lower()


def _is_hidden(uri: str) -> bool:
    return storage.name_of(uri).startswith(".")


def _from_file(path: Path) -> Entry:
    return Entry(slide_id=path.stem, uri=storage.absolute(str(path)))


def _from_folder(folder: Path, *, recursive: bool) -> list[Entry]:
    found = _slide_files(folder.rglob("*") if recursive else folder.iterdir())
    if not found:
        below = "" if recursive else _hint_below(folder)
        known = " ".join(sorted(SUFFIXES))
        raise ConfigError(f"--slides {folder}: no slide file in it{below}; known endings: {known}")
    return [_from_file(path) for path in found]


def _hint_below(folder: Path) -> str:
    count = len(_slide_files(folder.rglob("*")))
    return f" ({count} in its sub-folders: add --recursive)" if count else ""


def _from_glob(pattern: str) -> list[Entry]:
    found = _slide_files(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207
    if not found:
        raise ConfigError(f"--slides {pattern}: the pattern matches no slide file")
    return [_from_file(path) for path in found]


def _slide_files(paths: Iterable[Path]) -> list[Path]:
    return sorted(
        path
        for path in paths
        if path.suffix.lower() in SUFFIXES and path.name[0] != "." and path.is_file()
    )


def _from_table(path: str) -> list[Entry]:
    table = read_table(path)
    if "uri" not in table.columns:
        raise ConfigError(
            f"--slides {path}: a slide table needs the column uri; found: "
            f"{', '.join(map(str, table.columns)) or 'none'} (optional: slide_id, case_id, mpp)"
        )
    if table.empty:
        raise ConfigError(f"--slides {path}: the table has no rows")
    records = table.to_dict("records")
    folder = path.rsplit("/", 1)[0]
    return [_from_record(record, folder, row) for row, record in enumerate(records, 2)]


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV or Parquet table; CSV cells stay text (``007`` is no number), empty ones are ''.

    Raises:
        ConfigError: it cannot be read as such a table.
    """
    data = io.BytesIO(storage.read_bytes(str(path)))
    try:
        if _suffix(str(path)) == ".parquet":
            return pd.read_parquet(data)
        return pd.read_csv(data, dtype=str, keep_default_na=False, skipinitialspace=True)
    except Exception as error:  # pandas and pyarrow raise many kinds for a broken table
        raise ConfigError(f"{path}: not a readable table: {error}") from error


def _from_record(record: dict[Any, Any], folder: str, row: int) -> Entry:
    uri = _text(record.get("uri"))
    if not uri:
        name = _text(record.get("slide_id")) or f"row-{row}"
        return Entry(name, "", problem=f"row {row} of the slide table has no uri")
    uri = _placed(uri, folder)
    slide_id = _text(record.get("slide_id")) or PurePosixPath(storage.name_of(uri)).stem
    entry = Entry(slide_id, uri, case_id=_text(record.get("case_id")))
    if FORBIDDEN_IN_IDS & set(slide_id) or slide_id.startswith("."):
        safe = "".join("_" if char in FORBIDDEN_IN_IDS else char for char in slide_id).lstrip(".")
        problem = (
            f"slide_id {slide_id!r} cannot name a file; slashes and leading dots are not allowed"
        )
        return replace(entry, slide_id=safe or f"row-{row}", problem=problem)
    text = _text(record.get("mpp"))
    try:
        mpp = float(text or "nan")  # "nan" is how pandas writes an empty cell
        return replace(entry, mpp=None if math.isnan(mpp) else mpp)
    except ValueError:
        return replace(entry, problem=f"mpp {text!r} in the slide table is no number (um/px)")


def _placed(uri: str, folder: str) -> str:
    """A row's uri; a relative one is taken from the table's folder, which may be a URI."""
    if storage.is_uri(uri):
        return uri
    path = Path(uri.removeprefix("file://")).expanduser()
    if storage.is_uri(folder) and not path.is_absolute():
        return storage.join(folder, path.as_posix())
    return storage.absolute(str(Path(folder) / path))


def _text(value: Any) -> str:
    return (
        ""
        if value is None or (isinstance(value, float) and math.isnan(value))
        else str(value).strip()
    )


def _each_once(entries: list[Entry]) -> list[Entry]:
    by_id: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        by_id[entry.slide_id].append(entry)
    once = []
    for slide_id, same in sorted(by_id.items()):
        files = sorted({entry.uri for entry in same})
        if len(same) == 1:
            once.append(same[0])
            continue
        several = "rename the files, or give a slide table with distinct slide_ids"
        step = several if len(files) > 1 else "list it once"
        problem = (
            f"slide_id {slide_id} stands for {len(same)} entries ({', '.join(files)}); none is "
            f"used: {step}"
        )
        once.append(replace(same[0], problem=problem))
    return once
