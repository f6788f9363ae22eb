"""Patches through Ray Data into an encoder that does nothing, per CPU-second of all processes.

Counted from the end of the first slide to the end of the last but one: neither Ray's start nor the
actor's is in it, both ends have the same decoding ahead, and what Ray's own processes spend
meanwhile is counted.
"""

import argparse
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Self

from crane_ray.features.extraction import Output
from crane_ray.features.pipeline import ExtractionPipeline
from crane_ray.features.store import FeatureStore
from crane_ray.runtime.actors import ExtractionActor, shard_table
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.runtime.live import Teller
from crane_ray.runtime.packing import pack_shards
from crane_ray.runtime.pools import Pool
from crane_ray.runtime.streams import stream_actors
from tests.benchmarks import readers
from tests.benchmarks.simulated import Cohort, NoEncoder, make_cohort, write_picture
from tests.benchmarks.table import ROOT, Options, Row, in_process

TIMES, OF_FLOOR = 6.0, 0.5
PICTURE_PX = {False: (20_480, 16_384), True: (8192, 6144)}
SLIDE_PATCHES = {False: 5120, True: 768}
SLIDES = 6
BATCH, CALLS = 256, 2
SAMPLE_S = 0.2


class ReadingActor(ExtractionActor):
    """An extraction actor whose encoder does nothing."""

    def __init__(self, *, root: str) -> None:
        self._tell, self._broken = Teller(None), ""
        outputs = [Output(FeatureStore.open(root), NoEncoder())]
        self._pipeline = ExtractionPipeline(outputs, batch_size=BATCH, decode_threads=1)


class ProcessTree:
    """CPU-seconds of this process and all below it, those that end meanwhile included."""

    def __init__(self) -> None:
        self._ticks: dict[tuple[int, str], int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def cpu_s(self) -> float:
        """So far."""
        self._sample()
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_S):
            self._sample()

    def _sample(self) -> None:
        parents, found = {}, {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                pid, rest = stat.read_text(encoding="utf-8").rsplit(")", 1)
            except (OSError, UnicodeDecodeError):
                continue
            fields = rest.split()
            number = int(pid.split(" ", 1)[0])
            parents[number] = int(fields[1])
            found[number] = (fields[19], int(fields[11]) + int(fields[12]))
        for number, (began, ticks) in found.items():
            if _is_below(number, os.getpid(), parents):
                self._ticks[number, began] = ticks


def _is_below(number: int, root: int, parents: dict[int, int]) -> bool:
    while number > 1 and number != root:
        number = parents.get(number, 0)
    return number == root


def measure(options: Options) -> list[Row]:
    """One row."""
    words = ["--core", str(options.core), *(["--quick"] if options.quick else [])]
    found = json.loads(in_process("tests.benchmarks.ray_reader", *words))
    case = readers.Case("through Ray Data")
    patches, rounds = (128, 2) if options.quick else (768, 5)
    beside = readers.measure(patches=patches, rounds=rounds, cases=(case,), core=options.core)
    rates = {row.way: row.best for row in beside}
    times, share = found["rate"] / rates["one at a time"], found["rate"] / rates["floor"]
    return [
        Row(
            "reader through Ray Data, 4:2:0",
            found["rate"],
            "patches/CPU-s",
            f">= {TIMES:g}x, >= {OF_FLOOR:.0%} of the floor",
            times >= TIMES and share >= OF_FLOOR,
            comparator=rates["one at a time"],
            floor=rates["floor"],
            ratio=times,
            note=f"{share:.0%} of the floor; {found['patches']:,} patches of all Ray processes; "
            f"start-up {found['start_s']:.0f} CPU-s apart",
        )
    ]


def run(quick: bool) -> dict[str, float]:
    """Patches per CPU-second on an embedded Ray."""
    each = SLIDE_PATCHES[quick]
    with tempfile.TemporaryDirectory() as folder, ProcessTree() as tree:
        picture = write_picture(Path(folder) / "picture.tif", PICTURE_PX[quick])
        cohort = make_cohort(Path(folder), picture, [each] * SLIDES)
        began = tree.cpu_s()
        with connected(ClusterConfig(num_cpus=1, object_store_mb=100)):
            done, marks = 0, list[tuple[int, float]]()
            for rows in _extract(cohort):
                done += rows
                marks.append((done, tree.cpu_s()))
    first = next(mark for mark in marks if mark[0] >= each)
    last = next(mark for mark in marks if mark[0] >= each * (SLIDES - 1))
    patches, cpu_s = last[0] - first[0], last[1] - first[1]
    return {
        "rate": patches / cpu_s,
        "patches": patches,
        "start_s": first[1] - began - first[0] * cpu_s / patches,
    }


def _extract(cohort: Cohort) -> Iterator[int]:
    """Rows of each receipt as it comes."""
    books = cohort.books()
    blocks = pack_shards(
        books.missing_shards(),
        num_patches=books.num_missing_patches(),
        shard_rows=cohort.store.header.shard_rows,
        num_actors=1,
    )
    results = stream_actors(
        (shard_table(block) for block in blocks),
        ReadingActor,
        kwargs={"root": cohort.store.root},
        size=Pool(1, 1, 0),
        calls=CALLS,
    )
    with closing(results):
        for result in results:
            assert result["status"] == "ok", result["error"]
            yield result["rows"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    os.sched_setaffinity(0, {given.core})
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        os.environ["HOME"] = home  # Ray writes tokens there
        found = run(quick=given.quick)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
