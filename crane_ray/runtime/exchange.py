"""A feature store as CLAM's files, a CPU task a slide on Ray Data."""

from contextlib import closing
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from crane_ray import storage
from crane_ray.errors import ConfigError, CraneError, StorageError
from crane_ray.features.clam_files import CLAM_FORMATS, ClamFormat, export_slide
from crane_ray.features.ledger import IndexRow, index_row
from crane_ray.features.store import FeatureStore
from crane_ray.manifest import LeftOut
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.exchange_jobs import ExportJob
from crane_ray.runtime.reporting import Reporter, Silent, Summary, recorded
from crane_ray.runtime.streams import stream_tasks
from crane_ray.slides.planning import failure_reason

DEAD_WORKER = (
    "its worker died each time it was tried, probably out of memory; try --cpus for fewer slides "
    "at a time"
)
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
    reporter, store = reporter or Silent(), FeatureStore.open(config.store)
    index = _chosen(store, config.slides)
    summary = Summary("export", config.to)
    unseen = set(index)
    with recorded("export", config, storage.join(config.to, "manifests")) as record:
        record.summarise = lambda: summary
        reporter.begin("exporting", slides=len(index))
        rows = ({**asdict(row), "mpp": row.mpp or 0.0} for row in index.values())
        kwargs = {
            "root": store.root,
            "folder": config.to,
            "formats": config.formats or CLAM_FORMATS,
        }
        try:
            with (
                connected(config.cluster),
                closing(stream_tasks(rows, export_task, kwargs=kwargs)) as results,
            ):
                for result in results:
                    unseen.discard(result["slide_id"])
                    _count_export(summary, result, reporter)
        finally:
            reporter.end()
        for slide_id in sorted(unseen):
            leave_out(summary, slide_id, DEAD_WORKER)
    assert record.summary is not None
    return record.summary


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
        row = index_row({**record, "mpp": record["mpp"] or None})
        result = {"slide_id": row.slide_id, "patches": 0, "written": 0, "reason": "", "fatal": ""}
        try:
            done = export_slide(store, row, folder, formats)
            result |= {"patches": done.patches, "written": len(done.written)}
        except CraneError as error:
            key = "fatal" if storage.is_fatal(error) else "reason"
            result[key] = failure_reason(row.slide_id, error)
        results.append(result)
    return pa.Table.from_pylist(results, schema=EXPORT_SCHEMA)


def _count_export(summary: Summary, result: dict[str, Any], reporter: Reporter) -> None:
    if result["fatal"]:
        raise StorageError(result["fatal"])
    reason = result["reason"]
    reporter.advance(slides=1, patches=result["patches"], failures=int(bool(reason)))
    if reason:
        reporter.note(f"{result['slide_id']}: {reason}")
        leave_out(summary, result["slide_id"], reason)
    elif result["written"]:
        summary.done += 1
        summary.patches += result["patches"]
    else:
        summary.skipped += 1


def leave_out(summary: Summary, slide_id: str, reason: str) -> None:
    """Takes a failed slide into a summary."""
    summary.left_out.append(LeftOut(slide_id=slide_id, status="failed", reason=reason))
