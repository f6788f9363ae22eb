"""Coordinates that CLAM or TRIDENT made, into a workspace, a CPU task a slide on Ray Data."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from crane_ray import storage
from crane_ray.errors import SlideError, StorageError, StoreError
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.exchange import DEAD_WORKER
from crane_ray.runtime.exchange_jobs import ImportCoordsJob
from crane_ray.runtime.reporting import Reporter, Silent, Summary, Throttle, recorded
from crane_ray.runtime.streams import stream_tasks
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

RESULT_SCHEMA = SCHEMA.append(pa.field("skipped", pa.bool_())).append(
    pa.field("fatal", pa.string())
)


def run_import_coords(config: ImportCoordsJob, reporter: Reporter | None = None) -> Summary:
    """Imports the coordinate files in a folder, so that ``crane-ray extract`` runs on them.

    Raises:
        ConfigError: there are no files or slides, or nothing says the scale of a patch.
        StoreError: the workspace has patches of another size or scale.
        CraneError: nothing could be started, or the workspace cannot be written any more.
    """
    reporter, workspace = reporter or Silent(), Workspace(config.work)
    entries = list_slides(config.slides.source, recursive=config.slides.recursive)
    matches = {m.slide_id: m for m in match_files(list_patch_files(config.source), entries)}
    rows = workspace.read_slides()
    spec = _spec(config, matches.values())
    _require_one_spec(workspace, rows, spec, matches)
    with recorded("import", config, workspace.manifests) as record:
        storage.put_bytes(workspace.config("import"), config.to_yaml().encode())
        run = CoordsImport(workspace, rows, matches, reporter)
        record.summarise = lambda: run.summary
        without = len(entries) - sum(match.entry is not None for match in matches.values())
        if without:
            reporter.note(f"{without} of {len(entries)} slides have no coordinate file")
        try:
            run.run(config, spec)
        finally:
            run.close()
    assert record.summary is not None
    return record.summary


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


class CoordsImport:
    """Takes the slides' rows into the table as they come back, and counts."""

    def __init__(
        self,
        workspace: Workspace,
        rows: dict[str, SlideRow],
        matches: dict[str, Match],
        reporter: Reporter,
    ) -> None:
        self.summary = Summary("import", workspace.root)
        self._workspace, self._rows, self._reporter = workspace, rows, reporter
        self._todo = {m.slide_id: m for m in matches.values() if m.entry is not None}
        for match in matches.values():
            if match.entry is None:
                self.summary.leave_out(match.slide_id, match.problem)
        self._save = Throttle(lambda: workspace.write_slides(rows.values()))

    def run(self, config: ImportCoordsJob, spec: PatchSpec) -> None:
        """Sends every slide through the cluster.

        Raises:
            StorageError: the workspace cannot be written any more.
        """
        self._reporter.begin("importing coordinates", slides=len(self._todo))
        unseen = set(self._todo)
        kwargs = {
            "root": self._workspace.root,
            "spec": spec,
            "staging": config.staging,
            "reader": config.reader,
        }
        with (
            connected(config.cluster),
            closing(stream_tasks(self._tasks(), import_task, kwargs=kwargs)) as results,
        ):
            for result in results:
                if result["fatal"]:
                    raise StorageError(result["fatal"])
                unseen.discard(result["slide_id"])
                if result["skipped"]:
                    self.summary.skipped += 1
                    self._reporter.advance(slides=1)
                else:
                    self._take(SlideRow.from_mapping(result))
        for slide_id in sorted(unseen):
            entry = self._todo[slide_id].entry
            assert entry is not None
            self._take(SlideRow(slide_id, entry.uri, "failed", entry.case_id, DEAD_WORKER))

    def close(self) -> None:
        """Writes what is there, however the run ended."""
        self._reporter.end()
        self._save(force=True)

    def _tasks(self) -> Iterator[dict[str, Any]]:
        for match in self._todo.values():
            assert match.entry is not None
            row = self._rows.get(match.slide_id)
            done = row is not None and row.status in {"ok", "no_tissue"}
            known = row.plan_fingerprint if row is not None and done else None
            yield {
                "path": match.path,
                "problem": match.problem,
                "known": known or "",
                "entry": match.entry.record(),
            }

    def _take(self, row: SlideRow) -> None:
        self._rows[row.slide_id] = row
        failed = row.status == "failed"
        self._reporter.advance(slides=1, patches=row.num_patches or 0, failures=int(failed))
        if failed:
            self._reporter.note(f"{row.slide_id}: {row.reason}")
            self.summary.leave_out(row.slide_id, row.reason)
        elif row.status == "no_tissue":
            self.summary.leave_out(row.slide_id, row.reason, "no_tissue")
        else:
            self.summary.done += 1
            self.summary.patches += row.num_patches or 0
        self._save()


def import_task(
    table: pa.Table, root: str, spec: PatchSpec, staging: StagingConfig, reader: str
) -> pa.Table:
    """The row of each slide in a block."""
    results: list[dict[str, Any]] = []
    for record in table.to_pylist():
        entry = Entry.from_record(record["entry"])
        match = Match(entry.slide_id, record["path"], entry, record["problem"])
        row, skipped, fatal = SlideRow(entry.slide_id, entry.uri, "failed"), False, ""
        try:
            made = import_coords(
                match,
                spec,
                Workspace(root),
                record["known"] or None,
                staging=staging,
                reader=reader,
            )
            row, skipped = made or row, made is None
        except StorageError as error:
            fatal = str(error)
        results.append({**asdict(row), "skipped": skipped, "fatal": fatal})
    return pa.Table.from_pylist(results, schema=RESULT_SCHEMA)
