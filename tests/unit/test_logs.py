"""Records as lines of JSON: what they carry, from which threads, and that each is a line."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from crane_ray.logs import JsonFormatter, about, in_run, is_json, run_fields, write_json

log = logging.getLogger("tests.logs")


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What this process writes as JSON; all is as before afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level, filters = root.handlers[:], root.level, warnings.filters[:]
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with in_run():
        yield stream
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    warnings.filters[:] = filters  # type: ignore[index]


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_records_carry_what_they_are_about_and_no_longer(stream: io.StringIO) -> None:
    write_json(stream, "info")
    with about(slide_id="a"):
        with about(shard=1):
            log.info("inner")
        log.info("outer")
        with pytest.raises(ValueError), about(slide_id="b"):
            raise ValueError
        log.info("after")
    log.info("none")
    inner, outer, after, none = lines(stream)
    assert (inner["slide_id"], inner["shard"]) == ("a", 1)
    assert outer["slide_id"] == after["slide_id"] == "a"
    assert "shard" not in outer
    assert "slide_id" not in none
    assert inner["message"] == "inner"
    assert (inner["level"], inner["logger"]) == ("info", "tests.logs")


def test_threads_know_the_run_and_not_each_others_slides(stream: io.StringIO) -> None:
    write_json(stream, "info", fields={"verb": "extract"})
    barrier = threading.Barrier(2)

    def work(slide_id: str) -> None:
        with about(slide_id=slide_id):
            barrier.wait(10)
            log.info(slide_id)
            barrier.wait(10)

    with in_run(run_id="r"):
        threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run_fields()["run_id"] == "r"
    log.info("after")
    *both, after = lines(stream)
    assert {one["message"]: one["slide_id"] for one in both} == {"a": "a", "b": "b"}
    assert {one["run_id"] for one in both} == {"r"}
    assert after["verb"] == "extract"
    assert "run_id" not in after


def test_a_records_own_fields_win_and_anything_fits_in_a_line(stream: io.StringIO) -> None:
    write_json(stream, "debug", more=lambda: {"node_id": "n", "slide_id": "of the node"})
    with about(slide_id="outer"):
        log.debug("two\nlines é %s", "x", extra={"slide_id": "own", "path": io, "_hidden": 1})
        try:
            raise OSError("away")
        except OSError:
            log.exception("failed")
    own, failed = lines(stream)
    assert own["slide_id"] == "own"
    assert own["node_id"] == "n"
    assert own["message"] == "two\nlines é x"
    assert "module" in own["path"]
    assert "_hidden" not in own
    assert failed["slide_id"] == "outer"
    assert "OSError: away" in failed["exception"]


def test_numbers_that_json_does_not_have_cost_no_line() -> None:
    record = logging.makeLogRecord({"msg": "loss", "loss": float("nan"), "far": [float("inf")]})
    found = json.loads(JsonFormatter().format(record), parse_constant=pytest.fail)
    assert (found["loss"], found["far"]) == ("nan", ["inf"])


def test_warnings_last_words_and_levels(stream: io.StringIO) -> None:
    assert not is_json()
    write_json(stream, "warning")
    assert is_json()
    log.info("left out")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    sys.excepthook(ValueError, ValueError("the end"), None)
    warned, ended = lines(stream)
    assert "old" in warned["message"]
    assert ended["level"] == "critical"
    assert "ValueError: the end" in ended["exception"]
