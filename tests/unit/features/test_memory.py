"""The driver's books over a large cohort: the memory they take, in a process of their own."""

import json
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crane_ray.features.commits import Books
from crane_ray.features.ledger import RECEIPT_SCHEMA
from crane_ray.features.store import FeatureStore
from crane_ray.slides.workspace import SCHEMA, Workspace
from tests.unit.features.small_store import SHARD_ROWS, SPEC, make_store

ROOT = Path(__file__).parents[3]
NUM_SLIDES, SHARDS = 100_000, 2
MAX_PEAK_MB = 500
"""Beyond the imports, at the peak; 330 MB measured, half of it the table of slides."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_thousand_slides(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    slide_ids = slide_names(NUM_SLIDES)
    write_ledger(tmp_path / "store" / "ledger" / "00000000000000000001-a.parquet", slide_ids)
    write_slides(tmp_path / "slides.parquet", slide_ids)
    command = [sys.executable, "-m", "tests.unit.features.test_memory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    print(found)
    assert found["skipped"] == NUM_SLIDES
    assert found["peak_mb"] < MAX_PEAK_MB, found
    assert len(FeatureStore.open(str(tmp_path / "store")).slide_ids()) == NUM_SLIDES


def slide_names(count: int) -> list[str]:
    return [f"TCGA-A{number:06d}-01Z-00-DX1" for number in range(count)]


def write_ledger(
    path: Path, slide_ids: list[str], shards: int = SHARDS, *, of: int | None = None
) -> None:
    """The receipts of all first shards, then of all second ones, and so on.

    Args:
        path: of the file.
        slide_ids: the slides.
        shards: how many of each slide's shards are written.
        of: how many each slide has; as many where not given.
    """
    count = len(slide_ids) * shards
    number = np.arange(count)
    columns = {
        "slide_id": slide_ids * shards,
        "shard": (number // len(slide_ids)).astype(np.int32),
        "checksum": [sha256(b"%d" % n).hexdigest() for n in range(count)],
        "coords_checksum": [f"{n:016x}" for n in range(len(slide_ids))] * shards,
        "host": [f"node-{n % 64}:1" for n in range(count)],
        "written": [f"2025-01-01T00:00:00.{n % 1000:03d}+00:00" for n in range(count)],
    }
    same = {
        "status": "ok",
        "num_patches": (of or shards) * SHARD_ROWS,
        "rows": SHARD_ROWS,
        "error": "",
        "reader": "openslide",
        "run_id": "20250101T000000-abcdef",
    }
    write_table(path, RECEIPT_SCHEMA, columns, same)


def write_slides(path: Path, slide_ids: list[str], shards: int = SHARDS) -> None:
    columns = {
        "slide_id": slide_ids,
        "uri": [f"/slides/{slide_id}.svs" for slide_id in slide_ids],
        "coords_checksum": [f"{n:016x}" for n in range(len(slide_ids))],
    }
    same = {
        "case_id": "case",
        "status": "ok",
        "num_patches": shards * SHARD_ROWS,
        "spec_fingerprint": SPEC.fingerprint(),
    }
    write_table(path, SCHEMA, columns, same)


def write_table(
    path: Path, schema: pa.Schema, columns: dict[str, Any], same: dict[str, Any]
) -> None:
    """A table of some columns, of values that all rows share, and of zeros and nulls."""
    count = len(columns["slide_id"])
    for field in schema:
        if field.name not in columns:
            default = None if field.type == pa.string() else 0
            value = pa.scalar(same.get(field.name, default)).cast(field.type)
            columns[field.name] = pa.repeat(value, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
    pq.write_table(table, path, row_group_size=20_000)


def peak_mb() -> float:
    """Of this process so far; rusage would count the parent's, from before exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def keep_books(root: str) -> None:
    """Opens the books as a run does, and prints what it took."""
    store, workspace = FeatureStore.open(f"{root}/store"), Workspace(root)
    imports_mb, begun = peak_mb(), time.perf_counter()
    books = Books(store, workspace, workspace.read_slides())
    took = {
        "skipped": len(books.skipped),
        "seconds": time.perf_counter() - begun,
        "peak_mb": peak_mb() - imports_mb,
    }
    print(json.dumps(took))


if __name__ == "__main__":
    keep_books(sys.argv[1])
