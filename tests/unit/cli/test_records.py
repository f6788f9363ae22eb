"""The command line where programs read it: each line a record."""

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from crane_ray.cli import console as console_module
from crane_ray.cli.options import load_job
from crane_ray.cli.records import RecordReporter, log_summary, speak_json
from crane_ray.logs import JsonHandler, in_run, is_json, write_json
from crane_ray.runtime.jobs import PatchJob
from crane_ray.runtime.reporting import Summary


class Said:
    """What the command said so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.text = ""

    def lines(self) -> list[dict[str, Any]]:
        self.text += self._capsys.readouterr().out
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Said]:
    """The console and the log are as before afterwards."""
    root, file = logging.getLogger(), console_module.console._file
    handlers, level = root.handlers[:], root.level
    monkeypatch.setattr("sys.excepthook", lambda *error: None)
    with in_run():
        yield Said(capsys)
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    console_module.console._file = file


def test_what_is_printed_for_people_comes_as_records(said: Said) -> None:
    speak_json("info")
    table = Table(title="[bold]rows")
    table.add_column("name")
    table.add_row("a")
    console_module.console.print(table)
    console_module.console.print("[red]two\nlines[/]")
    found = said.lines()
    assert {one["event"] for one in found} == {"text"}
    assert [one["message"] for one in found][-2:] == ["two", "lines"]
    assert "rows" in found[0]["message"]
    assert "\x1b" not in said.text


def test_a_stage_says_how_far_it_is(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    speak_json("info")
    reporter = console_module.make_reporter()
    assert isinstance(reporter, RecordReporter)
    reporter.begin("patching", slides=3, patches=100)
    monkeypatch.setattr(console_module, "LINE_EVERY_S", 0.0)
    reporter.advance(slides=1, patches=50, failures=1)  # not yet: the first line is due later
    reporter.failure("s 1", "cut short")
    reporter.note("a word")
    reporter.limit("decoding is the limit")
    reporter.end()
    reporter.end()
    begin, failure, note, end = said.lines()
    assert (begin["event"], begin["of_slides"], begin["of_patches"]) == ("begin", 3, 100)
    assert (failure["slide_id"], failure["reason"], failure["level"]) == (
        "s 1", "cut short", "error",
    )  # fmt: skip
    assert (note["event"], note["message"]) == ("note", "a word")
    assert (end["event"], end["slides"], end["patches"], end["failures"]) == ("stage_end", 1, 50, 1)
    assert end["limit"] == "decoding is the limit"
    assert end["stage"] == "patching"


def test_progress_is_said_now_and_then(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_module, "LINE_EVERY_S", 0.0)
    speak_json("info")
    reporter = RecordReporter()
    reporter.begin("extracting", slides=2, patches=10)
    reporter.advance(patches=5)
    assert said.lines()[-1]["event"] == "progress"
    assert said.lines()[-1]["patches_per_s"] > 0


def test_the_end_names_the_run_and_the_slides_that_are_left_out(said: Said) -> None:
    speak_json("info")
    summary = Summary("patch", "work", done=2, manifest="work/manifests/r1.json")
    summary.leave_out("a", "cut short")
    summary.leave_out("b", "white", "no_tissue")
    log_summary(summary)
    failed, without, end = said.lines()
    assert (failed["slide_id"], failed["status"], failed["level"]) == ("a", "failed", "error")
    assert (without["slide_id"], without["level"]) == ("b", "info")
    assert {one["run_id"] for one in (failed, without, end)} == {"r1"}
    assert (end["event"], end["done"], end["failed"], end["no_tissue"]) == ("end", 2, 1, 1)


def test_a_job_that_runs_elsewhere_leaves_this_process_as_it_is(said: Said, tmp_path: Path) -> None:
    options = {"slides": str(tmp_path), "work": str(tmp_path), "log_format": "json"}
    assert load_job(PatchJob, options, runs_here=False).cluster.log_format == "json"
    assert not is_json()
    load_job(PatchJob, options)
    assert is_json()


def test_an_error_is_a_record_once_the_config_is_known(said: Said, tmp_path: Path) -> None:
    words = ["patch", "--slides", str(tmp_path / "none"), "--work", str(tmp_path / "work")]
    from crane_ray.cli.main import call

    assert call([*words, "--log-format", "json"]) == 2
    (error,) = said.lines()
    assert (error["event"], error["level"]) == ("error", "error")
    assert "none" in error["message"]


def test_levels_leave_records_out(said: Said) -> None:
    write_json(sys.stdout, "error")
    assert sum(isinstance(one, JsonHandler) for one in logging.getLogger().handlers) == 1
    reporter = RecordReporter()
    reporter.begin("patching", slides=1)
    reporter.failure("a", "cut short")
    assert [one["event"] for one in said.lines()] == ["failure"]
