"""Patching of one slide, start to end: open, segment, place patches, write, and say how it went."""

import hashlib
import json
import logging
import time
from dataclasses import dataclass, field, replace

from crane_ray import storage
from crane_ray.errors import CraneError, ScaleError, SlideError
from crane_ray.plugins import load_plugin
from crane_ray.slides.listing import Entry
from crane_ray.slides.opening import open_staged
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patch_files import write_patches
from crane_ray.slides.patches import PatchSpec, plan_patches
from crane_ray.slides.pictures import draw_mask, draw_stitch, read_overview, write_picture
from crane_ray.slides.slide import Slide, SlideInfo, SlideReader, scale_of
from crane_ray.slides.staging import StagingConfig
from crane_ray.slides.tissue import TissueContours, read_contours, write_contours
from crane_ray.slides.workspace import SlideRow, Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlanSettings:
    """What is the same for every slide of a patching run."""

    spec: PatchSpec
    segmenter: str = "saturation"
    contours: str | None = None
    """A folder of edited GeoJSON files that stand in for the segmentation."""
    seg_only: bool = False
    """Segment and draw, but place no patches."""
    pictures: bool = True
    reader: str = "auto"
    staging: StagingConfig = field(default_factory=StagingConfig)
    """How slides of far storage come to the node."""


def plan_fingerprint(entry: Entry, params: TissueParams, settings: PlanSettings) -> str:
    """Fingerprint of all that decides a slide's patches; edited contours count by content."""
    given = _given_contours(settings, entry.slide_id)
    parts = {
        "uri": entry.uri,
        "mpp": entry.mpp,
        "spec": settings.spec.canonical_json(),
        "segmenter": settings.segmenter,
        "params": params.model_dump(mode="json", exclude={"preset"}),
        "contours": hashlib.sha256(storage.read_bytes(given)).hexdigest() if given else None,
        "seg_only": settings.seg_only,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def plan_slide(
    entry: Entry, params: TissueParams, settings: PlanSettings, workspace: Workspace
) -> SlideRow:
    """Segments a slide, places its patches and writes contours, pictures and coordinates.

    A slide that cannot be used ends as a row with status ``failed`` and the reason.

    Raises:
        StorageError: the workspace cannot be written, for this slide as for any other.
    """
    begun = time.perf_counter()
    row = SlideRow(entry.slide_id, entry.uri, "failed", case_id=entry.case_id)
    try:
        if entry.problem:
            raise SlideError(entry.problem)
        row = replace(row, plan_fingerprint=plan_fingerprint(entry, params, settings))
        slide = Slide(entry.slide_id, entry.uri, entry.case_id, entry.mpp)
        with open_staged(slide, settings.staging, settings.reader) as (local, reader):
            planner = _Planner(slide, reader, params, settings, workspace)
            row = planner.plan(with_facts(row, reader, local))
    except Exception as error:
        if storage.is_fatal(error):
            raise
        if not isinstance(error, CraneError):
            log.exception("slide %s", entry.slide_id)
        row = replace(row, status="failed", reason=failure_reason(entry.slide_id, error))
    return replace(row, seconds=round(time.perf_counter() - begun, 3))


@dataclass(frozen=True)
class _Planner:
    """One open slide and all that its patching needs."""

    slide: Slide
    reader: SlideReader
    params: TissueParams
    settings: PlanSettings
    workspace: Workspace

    def plan(self, row: SlideRow) -> SlideRow:
        """The slide's row, its files written."""
        slide_id, spec = self.slide.slide_id, self.settings.spec
        if spec.mpp is not None and not self.settings.seg_only:
            row = replace(row, mpp=scale_of(self.slide, self.reader.info))
        tissue = self.find_tissue()
        target = self.workspace.contours(slide_id)
        if _given_contours(self.settings, slide_id) != storage.absolute(target):
            write_contours(target, tissue)
        wants_pictures = self.settings.pictures
        overview = read_overview(self.reader, self.params) if wants_pictures else None
        if overview is not None:
            mask = draw_mask(overview, tissue, self.params)
            write_picture(self.workspace.mask(slide_id), mask)
        if self.settings.seg_only:
            return replace(row, status="ok" if len(tissue) else "no_tissue")
        info = self.reader.info
        mpp = known_mpp(self.slide, info)
        grid = plan_patches(tissue, info, spec, self.params, mpp, slide_id=slide_id)
        if not len(grid):
            return self.without_patches(row, tissue)
        if overview is not None:
            write_picture(self.workspace.stitch(slide_id), draw_stitch(overview, grid))
        path = self.workspace.patches(slide_id)
        write_patches(path, grid, info, save_path=path.rsplit("/", 1)[0])
        return replace(
            row,
            status="ok",
            num_patches=len(grid),
            coords_checksum=grid.checksum(),
            spec_fingerprint=spec.fingerprint(),
        )

    def find_tissue(self) -> TissueContours:
        """The slide's tissue: from an edited file where there is one, else segmented."""
        given = _given_contours(self.settings, self.slide.slide_id)
        if given:
            return read_contours(given).select(self.params.keep_ids, self.params.exclude_ids)
        segmenter = load_plugin("crane_ray.slides.segmenters", self.settings.segmenter)
        found: TissueContours = segmenter.segment(self.reader, self.params)
        return found

    def without_patches(self, row: SlideRow, tissue: TissueContours) -> SlideRow:
        """A recorded outcome; files of an earlier plan that had patches go."""
        slide_id = row.slide_id
        for stale in (self.workspace.patches(slide_id), self.workspace.stitch(slide_id)):
            storage.remove_tree(stale)
        why = "no tissue found" if not len(tissue) else "no patch fits the tissue found"
        hint = f"{why}; look at masks/{slide_id}.jpg and lower tissue.sthresh or tissue.a_t"
        return replace(row, status="no_tissue", num_patches=0, reason=hint)


def with_facts(row: SlideRow, reader: SlideReader, slide: Slide) -> SlideRow:
    """A slide's row with what its file says of it."""
    info = reader.info
    mpp = known_mpp(slide, info)
    if mpp is None and info.mpp_xy:
        mpp = info.mpp_xy[0]
    return replace(
        row,
        size=storage.size_bytes(slide.uri),
        vendor=info.vendor,
        width_px=info.dimensions[0],
        height_px=info.dimensions[1],
        mpp=mpp,
        power=info.objective_power,
        levels=info.num_levels,
        reader=reader.name,
    )


def known_mpp(slide: Slide, info: SlideInfo) -> float | None:
    """The slide's level-0 resolution, um/px; None where it has none that can be used."""
    try:
        return scale_of(slide, info)
    except ScaleError:
        return None


def _given_contours(settings: PlanSettings, slide_id: str) -> str | None:
    if settings.contours is None:
        return None
    path = storage.join(storage.absolute(settings.contours), f"{slide_id}.geojson")
    return path if storage.exists(path) else None


def failure_reason(slide_id: str, error: Exception) -> str:
    """An error as the reason of one slide's failure, without the slide's name in front."""
    text = str(error) if isinstance(error, CraneError) else f"{type(error).__name__}: {error}"
    return text.removeprefix(f"slide {slide_id}: ")
