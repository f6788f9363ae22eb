"""The command's entry point: what signals make of a verb, whichever it is."""

import os
import signal
import threading
from collections.abc import Iterator

import click
import pytest

from crane_ray.cli.main import call, cli

STOPPED = "stopped; what is committed stays"


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """The handler of SIGTERM is after a command what it was before."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    assert signal.getsignal(signal.SIGTERM) == before


def verb(monkeypatch: pytest.MonkeyPatch, *signals: int, status: int | None = None) -> list[str]:
    """Makes a verb that gets signals, the last while it puts things away; what it did."""
    log: list[str] = []

    @click.command()
    def command() -> int | None:
        try:
            os.kill(os.getpid(), signals[0])
            log.append("went on")
        except KeyboardInterrupt:
            log.append("interrupted")
            if status is None:
                raise
        finally:
            for number in signals[1:]:
                os.kill(os.getpid(), number)
            log.append("put away")
        return status

    monkeypatch.setattr(cli, "get_command", lambda ctx, name: command)
    return log


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_verb_is_stopped_by_either_signal(
    number: int,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = verb(monkeypatch, number)
    assert call(["patch"]) == expected
    assert log == ["interrupted", "put away"]
    assert STOPPED in capsys.readouterr().out


def test_what_stops_is_not_disturbed_by_another_termination(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray's jobs and Slurm send theirs to whole trees of processes, and shells hand them on."""
    log = verb(monkeypatch, signal.SIGTERM, signal.SIGTERM, signal.SIGTERM)
    assert call(["patch"]) == 143
    assert log == ["interrupted", "put away"]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_verbs_that_say_themselves_how_to_go_on_have_the_same_status(
    number: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    verb(monkeypatch, number, status=130)
    assert call(["patch"]) == expected


def test_a_verb_that_ends_well_all_the_same_has_its_own_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verb(monkeypatch, signal.SIGTERM, status=0)
    assert call(["patch"]) == 0


def test_a_command_may_run_in_another_thread() -> None:
    """Where Python allows no handlers."""
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(call(["--version"])))
    thread.start()
    thread.join()
    assert statuses == [0]
