"""What a workspace has to show: slides, runs of maps, diagnoses; read again when they change."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from crane_ray import storage
from crane_ray.errors import CraneError, StoreError
from crane_ray.maps.folder import FOLDER_NAME, MapRow, MapsFolder, MapsHeader, list_maps
from crane_ray.slides.slide import Slide
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.tables import read_arrow
from crane_ray.viewer.paths import inside
from crane_ray.viewer.predictions import Prediction, of_assessment, of_maps

LOOK_EVERY_S = 5.0
LOOK_SHARE = 0.02
"""Share of the time that may go into looking for changes: large folders are looked at rarely."""


@dataclass(frozen=True)
class Run:
    """The maps of one run."""

    name: str
    """Its folder below heatmaps."""
    folder: MapsFolder
    header: MapsHeader
    rows: Mapping[str, MapRow]

    def predictions(self, slide_id: str) -> list[Prediction]:
        """What its networks say of a slide; nothing where it has no maps of it."""
        row = self.rows.get(slide_id)
        return [] if row is None or row.status != "ok" else of_maps(row, self.header.tasks)

    def has_maps(self, slide_id: str) -> bool:
        """True where there are scores of a slide."""
        row = self.rows.get(slide_id)
        return row is not None and row.status == "ok"


@dataclass(frozen=True)
class Snapshot:
    """A workspace at one time."""

    slides: Mapping[str, SlideRow] = field(default_factory=dict)
    runs: Mapping[str, Run] = field(default_factory=dict)
    diagnoses: Mapping[str, list[Prediction]] = field(default_factory=dict)
    """By case."""
    problems: tuple[str, ...] = ()
    """What could not be read, in words."""
    stamp: str = ""
    """Changes with the content."""

    def run(self, name: str | None) -> Run | None:
        """The run of a name, the first one where none is asked for; None if there is none.

        The first one has maps of the most slides, and those that the diagnosis rests on (not dense)
        where several do.
        """
        if name:
            return self.runs.get(name)
        return next(iter(self.runs.values()), None)


class Catalogue:
    """The latest snapshot of a workspace; safe to use from several threads."""

    def __init__(self, work: str, assessment: str | None = None) -> None:
        self.workspace = Workspace(work)
        self._assessment = assessment
        self._lock = threading.Lock()
        self._snapshot = Snapshot()
        self._look_at = 0.0

    def snapshot(self) -> Snapshot:
        """The workspace as it is now, or was a few seconds ago.

        One thread looks for changes; the others go on with what is known meanwhile, once there is
        anything.
        """
        is_first = self._look_at == 0.0
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=is_first):
            try:
                self._look_if_due()
            finally:
                self._lock.release()
        return self._snapshot

    def slide(self, slide_id: str) -> SlideRow | None:
        """A slide's row; None where the workspace has no such slide."""
        return self.snapshot().slides.get(slide_id)

    def own_file(self, path: str) -> str:
        """A file of the workspace; see `inside`."""
        return inside(self.workspace.root, path)

    def _look_if_due(self) -> None:
        begun = time.monotonic()
        if begun < self._look_at:
            return
        self._snapshot = self._look(self._snapshot)
        took = time.monotonic() - begun
        self._look_at = begun + max(LOOK_EVERY_S, took / LOOK_SHARE)

    def _look(self, before: Snapshot) -> Snapshot:
        problems: list[str] = []
        folders: list[MapsFolder] = []
        try:
            folders = list_maps(self.workspace.root)
            stamp = self._stamp(folders)
            if stamp == before.stamp:
                return before
        except CraneError as error:
            problems.append(str(error))
            stamp = ""
        slides = self._slides(problems)
        found = (self._run(folder, problems) for folder in folders)
        runs = sorted((run for run in found if run is not None), key=_rank)
        for run in runs:
            unknown = len(run.rows.keys() - slides.keys())
            if unknown:
                problems.append(
                    f"maps {run.name}: {unknown:,} of their slides are not in the workspace's "
                    "slides.parquet and cannot be shown; run crane-ray patch for them"
                )
        return Snapshot(
            slides,
            {run.name: run for run in runs},
            self._diagnoses(problems),
            tuple(problems),
            stamp,
        )

    def _stamp(self, folders: list[MapsFolder]) -> str:
        paths = [self.workspace.slides_table, self._assessment_path() or ""]
        paths += [path for one in folders for path in (one.header_path, one.index_path)]
        there = [storage.facts_of(path) for path in paths if path and storage.exists(path)]
        return "|".join(f"{fact.uri} {fact.size} {fact.version}" for fact in there)

    def _slides(self, problems: list[str]) -> dict[str, SlideRow]:
        try:
            self.own_file(self.workspace.slides_table)
            return self.workspace.read_slides()
        except CraneError as error:
            problems.append(str(error))
            return {}

    def _run(self, folder: MapsFolder, problems: list[str]) -> Run | None:
        name = folder.root.removeprefix(storage.join(self.workspace.root, FOLDER_NAME) + "/")
        try:
            self.own_file(folder.header_path)
            self.own_file(folder.index_path)
            return Run(name, folder, folder.read_header(), folder.read_index())
        except CraneError as error:
            problems.append(f"maps {name}: {error}")
            return None

    def _assessment_path(self) -> str | None:
        if self._assessment is not None:
            return self._assessment
        own = storage.join(self.workspace.root, "assessment", "assessment.parquet")
        return own if storage.exists(own) else None

    def _diagnoses(self, problems: list[str]) -> dict[str, list[Prediction]]:
        path = self._assessment_path()
        if path is None:
            return {}
        try:
            if self._assessment is None:
                self.own_file(path)
            table = read_arrow(path, what="table of diagnoses", hint="run crane-ray assess again")
            if "case_id" not in table.column_names:
                raise StoreError(f"{path}: no table of diagnoses, it has no case_id")
            return of_assessment(table)
        except CraneError as error:
            problems.append(str(error))
            return {}


def _rank(run: Run) -> tuple[int, bool, str]:
    return -sum(map(run.has_maps, run.rows)), run.header.dense, run.name


def as_slide(row: SlideRow) -> Slide:
    """The slide behind a row of the table."""
    return Slide(row.slide_id, row.uri, row.case_id or "", row.mpp)
