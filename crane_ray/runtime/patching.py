"""Slides -> tissue and patches, a CPU task a slide on Ray Data."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.jobs import PatchJob
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured import measured
from crane_ray.runtime.reporting import Reporter, Summary, recorded
from crane_ray.runtime.row_tables import FATAL, RowTable
from crane_ray.runtime.slide_tasks import slide_result
from crane_ray.runtime.streams import Row
from crane_ray.slides.listing import Entry, list_slides
from crane_ray.slides.params import TissueParams, override
from crane_ray.slides.planning import PlanSettings, plan_fingerprint, plan_slide
from crane_ray.slides.process_list import find_row, read_process_list, write_process_list
from crane_ray.slides.workspace import SCHEMA, SlideRow, Workspace

DEAD_WORKER = (
    "its worker died each time it was tried: a crash in the decoding library, or out of memory; "
    "check the file, and --cpus for fewer slides at a time"
)
RESULT_SCHEMA = SCHEMA.append(pa.field(FATAL, pa.string()))


@dataclass(frozen=True)
class PlannedSlide:
    """A slide of the cohort with the parameters it is to be patched with."""

    entry: Entry
    params: TissueParams


def run_patching(
    config: PatchJob, reporter: Reporter | None = None, *, reuse: bool = False
) -> Summary:
    """Patches a cohort into its workspace; slides that are done already are left alone.

    Args:
        config: the job.
        reporter: told how it goes.
        reuse: leave slides alone, too, that have patches of the same spec, however their tissue
            was found.

    Raises:
        CraneError: nothing could be started, or the workspace cannot be written any more.
    """
    workspace, settings = Workspace(config.work), plan_settings(config)
    planned = plan_cohort(config)
    with recorded("patch", config, workspace.manifests) as record:
        storage.put_bytes(workspace.config("patch"), config.to_yaml().encode())
        rows = workspace.read_slides()
        todo = {
            slide_id: slide
            for slide_id, slide in planned.items()
            if config.overwrite
            or not _is_done(slide, rows.get(slide_id), settings, workspace, reuse=reuse)
        }
        reporter = measured("patch", reporter)
        table = RowTable(rows, workspace.write_slides, reporter)
        record.summarise = lambda: table.summary("patch", workspace.root, planned, todo)
        try:
            patch_slides(config, settings, todo, table, reporter)
        finally:
            table.close()
            write_process_list(
                workspace.process_list,
                [row for slide_id, row in rows.items() if slide_id in planned],
                {slide_id: slide.params for slide_id, slide in planned.items()},
            )
    assert record.summary is not None
    return record.summary


def plan_settings(config: PatchJob) -> PlanSettings:
    """What of a config is the same for every slide."""
    return PlanSettings(
        spec=config.patch,
        segmenter=config.segmenter,
        contours=config.contours,
        seg_only=config.seg_only,
        pictures=config.pictures,
        reader=config.reader,
        staging=config.staging,
    )


def plan_cohort(config: PatchJob) -> dict[str, PlannedSlide]:
    """The slides of a config by slide_id, each with its own parameters.

    Raises:
        ConfigError: no slides, no such contours folder, or a process list that fits no slide.
    """
    if config.contours is not None and not storage.exists(config.contours):
        raise ConfigError(f"--contours {config.contours}: no such folder")
    entries = list_slides(config.slides.source, recursive=config.slides.recursive)
    if config.process_list is None:
        return {entry.slide_id: PlannedSlide(entry, config.tissue) for entry in entries}
    wanted = read_process_list(config.process_list)
    planned = {}
    for entry in entries:
        row = find_row(wanted, entry.slide_id, entry.uri)
        if row is not None:
            planned[entry.slide_id] = PlannedSlide(entry, override(config.tissue, row))
    if not planned:
        raise ConfigError(
            f"--process-list {config.process_list}: none of its {len(wanted)} slides with process "
            f"1 is among the {len(entries)} of --slides {config.slides.source}"
        )
    return planned


def patch_slides(
    config: PatchJob,
    settings: PlanSettings,
    todo: Mapping[str, PlannedSlide],
    table: RowTable[SlideRow],
    reporter: Reporter,
) -> None:
    """Sends slides through the cluster and takes their rows into the table.

    Raises:
        StorageError: the workspace cannot be written any more.
    """
    if not todo:
        return

    def dead(slide_id: str) -> SlideRow:
        entry = todo[slide_id].entry
        return SlideRow(slide_id, entry.uri, "failed", entry.case_id, DEAD_WORKER)

    reporter.begin("patching", slides=len(todo))
    with connected(config.cluster, landmarks_of("patch", config)):
        table.fill(
            _tasks(todo.values()),
            plan_task,
            kwargs={"settings": settings, "root": config.work},
            row_of=SlideRow.from_mapping,
            dead=dead,
            slide_ids=todo,
        )


def _tasks(slides: Iterable[PlannedSlide]) -> Iterator[Row]:
    for slide in slides:
        yield {"entry": slide.entry.record(), "params": slide.params.model_dump_json()}


def plan_task(table: pa.Table, settings: PlanSettings, root: str) -> pa.Table:
    """One small row for each slide of a block; pixels stay on the worker."""
    results: list[dict[str, Any]] = []
    for record in table.to_pylist():
        params = TissueParams.model_validate_json(record["params"])
        entry = Entry.from_record(record["entry"])
        blank = SlideRow(entry.slide_id, entry.uri, "failed")
        make = partial(plan_slide, entry, params, settings, Workspace(root))
        results.append(slide_result(blank, make))
    return pa.Table.from_pylist(results, schema=RESULT_SCHEMA)


def _is_done(
    slide: PlannedSlide,
    row: SlideRow | None,
    settings: PlanSettings,
    workspace: Workspace,
    *,
    reuse: bool,
) -> bool:
    if row is None or row.status == "failed" or slide.entry.problem:
        return False
    if reuse and row.uri == slide.entry.uri and row.status == "ok":
        is_same = row.spec_fingerprint == settings.spec.fingerprint()
    else:
        is_same = row.plan_fingerprint == plan_fingerprint(slide.entry, slide.params, settings)
    has_patches = row.status == "ok" and not settings.seg_only
    return is_same and (not has_patches or storage.exists(workspace.patches(row.slide_id)))
