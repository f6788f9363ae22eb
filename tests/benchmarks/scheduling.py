"""One driver of 100 to 1,000 nodes, in virtual time: its CPU, its memory, and what work it loses.

The driver's own code runs on a simulated cluster (tests/simulation), each time in a process of its
own. Then the table of a patching run with 100,000 slides.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Generator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.table import Options, Row, in_process, memory_mb
from tests.simulation.clock import DriverClock
from tests.simulation.cluster import Hardware
from tests.simulation.cohorts import (
    Faults,
    skewed_slides,
    slide_name,
    slide_row,
    slide_shards,
    write_cohort,
)

MODULE = "tests.benchmarks.scheduling"
SLIDES = {False: 100_000, True: 2_000}
SHARDS_A_SLIDE = 10
RAY_BLOCK_S = 0.005
"""CPU-seconds of a driver that Ray Data takes for a block: the stage `raylets` measures it."""
CALM = Hardware(nodes=1_000, block_s=RAY_BLOCK_S)
TROUBLE = replace(CALM, slow_share=0.1, spot_share=0.3)
CASES = {
    "100 nodes": replace(TROUBLE, nodes=100),
    "300 nodes": replace(TROUBLE, nodes=300),
    "1,000 nodes": TROUBLE,
    "1,000 nodes, nothing goes wrong": CALM,
    "1,000 nodes of 8 GPUs": replace(TROUBLE, actors_a_node=8),
}
"""A tenth of the nodes at a third of the speed, three tenths spot nodes (an hour of life in the
mean), one slide in 200 bad and one in 5,000 that kills its actors, where not said otherwise."""
MAX_MB = 1_500
"""Peak of the driver's process at a million shards, the simulator's own memory included."""
MAX_RECEIPT_US = 200
Found = dict[str, Any]


def measure(options: Options) -> list[Row]:
    """The rows of each simulated cluster, then those of patching."""
    slides, rows = SLIDES[options.quick], []
    for name in list(CASES)[: 1 if options.quick else None]:
        found: Found = json.loads(in_process(MODULE, "--case", name, "--slides", str(slides)))
        files, shards = str(found["files"]), str(found["shards"])
        floor = json.loads(in_process(MODULE, "--floor", shards, "--files", files))
        rows += _rows(name, found, floor["us"], is_full=not options.quick)
    patching: Found = json.loads(in_process(MODULE, "--patching", "--slides", str(slides)))
    rows.append(
        Row(
            f"patching, {slides:,} rows taken", patching["us"], "CPU-us/slide",
            note=f"peak {patching['peak_mb']:.0f} MB; the table written {patching['writes']} times",
        )
    )  # fmt: skip
    return rows


def _rows(name: str, found: Found, floor_us: float, *, is_full: bool) -> list[Row]:
    receipt_us = found["receipts_s"] / found["shards"] * 1e6
    driver_s = sum(found[f"{part}_s"] for part in ("open", "plan", "receipts", "close"))
    memory = (
        f"at the start {found['start_mb']:.0f} MB; ledger: {found['files']:,} files, "
        f"{found['ledger_mb']:.0f} MB; index {found['index_mb']:.0f} MB"
    )
    took = (
        f"all sent at {found['all_sent_s']:,.0f} s, first round over at "
        f"{found['first_round_s']:,.0f} s; {found['waves']} waves, {found['lost_nodes']} nodes "
        f"lost, {found['deaths']} actors killed, {found['failed']} slides failed, of which "
        f"{found['given_up']} had no fault of their own"
    )
    busy = (
        f"of the GPU time in which actors were up; lost with actors {found['lost']:.2%}; the "
        f"driver is busy {found['driver_share']:.0%} of the time, without Ray Data "
        f"{driver_s / found['seconds']:.0%}"
    )
    return [
        Row(f"{name}: driver, a receipt", receipt_us, "CPU-us", f"<= {MAX_RECEIPT_US} us",
            receipt_us <= MAX_RECEIPT_US if is_full else None, floor=floor_us,
            note=f"{found['shards']:,} shards of {found['slides']:,} slides; planning and the "
            f"rest {driver_s - found['receipts_s']:.1f} CPU-s in all"),
        Row(f"{name}: driver's memory", found["peak_mb"], "MB", f"<= {MAX_MB:,} MB",
            found["peak_mb"] <= MAX_MB if is_full else None, note=memory),
        Row(f"{name}: the whole run", found["seconds"], "virtual s", floor=found["ideal_s"],
            note=took),
        Row(f"{name}: encoders busy", 100 * found["useful"], "%", note=busy),
    ]  # fmt: skip


def run_case(name: str, slides: int) -> Found:
    """What a simulated run took and did."""
    with tempfile.TemporaryDirectory() as folder:
        root, ids = Path(folder), [slide_name(number) for number in range(slides)]
        in_process(MODULE, "--write", folder, "--slides", str(slides))
        faults = Faults.drawn(ids, bad=0.005, killers=max(1, slides // 5_000))
        if CASES[name] is CALM:
            faults = Faults()
        found = _simulated(root, CASES[name], faults)
    assert found["done"] + found["failed"] == slides, "slides are neither whole nor failed"
    return found | {"slides": slides}


def _simulated(root: Path, hardware: Hardware, faults: Faults) -> Found:
    from tests.simulation.driver import simulate

    start_mb, clock = memory_mb(), DriverClock(time.process_time)
    course = simulate(root, hardware, faults, clock=clock)
    cluster, spent = course.cluster, clock.spent
    ledger = list((root / "store" / "ledger").iterdir())
    failed = {slide.slide_id for slide in course.summary.failures}
    return {
        **{f"{part}_s": spent[part] for part in ("open", "plan", "ray", "receipts", "close")},
        "driver_share": sum(spent.values()) / course.seconds,
        "shards": cluster.counts["receipts"],
        "seconds": course.seconds,
        "ideal_s": course.ideal_s,
        "all_sent_s": cluster.marks["all sent"],
        "first_round_s": cluster.marks["first round"],
        "waves": cluster.counts["waves"],
        "lost_nodes": cluster.counts["lost nodes"],
        "deaths": cluster.counts["deaths"],
        "useful": cluster.seconds["useful"] / cluster.seconds["up"],
        "lost": cluster.seconds["lost"] / cluster.seconds["up"],
        "done": course.summary.done,
        "failed": len(failed),
        "given_up": len(failed - faults.bad - faults.killers),
        "start_mb": start_mb,
        "peak_mb": memory_mb(),
        "files": len(ledger),
        "ledger_mb": sum(file.stat().st_size for file in ledger) / 2**20,
        "index_mb": (root / "store" / "index.parquet").stat().st_size / 2**20,
    }


def write_alone(receipts: int, files: int) -> Found:
    """The same receipts in as many files by pyarrow, and nothing else."""
    from crane_ray.runtime.actors import RESULT_SCHEMA
    from tests.simulation.cluster import receipt_columns

    each = -(-receipts // files)
    shards = (vars(shard) for shard in slide_shards([20_480] * (each // 10 + 1)))
    same = {"host": "node-0001:1", "run_id": "20250101T000000-abcdef", "reader": "openslide",
            "batch_size": 256, "written": "2025-01-01T00:00:00.000+00:00"}  # fmt: skip
    rows = [{**same, **receipt_columns(shard, 3800.0, Faults())} for shard in shards][:each]
    with tempfile.TemporaryDirectory() as folder:
        began, rounds = time.process_time(), max(1, min(files, 100_000 // each))
        for number in range(rounds):
            table = pa.Table.from_pylist(rows, RESULT_SCHEMA)
            pq.write_table(table, Path(folder) / f"{number}.parquet")
        return {"us": (time.process_time() - began) / (rounds * len(rows)) * 1e6}


def take_rows(slides: int) -> Found:
    """The driver's share of a patching run: rows of tasks into the table, as fast as it can."""
    from crane_ray.runtime.reporting import Silent
    from crane_ray.runtime.row_tables import FATAL, RowTable
    from crane_ray.slides.workspace import SlideRow, Workspace

    results = [{**_columns(slide_row(number, 20_480)), FATAL: ""} for number in range(slides)]
    writes = 0

    def stream(
        tasks: Iterable[Any], task: Any, *, kwargs: Any
    ) -> Generator[dict[str, Any], None, None]:
        yield from results

    def write(rows: Iterable[SlideRow]) -> None:
        nonlocal writes
        writes += 1
        workspace.write_slides(rows)

    with tempfile.TemporaryDirectory() as folder:
        workspace, began = Workspace(folder), time.process_time()
        table = RowTable[SlideRow]({}, write, Silent(), stream=stream)
        ids = [result["slide_id"] for result in results]
        table.fill((), len, kwargs={}, row_of=SlideRow.from_mapping, dead=_dead, slide_ids=ids)
        table.close()
        spent = time.process_time() - began
    return {"us": spent / slides * 1e6, "writes": writes, "peak_mb": memory_mb()}


def _columns(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def _dead(slide_id: str) -> Any:
    raise AssertionError(slide_id)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--floor", type=int)
    parser.add_argument("--files", type=int, default=1)
    parser.add_argument("--patching", action="store_true")
    parser.add_argument("--slides", type=int, default=0)
    given = parser.parse_args()
    if given.write:
        write_cohort(given.write, skewed_slides(given.slides, SHARDS_A_SLIDE, seed=0))
        print("{}")
    elif given.floor:
        print(json.dumps(write_alone(given.floor, given.files)))
    elif given.patching:
        print(json.dumps(take_rows(given.slides)))
    else:
        print(json.dumps(run_case(given.case, given.slides)))


if __name__ == "__main__":
    main()
