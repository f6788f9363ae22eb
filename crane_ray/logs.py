"""Log records as lines of JSON that say which run and which slide they are about.

Plain Python: code that works on a slide says so once (`about`), and every record that is made
meanwhile in that thread carries it, those of libraries too. Nothing happens until somebody asks for
JSON (`write_json`); the records' words are the same without.
"""

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, Literal, TextIO

LogLevel = Literal["debug", "info", "warning", "error"]
Fields = Mapping[str, Any]


class _Process:
    """What records of every thread carry; replaced, never changed, since threads read it."""

    fields: Fields = MappingProxyType({})


_process = _Process()
_of_context: ContextVar[Fields] = ContextVar("crane_ray_log_fields", default={})  # noqa: B039
_USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that any record has; others came with ``extra``."""


@contextmanager
def about(**fields: Any) -> Iterator[None]:
    """Records of this thread carry these fields, such as ``slide_id``, while the block runs."""
    token = _of_context.set({**_of_context.get(), **fields})
    try:
        yield
    finally:
        _of_context.reset(token)


@contextmanager
def in_run(**fields: Any) -> Iterator[None]:
    """Records of every thread carry these fields, such as ``run_id``, while the block runs."""
    before = _process.fields
    stay_in_run(**fields)
    try:
        yield
    finally:
        _process.fields = before


def stay_in_run(**fields: Any) -> None:
    """Records of every thread carry these fields from now on."""
    _process.fields = {**_process.fields, **fields}


def run_fields() -> dict[str, Any]:
    """What records of the whole process carry now, to be handed to workers."""
    return dict(_process.fields)


class JsonFormatter(logging.Formatter):
    """One JSON object a record, in a line; fields of the record's own come last and win."""

    def __init__(self, more: Callable[[], Fields] = dict) -> None:
        super().__init__()
        self._more = more

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            **self._more(),
            **_process.fields,
            **_of_context.get(),
            **_own(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return json.dumps(line, default=str, ensure_ascii=False, allow_nan=False)
        except ValueError:  # nan or inf, which are no JSON
            return json.dumps(_finite(line), default=str, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _own(record: logging.LogRecord) -> dict[str, Any]:
    items = vars(record).items()  # Ray adds a time of its own, with an underscore before it
    return {key: value for key, value in items if key not in _USUAL and not key.startswith("_")}


class JsonHandler(logging.StreamHandler[TextIO]):
    """What `write_json` puts in place."""


def write_json(
    stream: TextIO,
    level: LogLevel,
    *,
    fields: Fields | None = None,
    more: Callable[[], Fields] = dict,
) -> None:
    """All log records of this process, its warnings and its last words go to a stream as JSON.

    Args:
        stream: where to, in place of the root logger's handlers so far.
        level: records below it are left out.
        fields: of every record.
        more: asked for further fields at each record.
    """
    stay_in_run(**(fields or {}))
    handler = JsonHandler(stream)
    handler.setFormatter(JsonFormatter(more))
    root = logging.getLogger()
    for other in root.handlers[:]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.captureWarnings(capture=True)
    sys.excepthook = _last_words


def is_json() -> bool:
    """True where this process writes its records as JSON."""
    return any(isinstance(one, JsonHandler) for one in logging.getLogger().handlers)


def _last_words(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger(__name__).critical("ended by %s", error, exc_info=(kind, error, trace))
