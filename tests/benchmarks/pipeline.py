"""How busy a simulated GPU is kept by one decoding core, start-up apart.

On slides of equal size, and on very uneven ones: 20 patches beside thousands.
"""

import argparse
import json
import os
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path

from crane_ray.features.extraction import Output
from crane_ray.features.ledger import Receipt
from crane_ray.features.pipeline import ExtractionPipeline
from tests.benchmarks.simulated import Cohort, SimulatedGPU, make_cohort, write_picture
from tests.benchmarks.table import Options, Row, in_process

RATES = (1000, 2000, 3000)
GATE = 0.9
BATCH = 256
SHARDS_AHEAD = 6
"""Given to the pipeline at a time, as an actor's blocks are."""
PICTURE_PX = {False: (20_480, 16_384), True: (8192, 6144)}
EVEN = {False: [5120] * 4, True: [768] * 4}
UNEVEN = {
    False: [20, 5120, 20, 20, 5120, *[20] * 8, 5120, 20, 20, 5120, 20],
    True: [20, 768, 20, 20, 768],
}


def measure(options: Options) -> list[Row]:
    """A row a rate and kind of cohort."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        picture = write_picture(Path(folder) / "picture.tif", PICTURE_PX[options.quick])
        for kind, patches in (("even", EVEN), ("very uneven", UNEVEN)):
            for rate in RATES:
                words = [str(picture), str(rate), str(options.core)]
                counts = [str(count) for count in patches[options.quick]]
                found = json.loads(in_process("tests.benchmarks.pipeline", *words, *counts))
                rows.append(
                    Row(
                        f"simulated GPU of {rate:,} a second, {kind} slides",
                        100 * found["share"],
                        "% busy",
                        f">= {GATE:.0%}",
                        found["share"] >= GATE,
                        floor=100 * min(1.0, found["floor"] / rate),
                        note=f"{found['patches']:,} patches at {found['rate']:,.0f} a second; "
                        f"{found['cpu_s'] / found['patches'] * 1e6:.0f} CPU-us a patch",
                    )
                )
    return rows


def run(cohort: Cohort, gpu: SimulatedGPU) -> float:
    """Everything through the pipeline; CPU-seconds of the process."""
    began = time.process_time()
    waiting: deque[Future[list[Receipt]]] = deque()
    outputs = [Output(cohort.store, gpu)]
    with ExtractionPipeline(outputs, batch_size=BATCH, decode_threads=1) as pipeline:
        for shard in cohort.books().missing_shards():
            waiting.append(pipeline.submit(shard))
            if len(waiting) > SHARDS_AHEAD:
                _check(waiting.popleft())
        while waiting:
            _check(waiting.popleft())
    return time.process_time() - began


def _check(receipts: Future[list[Receipt]]) -> None:
    for receipt in receipts.result():
        assert receipt.status == "ok", receipt.error


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("picture", type=Path)
    parser.add_argument("rate", type=float)
    parser.add_argument("core", type=int)
    parser.add_argument("patches", type=int, nargs="+")
    given = parser.parse_args()
    os.sched_setaffinity(0, {given.core})
    given.picture.read_bytes()  # into the page cache
    with tempfile.TemporaryDirectory() as folder:
        free = SimulatedGPU(1e9)
        free_cohort = make_cohort(Path(folder) / "free", given.picture, given.patches)
        cpu_s, total = run(free_cohort, free), sum(given.patches)
        gpu = SimulatedGPU(given.rate)
        run(make_cohort(Path(folder) / "timed", given.picture, given.patches), gpu)
    assert gpu.began_s is not None
    found = {
        "share": gpu.busy_share,
        "patches": total,
        "rate": total / (gpu.free_s - gpu.began_s),
        "cpu_s": cpu_s,
        "floor": total / cpu_s,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
