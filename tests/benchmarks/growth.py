"""Planning from 1,000 to 1,000,000 shards: the driver's time and memory before the first shard.

Each measurement is a process of its own. ``fresh`` is a store without anything, ``resume`` one of
which a tenth is missing, ``rerun`` one that is whole, ``lost index`` one whose index is rebuilt.
Then the slide table of a cohort: listed, written and read.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.table import Options, Row, in_process, memory_mb
from tests.unit.features.small_store import make_store
from tests.unit.features.test_memory import slide_names, write_ledger, write_slides

SHARDS_A_SLIDE = 10
STATES = {"fresh": 0, "resume": 9, "rerun": 10, "lost index": 10}
"""Shards of each slide that are written."""
SHARDS = {False: (1_000, 10_000, 100_000, 1_000_000), True: (1_000, 10_000)}
MAX_MB = 700
"""Peak of the whole driver process at a million shards, its 200 MB of imports included."""
MAX_GROWTH = 1.5
"""Cost of a further shard between the two largest sizes, to that between the two before them."""
MAX_TABLE_S = 10.0
MODULE = "tests.benchmarks.growth"
Opened = dict[str, float]


def measure(options: Options) -> list[Row]:
    """A row a state and size, then those of the slide table."""
    rows = []
    for state in STATES:
        found = {shards: _opened(state, shards) for shards in SHARDS[options.quick]}
        rows += [_row(state, shards, found) for shards in found]
    return rows + _table_rows(2_000 if options.quick else 100_000)


def _row(state: str, shards: int, found: dict[int, Opened]) -> Row:
    sizes, mine = list(found), found[shards]
    place = sizes.index(shards)
    last = shards == max(SHARDS[False])
    note = f"peak {mine['peak_mb']:.0f} MB, of which imports {mine['imports_mb']:.0f}"
    met = None
    if last:
        steps = [_per_shard(found, sizes[n - 1], sizes[n]) for n in (place - 1, place)]
        note += f"; {1e6 * steps[1]:.1f} us a shard, {1e6 * steps[0]:.1f} before"
        met = mine["peak_mb"] <= MAX_MB and steps[1] <= MAX_GROWTH * steps[0]
    gate = f"linear, <= {MAX_MB} MB" if last else ""
    return Row(
        f"planning, {state}, {shards:,} shards", mine["cpu_s"], "CPU-s", gate, met, note=note
    )


def _per_shard(found: dict[int, Opened], fewer: int, more: int) -> float:
    return (found[more]["cpu_s"] - found[fewer]["cpu_s"]) / (more - fewer)


def _opened(state: str, shards: int) -> Opened:
    """What opening the books took in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        root, ids = Path(folder), slide_names(shards // SHARDS_A_SLIDE)
        make_store(root / "store")
        write_slides(root / "slides.parquet", ids, SHARDS_A_SLIDE)
        if STATES[state]:
            ledger = root / "store" / "ledger" / "00000000000000000001-a.parquet"
            write_ledger(ledger, ids, STATES[state], of=SHARDS_A_SLIDE)
        if state == "rerun":
            in_process(MODULE, "--books", folder)  # writes the index
        found: Opened = json.loads(in_process(MODULE, "--books", folder))
    missing = (SHARDS_A_SLIDE - STATES[state]) * len(ids)
    assert found["missing"] == missing, (state, found, missing)
    return found


def open_books(root: Path) -> Opened:
    """What a driver does before the first shard is sent, its imports apart."""
    from crane_ray.features.commits import Books
    from crane_ray.features.joint import JointBooks
    from crane_ray.features.store import FeatureStore
    from crane_ray.runtime import extraction, lanes
    from crane_ray.slides.workspace import Workspace

    assert extraction
    imports, began, cpu_began = memory_mb(), time.perf_counter(), time.process_time()
    store, workspace = FeatureStore.open(str(root / "store")), Workspace(str(root))
    rows = lanes.patched_slides(workspace)
    books = JointBooks([Books(store, workspace, rows)], rows)
    books.num_missing_patches()
    missing = sum(1 for _ in books.missing_shards())
    return {
        "imports_mb": imports,
        "peak_mb": memory_mb(),
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu_began,
        "missing": missing,
    }


def _table_rows(slides: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "slides.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["slide_id", "case_id", "uri", "mpp"])
            out.writerows(
                [name, name[:12], f"s3://b/{name}.svs", 0.25] for name in slide_names(slides)
            )
        found = json.loads(in_process(MODULE, "--table", str(table)))
    whole = f"<= {MAX_TABLE_S:g} s in all"
    total = sum(found.values())
    rows = [
        Row(f"{slides:,}-slide table, {step}", seconds, "CPU-s") for step, seconds in found.items()
    ]
    return [
        *rows,
        Row(f"{slides:,}-slide table, all of it", total, "CPU-s", whole, total <= MAX_TABLE_S),
    ]


def plan_table(table: Path) -> dict[str, float]:
    """CPU-seconds of each step of a patching run's planning."""
    from crane_ray.runtime.jobs import PatchJob
    from crane_ray.runtime.patching import plan_cohort
    from crane_ray.slides.listing import list_slides
    from crane_ray.slides.workspace import SlideRow, Workspace

    workspace = Workspace(str(table.parent / "work"))
    config = PatchJob.model_validate({"slides": {"source": str(table)}, "work": workspace.root})
    entries = list_slides(str(table))
    rows = [SlideRow(entry.slide_id, entry.uri, "ok", entry.case_id) for entry in entries]
    steps: dict[str, Callable[[], object]] = {
        "list and plan": lambda: plan_cohort(config),
        "write slides.parquet": lambda: workspace.write_slides(rows),
        "read slides.parquet": workspace.read_slides,
    }
    found = {}
    for name, step in steps.items():
        began = time.process_time()
        step()
        found[name] = time.process_time() - began
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--books", type=Path)
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    print(json.dumps(open_books(given.books) if given.books else plan_table(given.table)))


if __name__ == "__main__":
    main()
