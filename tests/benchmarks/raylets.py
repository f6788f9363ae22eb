"""What Ray Data costs a driver, on three real raylets: blocks through actors that do nothing.

Then a simulated encoder on one, two and three nodes, on skewed slides and beside a slow node.
Each measurement is a process of its own with its own cluster on this machine.
"""

import argparse
import itertools
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from crane_ray.features.extraction import Shard
from crane_ray.features.ledger import Receipt
from crane_ray.runtime.actors import RESULT_SCHEMA, shard_table
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.runtime.mailbox import Mailbox, Sender
from crane_ray.runtime.packing import MOST_SHARDS, pack_shards
from crane_ray.runtime.pools import Pool
from crane_ray.runtime.streams import stream_actors
from tests.benchmarks.ray_reader import ProcessTree
from tests.benchmarks.table import ROOT, Options, Row, in_process, memory_mb
from tests.ray.clusters import Nodes, three_nodes
from tests.simulation.cohorts import SHARD_ROWS, skewed_slides, slide_shards

MODULE = "tests.benchmarks.raylets"
BLOCKS = {False: (1_000, 5_000), True: (100, 300)}
"""Of two runs; the difference is what a further block costs."""
CALLS = 3
RATE = 4096.0
"""Patches a second of a simulated encoder: two shards."""
PATCHES_A_NODE = {False: 400_000, True: 60_000}
SLOWER = 3
"""Times that a slow node takes longer."""
MESSAGES = {False: 20_000, True: 2_000}
MIN_BUSY = 0.9
Found = dict[str, Any]


class Receipts:
    """Gives a receipt for each shard, at once."""

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [{**asdict(self.receipt(shard)), "output": 0} for shard in _shards(table)]
        return pa.Table.from_pylist(rows, RESULT_SCHEMA)

    def receipt(self, shard: Shard, **facts: Any) -> Receipt:
        """A receipt with texts as long as real ones."""
        usual = {"host": "node-0001:12345", "written": "2025-01-01T00:00:00.000+00:00"}
        return shard.receipt(
            rows=SHARD_ROWS, checksum="0" * 64, batch_size=256, reader="openslide",
            run_id="20250101T000000-abcdef", **{**usual, **facts},
        )  # fmt: skip


class Waits(Receipts):
    """Takes as long over its shards, one after the other, as a device of some speed would."""

    def __init__(self, *, rate: float, slow_node: str) -> None:
        here = ray.get_runtime_context().get_node_id()
        self._rate = rate / (SLOWER if here == slow_node else 1)
        self._device = threading.Lock()

    def receipt(self, shard: Shard, **facts: Any) -> Receipt:
        """Once the device is done: which one, how long it took, and when that was."""
        takes = min(SHARD_ROWS, shard.num_patches - shard.shard * SHARD_ROWS) / self._rate
        with self._device:
            time.sleep(takes)
            now = time.time()
        return super().receipt(shard, host=str(os.getpid()), encode_s=takes, written=str(now))


def _shards(table: pa.Table) -> list[Shard]:
    records = table.to_pylist()
    return [Shard(**{**record, "outputs": tuple(record["outputs"])}) for record in records]


def measure(options: Options) -> list[Row]:
    """What a block costs the driver, what the mailbox takes, how busy encoders are."""
    quick = ["--quick"] if options.quick else []
    fewer, more = (
        json.loads(in_process(MODULE, "--blocks", str(blocks), *quick))
        for blocks in BLOCKS[options.quick]
    )
    return [
        *_driver_rows(fewer, more),
        _mailbox_row(json.loads(in_process(MODULE, "--messages", *quick))),
        *(_busy_row(json.loads(in_process(MODULE, "--nodes", *words, *quick)))
          for words in (["1"], ["2"], ["3"], ["3", "--slow"])),
    ]  # fmt: skip


def _driver_rows(fewer: Found, more: Found) -> list[Row]:
    further = int(more["blocks"] - fewer["blocks"])

    def each(name: str) -> float:
        return float(more[name] - fewer[name]) / further

    blocks = f"of {MOST_SHARDS} shards; {further:,} blocks more than {fewer['blocks']:,}"
    before = f"{more['before_s']:.1f} s before the first result, the actors' start included"
    return [
        Row("Ray Data's driver, a block", 1e3 * each("cpu_s"), "CPU-ms", note=blocks),
        Row("all other Ray processes, a block", 1e3 * each("others_s"), "CPU-ms",
            note="raylets, actors and the control store, all on this machine"),
        Row("blocks a second, three actors that do nothing", more["rate"], "blocks/s",
            note=f"{MOST_SHARDS * more['rate']:,.0f} receipts/s; {before}"),
        Row("Ray Data's driver, memory of a block", 1024 * each("peak_mb"), "kB",
            note=f"peak {more['peak_mb']:.0f} MB, before {more['start_mb']:.0f} MB"),
        Row("object store, a block that waits", 1024 * more["store_mb"] / more["blocks"], "kB",
            note=f"{more['store_mb']:.0f} MB at the first result"),
    ]  # fmt: skip


def _mailbox_row(found: Found) -> Row:
    note = "counts of patches for the bars; each actor sends two a second at most"
    return Row("mailbox, messages taken", found["rate"], "messages/s", note=note)


def _busy_row(found: Found) -> Row:
    slow = ", one at a third of the speed" if found["slow"] else ""
    return Row(
        f"simulated encoders on {found['nodes']} nodes{slow}", 100 * found["busy"], "%",
        f">= {MIN_BUSY:.0%}", found["busy"] >= MIN_BUSY if found["is_full"] else None,
        note=f"{found['patches']:,} patches, {found['blocks']} blocks, {found['seconds']:.1f} s "
        "from the first shard to the last",
    )  # fmt: skip


@contextmanager
def cluster() -> Iterator[Nodes]:
    """Three raylets of one CPU each, and a driver on the first."""
    with (
        tempfile.TemporaryDirectory() as folder,
        three_nodes(Path(folder), quick_detection=False) as nodes,
        connected(ClusterConfig(address=nodes.cluster.address)),
    ):
        yield nodes


def drive(blocks: int) -> Found:
    """Sends so many whole blocks through actors that do nothing."""
    shards = slide_shards([10 * SHARD_ROWS] * (blocks * MOST_SHARDS // 10 + 1))
    packed = [list(itertools.islice(shards, MOST_SHARDS)) for _ in range(blocks)]
    tables = (shard_table(block) for block in packed)
    with ProcessTree() as tree, cluster() as nodes:
        start_mb, began = memory_mb("VmRSS"), _times(tree)
        stream = stream_actors(
            tables, Receipts, kwargs={}, size=Pool(3, 1, 0), calls=CALLS, retries=1
        )
        with closing(stream) as results:
            next(results)
            first, store_mb = _times(tree), _store_mb(nodes.cluster.address)
            num_receipts = 1 + sum(1 for _ in results)
        ended = _times(tree)
    assert num_receipts == blocks * MOST_SHARDS
    return {
        "blocks": blocks,
        "before_s": first[0] - began[0],
        "rate": blocks / (ended[0] - first[0]),
        "cpu_s": ended[1] - began[1],
        "others_s": (ended[2] - ended[1]) - (began[2] - began[1]),
        "start_mb": start_mb,
        "peak_mb": memory_mb(),
        "store_mb": store_mb,
    }


def _times(tree: ProcessTree) -> tuple[float, float, float]:
    """Wall time, CPU-seconds of this process, and of all processes."""
    return time.perf_counter(), time.process_time(), tree.cpu_s()


def _store_mb(address: str) -> float:
    from ray._private import internal_api

    state = internal_api.get_state_from_address(address)
    stats = internal_api.get_memory_info_reply(state).store_stats
    return float(stats.object_store_bytes_used / 2**20)


def post(messages: int) -> Found:
    """Messages from three workers at once into the driver's mailbox."""

    def send(address: Any, number: int) -> None:
        sender = Sender(address)
        for _ in range(number):
            sender({"patches": 256})
        sender.flush()

    with cluster():
        mailbox = Mailbox()
        worker = ray.remote(num_cpus=1)(send)
        ray.get([worker.remote(mailbox.address, 1) for _ in range(3)])
        began = time.perf_counter()
        ray.get([worker.remote(mailbox.address, messages // 3) for _ in range(3)])
        seconds = time.perf_counter() - began
        taken = len(mailbox.take())
    assert taken == 3 + messages // 3 * 3
    return {"rate": messages / seconds}


def encode(num_nodes: int, *, slow: bool, patches_a_node: int) -> Found:
    """How busy simulated encoders are, one a node, from the first shard to the last."""
    wanted = patches_a_node * num_nodes
    slides, patches = skewed_slides(10_000, 3, seed=num_nodes), list[int]()
    for count in slides:
        if sum(patches) < wanted and count < wanted // 4:
            patches.append(count)
    with cluster() as nodes:
        slow_node = ray.get_runtime_context().get_node_id() if slow else ""
        blocks = list(
            pack_shards(
                slide_shards(patches),
                num_patches=sum(patches),
                shard_rows=SHARD_ROWS,
                num_actors=num_nodes,
            )
        )
        assert len(nodes.cluster.list_all_nodes()) == 3
        stream = stream_actors(
            (shard_table(block) for block in blocks),
            Waits,
            kwargs={"rate": RATE, "slow_node": slow_node},
            size=Pool(num_nodes, 1, 0),
            calls=CALLS,
            retries=1,
        )
        with closing(stream) as results:
            shards = [(row["host"], float(row["written"]), row["encode_s"]) for row in results]
    return _busy(shards) | {
        "nodes": num_nodes, "slow": slow, "patches": sum(patches), "blocks": len(blocks),
    }  # fmt: skip


def _busy(shards: Sequence[tuple[str, float, float]]) -> Found:
    """The share of all devices' time, each from its first shard to the end of the last of all."""
    end = max(ended for _, ended, _ in shards)
    begin: dict[str, float] = {}
    for device, ended, took in shards:
        begin[device] = min(begin.get(device, ended), ended - took)
    whole = sum(end - began for began in begin.values())
    return {
        "busy": sum(took for *_, took in shards) / whole,
        "seconds": end - min(begin.values()),
        "devices": len(begin),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--messages", action="store_true")
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--slow", action="store_true")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT)  # for workers
    os.environ.pop("RAY_ADDRESS", None)
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        os.environ["HOME"] = home  # Ray writes tokens there
        if given.blocks:
            found = drive(given.blocks)
        elif given.messages:
            found = post(MESSAGES[given.quick])
        else:
            each = PATCHES_A_NODE[given.quick]
            found = encode(given.nodes, slow=given.slow, patches_a_node=each)
    print(json.dumps(found | {"is_full": not given.quick}))


if __name__ == "__main__":
    main()
