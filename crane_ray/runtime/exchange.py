"""A feature store as CLAM's files, a CPU task a slide on Ray Data."""

import time
from collections import deque
from contextlib import closing
from typing import Any

import pyarrow as pa
import ray

from crane_ray import storage
from crane_ray.errors import ConfigError, CraneError, StorageError
from crane_ray.features.clam_files import CLAM_FORMATS, ClamFormat, export_slide
from crane_ray.features.feature_files import SUBFOLDERS
from crane_ray.features.ledger import IndexRow, index_row
from crane_ray.features.store import FeatureStore
from crane_ray.logs import about
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.exchange_jobs import ExportJob
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured import measured
from crane_ray.runtime.reporting import Reporter, Summary, recorded
from crane_ray.runtime.slide_tasks import log_outcome
from crane_ray.runtime.streams import stream_tasks
from crane_ray.slides.planning import failure_reason

DEAD_WORKER = (
    "its worker died each time it was tried, probably out of memory; try --cpus for fewer slides "
    "at a time"
)
EARLY_AT_ONCE = 1
"""Slides that are written beside a running extraction: it keeps the CPUs."""
EXPORT_SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("patches", pa.int64()),
        ("written", pa.int32()),
        ("reason", pa.string()),
        ("fatal", pa.string()),
    ]
)


def run_export(config: ExportJob, reporter: Reporter | None = None) -> Summary:
    """Writes the slides of a store as CLAM's files; those that are there already are left alone.

    Raises:
        StoreError: there is no store, or its index cannot be read.
        ConfigError: a slide that is asked for is not in it.
        StorageError: the folder cannot be written.
    """
    reporter, store = measured("export", reporter), FeatureStore.open(config.store)
    index = _chosen(store, config.slides)
    summary = Summary("export", config.to)
    with recorded("export", config, storage.join(config.to, "manifests")) as record:
        record.summarise = lambda: summary
        with connected(config.cluster, landmarks_of("export clam", config)):
            export_slides(store, index, summary, reporter, formats=config.formats)
    assert record.summary is not None
    return record.summary


def export_slides(
    store: FeatureStore,
    index: dict[str, IndexRow],
    summary: Summary,
    reporter: Reporter,
    *,
    formats: tuple[ClamFormat, ...] = (),
) -> None:
    """Writes slides of a store into the summary's folder, on the connected Ray.

    Raises:
        StorageError: the folder cannot be written.
    """
    unseen, began = set(index), time.time()
    reporter.begin("exporting", slides=len(index))
    rows = (row.record() for row in index.values())
    kwargs = {"root": store.root, "folder": summary.where, "formats": formats or CLAM_FORMATS}
    try:
        with closing(stream_tasks(rows, export_task, kwargs=kwargs)) as results:
            for result in results:
                unseen.discard(result["slide_id"])
                _count_export(summary, result, reporter)
    finally:
        reporter.end()
    for slide_id in sorted(unseen):
        summary.leave_out(slide_id, DEAD_WORKER)
    for subfolder in SUBFOLDERS.values():
        storage.remove_unfinished(storage.join(summary.where, subfolder), before=began)


class EarlyExport:
    """Writes slides as CLAM's files as soon as they are whole, a few at a time, beside a run.

    Nothing is lost where that fails or is cut short: `export_slides` at the end of the run looks at
    every slide and finds most of them done.
    """

    def __init__(self, store: FeatureStore, folder: str) -> None:
        self._kwargs = {"root": store.root, "folder": folder, "formats": CLAM_FORMATS}
        self._waiting: deque[IndexRow] = deque()
        self._running: list[Any] = []
        self._task = ray.remote(num_cpus=0, max_retries=0)(export_task)

    def add(self, row: IndexRow) -> None:
        """A slide is whole."""
        self._waiting.append(row)
        if self._running:
            _, self._running = ray.wait(
                self._running, num_returns=len(self._running), timeout=0, fetch_local=False
            )
        while self._waiting and len(self._running) < EARLY_AT_ONCE:
            table = pa.Table.from_pylist([self._waiting.popleft().record()])
            self._running.append(self._task.remote(table, **self._kwargs))


def _chosen(store: FeatureStore, slides: tuple[str, ...]) -> dict[str, IndexRow]:
    index = store.index.read()
    missing = [slide_id for slide_id in slides if slide_id not in index]
    if missing:
        raise ConfigError(
            f"--slides: {', '.join(missing)} not in the store {store.root}, which has "
            f"{len(index)} slides; extract them first, or look for the ids in its index.parquet"
        )
    return {slide_id: index[slide_id] for slide_id in slides} if slides else index


def export_task(
    table: pa.Table, root: str, folder: str, formats: tuple[ClamFormat, ...]
) -> pa.Table:
    """What came of the export of each slide in a block."""
    store = FeatureStore.open(root)
    results = []
    for record in table.to_pylist():
        row = index_row(record)
        result: dict[str, Any] = {
            "slide_id": row.slide_id,
            "patches": 0,
            "written": 0,
            "reason": "",
            "fatal": "",
        }
        with about(slide_id=row.slide_id):
            try:
                done = export_slide(store, row, folder, formats)
                result |= {"patches": done.patches, "written": len(done.written)}
            except CraneError as error:
                key = "fatal" if storage.is_fatal(error) else "reason"
                result[key] = failure_reason(row.slide_id, error)
            why = result["reason"] or result["fatal"]
            log_outcome("failed" if why else "ok", why, result["patches"])
        results.append(result)
    return pa.Table.from_pylist(results, schema=EXPORT_SCHEMA)


def _count_export(summary: Summary, result: dict[str, Any], reporter: Reporter) -> None:
    if result["fatal"]:
        raise StorageError(result["fatal"])
    reason = result["reason"]
    reporter.advance(slides=1, patches=result["patches"], failures=int(bool(reason)))
    if reason:
        reporter.failure(result["slide_id"], reason)
        summary.leave_out(result["slide_id"], reason)
    elif result["written"]:
        summary.done += 1
        summary.patches += result["patches"]
    else:
        summary.skipped += 1
