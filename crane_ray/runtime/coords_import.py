"""Coordinates that CLAM or TRIDENT made, into a workspace, a CPU task a slide on Ray Data."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from crane_ray import storage
from crane_ray.errors import SlideError, StoreError
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.exchange import DEAD_WORKER
from crane_ray.runtime.exchange_jobs import ImportCoordsJob
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured import measured
from crane_ray.runtime.reporting import Reporter, Summary, recorded
from crane_ray.runtime.row_tables import FATAL, RowTable
from crane_ray.runtime.slide_tasks import slide_result
from crane_ray.runtime.streams import Row
from crane_ray.slides.importing import (
    Match,
    decide_spec,
    import_coords,
    list_patch_files,
    match_files,
)
from crane_ray.slides.listing import Entry, list_slides
from crane_ray.slides.patch_files import read_foreign_patches
from crane_ray.slides.patches import PatchSpec
from crane_ray.slides.staging import StagingConfig
from crane_ray.slides.workspace import SCHEMA, SlideRow, Workspace

RESULT_SCHEMA = SCHEMA.append(pa.field("skipped", pa.bool_())).append(pa.field(FATAL, pa.string()))


def run_import_coords(config: ImportCoordsJob, reporter: Reporter | None = None) -> Summary:
    """Imports the coordinate files in a folder, so that ``crane-ray extract`` runs on them.

    Raises:
        ConfigError: there are no files or slides, or nothing says the scale of a patch.
        StoreError: the workspace has patches of another size or scale.
        CraneError: nothing could be started, or the workspace cannot be written any more.
    """
    reporter, workspace = measured("import", reporter), Workspace(config.work)
    entries = list_slides(config.slides.source, recursive=config.slides.recursive)
    matches = {m.slide_id: m for m in match_files(list_patch_files(config.source), entries)}
    rows = workspace.read_slides()
    spec = _spec(config, matches.values())
    _require_one_spec(workspace, rows, spec, matches)
    with recorded("import", config, workspace.manifests) as record:
        storage.put_bytes(workspace.config("import"), config.to_yaml().encode())
        todo = {m.slide_id: m.entry for m in matches.values() if m.entry is not None}
        table = RowTable(rows, workspace.write_slides, reporter)
        record.summarise = lambda: _summary(workspace, matches.values(), todo, table)
        if len(todo) < len(entries):
            missing = len(entries) - len(todo)
            reporter.note(f"{missing} of {len(entries)} slides have no coordinate file")
        reporter.begin("importing coordinates", slides=len(todo))
        try:
            import_slides(config, spec, todo, _tasks(matches.values(), rows), table)
        finally:
            table.close()
    assert record.summary is not None
    return record.summary


def _summary(
    workspace: Workspace,
    matches: Iterable[Match],
    todo: Mapping[str, Entry],
    table: RowTable[SlideRow],
) -> Summary:
    summary = table.summary("import", workspace.root, todo, todo)
    for match in matches:
        if match.entry is None:
            summary.leave_out(match.slide_id, match.problem)
    return summary


def _spec(config: ImportCoordsJob, matches: Iterable[Match]) -> PatchSpec:
    """The spec of the first file that can be read: all patches of a workspace have one."""
    reason = "none of its files belongs to one of --slides"
    for match in matches:
        if match.entry is None or match.problem:
            continue
        try:
            found = read_foreign_patches(match.path)
        except SlideError as error:
            reason = str(error)
            continue
        return decide_spec(found, config.scale, f"--from {config.source}")
    raise StoreError(f"--from {config.source}: no coordinates that can be used: {reason}")


def _require_one_spec(
    workspace: Workspace, rows: dict[str, SlideRow], spec: PatchSpec, matches: dict[str, Match]
) -> None:
    others = [
        row.slide_id
        for row in rows.values()
        if row.status == "ok"
        and row.spec_fingerprint not in (None, spec.fingerprint())
        and row.slide_id not in matches
    ]
    if others:
        raise StoreError(
            f"workspace {workspace.root}: {len(others)} of its slides ({others[0]}, ...) have "
            f"patches of another size or scale than {spec.canonical_json()}; import into another "
            "--work"
        )


def import_slides(
    config: ImportCoordsJob,
    spec: PatchSpec,
    todo: Mapping[str, Entry],
    tasks: Iterable[Row],
    table: RowTable[SlideRow],
) -> None:
    """Sends slides through the cluster and takes their rows into the table.

    Raises:
        StorageError: the workspace cannot be written any more.
    """

    def dead(slide_id: str) -> SlideRow:
        entry = todo[slide_id]
        return SlideRow(slide_id, entry.uri, "failed", entry.case_id, DEAD_WORKER)

    kwargs = {
        "root": config.work,
        "spec": spec,
        "staging": config.staging,
        "reader": config.reader,
    }
    with connected(config.cluster, landmarks_of("import coords", config)):
        table.fill(tasks, import_task, kwargs=kwargs, row_of=_row_of, dead=dead, slide_ids=todo)


def _row_of(result: Row) -> SlideRow | None:
    return None if result["skipped"] else SlideRow.from_mapping(result)


def _tasks(matches: Iterable[Match], rows: Mapping[str, SlideRow]) -> Iterator[Row]:
    for match in matches:
        if match.entry is None:
            continue
        row = rows.get(match.slide_id)
        done = row is not None and row.status in {"ok", "no_tissue"}
        known = row.plan_fingerprint if row is not None and done else None
        yield {
            "path": match.path,
            "problem": match.problem,
            "known": known or "",
            "entry": match.entry.record(),
        }


def import_task(
    table: pa.Table, root: str, spec: PatchSpec, staging: StagingConfig, reader: str
) -> pa.Table:
    """The row of each slide in a block."""
    results: list[dict[str, Any]] = []
    for record in table.to_pylist():
        entry = Entry.from_record(record["entry"])
        match = Match(entry.slide_id, record["path"], entry, record["problem"])
        make = partial(
            import_coords,
            match,
            spec,
            Workspace(root),
            record["known"] or None,
            staging=staging,
            reader=reader,
        )
        results.append(slide_result(SlideRow(entry.slide_id, entry.uri, "failed"), make))
    return pa.Table.from_pylist(results, schema=RESULT_SCHEMA)
