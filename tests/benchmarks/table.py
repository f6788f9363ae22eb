"""The table of gates: its rows, what they were measured on, and how times are taken."""

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("ray", "torch", "numpy", "pyarrow", "zarr", "tifffile", "imagecodecs", "openslide-bin")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    quick: bool = False
    """Fewer patches and rounds: tries the scripts, and is too noisy for a verdict."""
    core: int = 0
    """What runs on one core is pinned to this one."""


@dataclass(frozen=True)
class Row:
    """One measurement beside its comparator and floor."""

    stage: str
    ours: float | None
    """None where it could not be measured here; the note says why."""
    unit: str
    gate: str = ""
    """What is demanded; empty where the row is for information."""
    met: bool | None = None
    comparator: float | None = None
    """The straightforward one-at-a-time way, in the same unit and run."""
    floor: float | None = None
    """What the hardware or the decoding library allows, in the same unit and run."""
    ratio: float | None = None
    """How many times better than the comparator."""
    note: str = ""

    @property
    def verdict(self) -> str:
        """In a word."""
        if self.ours is None:
            return "skipped" if self.met is None else "FAILED"
        return {True: "met", False: "MISSED", None: ""}[self.met]


@dataclass(frozen=True)
class Timing:
    """Seconds of several rounds of one way."""

    cpu_s: tuple[float, ...]
    wall_s: tuple[float, ...]

    @property
    def best_s(self) -> float:
        """The least CPU-seconds: what is left of a noisy machine."""
        return min(self.cpu_s)

    @property
    def median_s(self) -> float:
        """CPU-seconds of the middle round."""
        return statistics.median(self.cpu_s)


def interleaved(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Times of several ways, round by round, so that all of them meet the same noise."""
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began, cpu_began = time.perf_counter(), time.process_time()
            way()
            cpu[name].append(time.process_time() - cpu_began)
            wall[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(cpu[name]), tuple(wall[name])) for name in ways}


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """This thread, and those that it starts meanwhile, run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def in_process(module: str, *words: str) -> str:
    """What a module prints that is run in a process of its own: its memory is its own, too."""
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1]


def memory_mb(field: str = "VmHWM") -> float:
    """Of this process: its peak (``VmHWM``; rusage would count the parent's) or ``VmRSS``."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def environment() -> dict[str, str]:
    """The hardware and versions that figures belong to."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    lines = (line.split(":", 1) for line in cpu if ":" in line)
    fields = {name.strip(): value.strip() for name, value in lines}
    flags = {"avx2", "avx512f", "avx512_bf16", "amx_bf16"} & set(fields.get("flags", "").split())
    return {
        "cpu": f"{fields.get('model name', platform.machine())}, {os.cpu_count()} cores",
        "vector units": " ".join(sorted(flags)) or "unknown",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "gpu": _gpu(),
        "python": f"{platform.python_version()}, {platform.platform()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "load": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


def words(row: Row) -> str:
    """One line of the table."""
    return (
        f"{row.stage:46.46} {_figure(row.ours):>9} {_figure(row.comparator):>10} "
        f"{_figure(row.floor):>9} {row.unit:14.14} "
        f"{'' if row.ratio is None else f'{row.ratio:.1f}x':>7}  {row.gate:30.30} {row.verdict:8}"
        f"{row.note}"
    )


HEADING = (
    f"{'stage':46} {'ours':>9} {'comparator':>10} {'floor':>9} {'unit':14} {'ratio':>7}  "
    f"{'gate':30} verdict"
)


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
