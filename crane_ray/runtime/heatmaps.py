"""Stored features -> attention maps, a CPU task a slide on Ray Data."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.maps.folder import SCHEMA, MapRow, MapsFolder, MapsHeader
from crane_ray.maps.slide_maps import MapTask, MapWork, map_slide
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.dense_maps import densify
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.heatmap_plan import Plan, make_plan
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured import measured
from crane_ray.runtime.reporting import Reporter, Summary, recorded
from crane_ray.runtime.row_tables import FATAL, RowTable
from crane_ray.runtime.slide_tasks import slide_result

DEAD_WORKER = (
    "its worker died each time it was tried: out of memory, or a crash in the decoding library; "
    "check the slide's file, and --cpus for fewer slides at a time"
)
RESULT_SCHEMA = SCHEMA.append(pa.field(FATAL, pa.string()))


def run_heatmaps(job: HeatmapJob, reporter: Reporter | None = None) -> Summary:
    """Makes the maps of a job; slides that have the same ones already are left alone.

    Raises:
        ConfigError: networks, features and slides do not fit together.
        CraneError: nothing could be started, or the folder cannot be written any more.
    """
    reporter = measured("heatmap", reporter)
    plan = make_plan(job)
    folder = MapsFolder(job.folder)
    begin_folder(folder, plan.header, overwrite=job.overwrite)
    for note in plan.notes:
        reporter.note(note)
    with recorded("heatmap", job, folder.manifests) as record:
        storage.put_bytes(storage.join(folder.root, "config.yaml"), job.to_yaml().encode())
        if job.dense.overlap:
            densify(job, plan, reporter)
        rows = folder.read_index()
        for slide_id, reason in plan.failed.items():
            rows[slide_id] = MapRow(slide_id, "", "failed", reason=reason)
        todo = {
            slide_id: task
            for slide_id, task in plan.tasks.items()
            if job.overwrite or not _is_done(task, rows.get(slide_id), folder)
        }
        table = RowTable(rows, folder.write_index, reporter)
        record.summarise = lambda: _summary(folder, plan, todo, table)
        try:
            map_slides(job, plan, todo, table, reporter)
        finally:
            table.close()
    assert record.summary is not None
    return record.summary


def begin_folder(folder: MapsFolder, header: MapsHeader, *, overwrite: bool) -> None:
    """Writes whose maps a folder holds; maps of other networks there give way, or stay.

    Raises:
        ConfigError: there are maps of other networks or features, and none may be overwritten.
    """
    if storage.exists(folder.header_path):
        there = folder.read_header() if not overwrite else None
        if there is not None and (differs := _differences(there, header)):
            raise ConfigError(
                f"--out {folder.root}: holds maps of other {' and '.join(differs)} (of "
                f"{there.model}); give another folder with --out, or --overwrite to make all of "
                "them anew"
            )
        if there is None and _is_of_others(folder, header):
            folder.clear()
    folder.write_header(header)


def _differences(there: MapsHeader, here: MapsHeader) -> list[str]:
    """In what two headers differ, beyond what a slide's own maps say."""
    pairs = {
        "networks": (there.checkpoints, here.checkpoints),
        "heads": ((there.heads, there.tasks), (here.heads, here.tasks)),
        "features": (
            (there.recipe_fingerprint or there.features, there.dense),
            (here.recipe_fingerprint or here.features, here.dense),
        ),
    }
    return [name for name, (one, other) in pairs.items() if one != other]


def _is_of_others(folder: MapsFolder, header: MapsHeader) -> bool:
    try:
        return bool(_differences(folder.read_header(), header))
    except Exception:  # a header that cannot be read is to be overwritten, whatever it held
        return True


def map_slides(
    job: HeatmapJob,
    plan: Plan,
    todo: Mapping[str, MapTask],
    table: RowTable[MapRow],
    reporter: Reporter,
) -> None:
    """Sends slides through the cluster and takes their rows into the table.

    Raises:
        StorageError: the folder cannot be written any more.
    """
    if not todo:
        return

    def dead(slide_id: str) -> MapRow:
        task = todo[slide_id]
        return MapRow(slide_id, task.uri, "failed", task.case_id, DEAD_WORKER)

    patches = sum(task.bag.num_patches for task in todo.values())
    reporter.begin("mapping", slides=len(todo), patches=patches or None)
    with connected(job.cluster, landmarks_of("heatmap", job)):
        table.fill(
            ({"task": task.model_dump_json()} for task in todo.values()),
            map_task,
            kwargs={"work": plan.work},
            row_of=MapRow.from_mapping,
            dead=dead,
            slide_ids=todo,
        )


def _summary(
    folder: MapsFolder, plan: Plan, todo: Mapping[str, MapTask], table: RowTable[MapRow]
) -> Summary:
    summary = table.summary("heatmap", folder.root, plan.tasks, todo)
    for slide_id, reason in plan.failed.items():
        summary.leave_out(slide_id, reason)
    summary.facts = {
        "checkpoints": dict(plan.work.checkpoints),
        "features": plan.header.features,
        "notes": plan.notes,
    }
    return summary


def map_task(table: pa.Table, work: MapWork) -> pa.Table:
    """One small row for each slide of a block; features and pixels stay on the worker."""
    results: list[dict[str, Any]] = []
    for record in table.to_pylist():
        task = MapTask.model_validate_json(record["task"])
        blank = MapRow(task.slide_id, task.uri, "failed")
        results.append(slide_result(blank, partial(map_slide, task, work)))
    return pa.Table.from_pylist(results, schema=RESULT_SCHEMA)


def _is_done(task: MapTask, row: MapRow | None, folder: MapsFolder) -> bool:
    if row is None or row.status != "ok" or row.fingerprint != task.fingerprint():
        return False
    return storage.exists(folder.scores(task.slide_id))
