"""Memory and time of a driver that opens the books of a very large extraction.

    python -m tests.benchmarks.driver_memory --slides 100000 --shards 10

Prints the peak of the whole process, all imports of a run included, beside the limit of 1 GB. One
line for a store that is whole (a rerun), one for a store of which a tenth is missing (a resume).
"""

import argparse
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.unit.features.small_store import make_store
from tests.unit.features.test_memory import peak_mb, slide_names, write_ledger, write_slides

LIMIT_MB = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=10, help="shards of each slide")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        open_books(Path(options.open))
        return
    print(f"python {platform.python_version()}, {platform.machine()}")
    for name, written in (("rerun", options.shards), ("resume", max(1, options.shards * 9 // 10))):
        with tempfile.TemporaryDirectory() as folder:
            root, ids = Path(folder), slide_names(options.slides)
            make_store(root / "store")
            write_slides(root / "slides.parquet", ids, options.shards)
            ledger = root / "store" / "ledger" / "00000000000000000001-a.parquet"
            write_ledger(ledger, ids, written)
            words = [sys.executable, "-m", "tests.benchmarks.driver_memory", "--open", folder]
            done = subprocess.run(words, check=True, capture_output=True, text=True)
            shards = options.slides * options.shards
            print(f"{name}: {options.slides:,} slides, {shards:,} shards: {done.stdout.strip()}")


def open_books(root: Path) -> None:
    """What a driver does before the first shard is sent."""
    import time

    from crane_ray.features.commits import Books
    from crane_ray.features.store import FeatureStore
    from crane_ray.runtime import extraction
    from crane_ray.slides.workspace import Workspace

    imports, begun = peak_mb(), time.perf_counter()
    store, workspace = FeatureStore.open(str(root / "store")), Workspace(str(root))
    books = Books(store, workspace, extraction.patched_slides(workspace))
    missing = sum(1 for _ in books.missing_shards())
    print(
        f"peak {peak_mb():.0f} MB (limit {LIMIT_MB}; imports {imports:.0f}), "
        f"{time.perf_counter() - begun:.1f} s, {missing:,} shards missing"
    )


if __name__ == "__main__":
    main()
