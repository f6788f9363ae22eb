"""A feature store read back against its checksums, a CPU task a slide on Ray Data."""

import time
from contextlib import closing

import pyarrow as pa

from crane_ray.cohort.findings import counted
from crane_ray.errors import StorageError
from crane_ray.features.ledger import Receipt, index_row
from crane_ray.features.store import FeatureStore
from crane_ray.logs import about
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.jobs import VerifyJob
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured import measured
from crane_ray.runtime.reporting import Reporter, Summary
from crane_ray.runtime.slide_tasks import log_outcome
from crane_ray.runtime.streams import stream_tasks

RESULT_SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("rows", pa.int64()),
        ("damaged", pa.list_(pa.int32())),
        ("unread", pa.string()),
    ]
)


def run_verification(config: VerifyJob, reporter: Reporter | None = None) -> Summary:
    """Reads every committed slide of a store; damaged ones are failures.

    With ``repair`` they are taken out of the store, so that the next extraction makes them again;
    those that could not be read just now stay.

    Raises:
        StoreError: there is no store, or its index cannot be read.
    """
    begun = time.perf_counter()
    reporter = measured("verify", reporter)
    store = FeatureStore.open(config.store)
    index = store.index.read()
    summary = Summary("verify", store.root)
    unchecked, found = set(index), set[str]()
    reporter.begin("verifying", slides=len(index))
    rows = (row.record() for row in index.values())
    try:
        kwargs = {"root": store.root}
        with (
            connected(config.cluster, landmarks_of("verify", config)),
            closing(stream_tasks(rows, verify_task, kwargs=kwargs)) as results,
        ):
            for result in results:
                unchecked.discard(result["slide_id"])
                damaged, unread = len(result["damaged"]), result["unread"]
                failed = bool(damaged or unread)
                reporter.advance(slides=1, patches=result["rows"], failures=int(failed))
                summary.patches += result["rows"]
                if unread:
                    summary.leave_out(result["slide_id"], f"not checked: {unread}")
                elif damaged:
                    found.add(result["slide_id"])
                    reason = f"{counted(damaged, 'shard')} missing or not as written"
                    summary.leave_out(result["slide_id"], reason + _next(config))
                else:
                    summary.done += 1
    finally:
        reporter.end()
    for slide_id in sorted(unchecked):
        summary.leave_out(slide_id, "its worker died each time it was read")
    if config.repair and found:
        _discard(store, found)
    summary.seconds = round(time.perf_counter() - begun, 1)
    return summary


def verify_task(table: pa.Table, root: str) -> pa.Table:
    """The damaged shards of each slide in a block."""
    store = FeatureStore.open(root)
    results = []
    for record in table.to_pylist():
        row = index_row(record)
        result = {"slide_id": row.slide_id, "rows": row.num_patches, "damaged": [], "unread": ""}
        with about(slide_id=row.slide_id):
            try:
                result["damaged"] = store.damaged_shards(row)
            except StorageError as error:  # storage that does not answer has not lost anything
                result["unread"] = str(error)
            log_outcome("failed" if result["damaged"] or result["unread"] else "ok")
        results.append(result)
    return pa.Table.from_pylist(results, schema=RESULT_SCHEMA)


def _discard(store: FeatureStore, slides: set[str]) -> None:
    receipts: list[Receipt] = []
    for slide_id, shards in store.ledger.slides():
        if slide_id in slides:
            receipts += shards.values()
    store.discard(receipts)


def _next(config: VerifyJob) -> str:
    if config.repair:
        return "; taken out of the store, run crane-ray extract again"
    return "; --repair takes it out, so that crane-ray extract makes it again"
