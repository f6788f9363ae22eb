"""What the Ray tests share: commands as a user runs them, and waiting for an observed event."""

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from crane_ray.features.ledger import Receipt
from crane_ray.features.store import FeatureStore

LONG = pytest.mark.skipif(
    not os.environ.get("CRANE_TEST_LONG"), reason="takes minutes: CRANE_TEST_LONG=1"
)
PLUGINS = Path(__file__).resolve().parents[1] / "plugins"
ROOT = Path(__file__).resolve().parents[2]
QUIET_PORTS = range(20_000, 32_768)
SLOW = "crane_test_plugins.slow_colour"


def command(*words: str, **environment: str) -> subprocess.Popen[str]:
    """``crane-ray WORDS`` in a process of its own, its output captured."""
    env = {**os.environ, "PYTHONPATH": str(PLUGINS), "COLUMNS": "200", **environment}
    return subprocess.Popen(
        [sys.executable, "-m", "crane_ray", *words],
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 240) -> tuple[int, str]:
    """Exit status and output of a command."""
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        output += f"\nkilled by the test after {timeout_s} s"
    return process.returncode, output


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
    """Returns once the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.05)


def receipts(root: str) -> list[Receipt]:
    """Every receipt that is in force in a store's ledger; none where there is no store yet."""
    if not Path(root, "store.json").exists():
        return []
    ledger = FeatureStore.open(root).ledger
    return [receipt for _, shards in ledger.slides() for receipt in shards.values()]


def tree_digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every file beneath a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, and that nobody is given before they are used.

    Below are those of Ray's workers, above those that the kernel gives to any connection: a port of
    these may be gone seconds after it was seen to be free.
    """
    found: list[int] = []
    for port in random.sample(QUIET_PORTS, len(QUIET_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError(f"no {count} free ports in {QUIET_PORTS}")


def processes_below(process: int) -> list[tuple[int, str]]:
    """All that descend from a process: their ids, and what they say that they do."""
    words = ["ps", "-axo", "pid=,ppid=,args="]
    rows = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    table = [row.split(None, 2) for row in rows]
    below = {process}
    for _ in range(4):  # a raylet's workers are its children's children at most
        below |= {int(pid) for pid, parent, _ in table if int(parent) in below}
    return [(int(pid), what) for pid, _, what in table if int(pid) in below]


def kill_one(doing: str) -> None:
    """Kills a worker of this session's Ray that does something now."""
    there = processes_below(os.getpid())
    found = [pid for pid, what in there if what.startswith(doing)]
    assert found, there
    os.kill(found[-1], signal.SIGKILL)
