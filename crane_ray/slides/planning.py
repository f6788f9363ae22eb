"""Patching of one slide, start to end: open, segment, place patches, write, and say how it went."""

import hashlib
import json
import logging
import time
from dataclasses import dataclass, replace

from crane_ray import storage
from crane_ray.errors import CraneError, ScaleError, SlideError
from crane_ray.plugins import load_plugin
from crane_ray.slides import pictures
from crane_ray.slides.listing import Entry
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patch_files import write_patches
from crane_ray.slides.patches import PatchSpec, plan_patches
from crane_ray.slides.slide import Slide, SlideReader, open_slide, scale_of
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
        with open_slide(slide) as reader:
            row = _plan(slide, _with_facts(row, reader, slide), reader, params, settings, workspace)
    except Exception as error:
        if storage.is_fatal(error):
            raise
        if not isinstance(error, CraneError):
            log.exception("slide %s", entry.slide_id)
        row = replace(row, status="failed", reason=failure_reason(entry.slide_id, error))
    return replace(row, seconds=round(time.perf_counter() - begun, 3))


def _plan(
    slide: Slide,
    row: SlideRow,
    reader: SlideReader,
    params: TissueParams,
    settings: PlanSettings,
    workspace: Workspace,
) -> SlideRow:
    tissue = _tissue(slide.slide_id, reader, params, settings)
    write_contours(workspace.contours(slide.slide_id), tissue)
    overview = pictures.read_overview(reader, params) if settings.pictures else None
    if overview is not None:
        drawn = pictures.draw_mask(overview, tissue, params)
        pictures.write_picture(workspace.mask(slide.slide_id), drawn)
    if settings.seg_only:
        return replace(row, status="ok" if len(tissue) else "no_tissue")
    if settings.spec.mpp is not None:
        row = replace(row, mpp=scale_of(slide, reader.info))
    mpp = row.mpp
    grid = plan_patches(tissue, reader.info, settings.spec, params, mpp, slide_id=slide.slide_id)
    if not len(grid):
        for stale in (workspace.patches(slide.slide_id), workspace.stitch(slide.slide_id)):
            storage.remove_tree(stale)
        why = "no tissue found" if not len(tissue) else "no patch fits the tissue found"
        hint = f"{why}; look at masks/{slide.slide_id}.jpg and lower tissue.sthresh or tissue.a_t"
        return replace(row, status="no_tissue", num_patches=0, reason=hint)
    if overview is not None:
        drawn = pictures.draw_stitch(overview, grid)
        pictures.write_picture(workspace.stitch(slide.slide_id), drawn)
    path = workspace.patches(slide.slide_id)
    write_patches(path, grid, reader.info, save_path=path.rsplit("/", 1)[0])
    return replace(
        row,
        status="ok",
        num_patches=len(grid),
        coords_checksum=grid.checksum(),
        spec_fingerprint=settings.spec.fingerprint(),
    )


def _with_facts(row: SlideRow, reader: SlideReader, slide: Slide) -> SlideRow:
    info = reader.info
    try:
        mpp = scale_of(slide, info)
    except ScaleError:
        mpp = info.mpp_xy[0] if info.mpp_xy else None
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


def _tissue(
    slide_id: str, reader: SlideReader, params: TissueParams, settings: PlanSettings
) -> TissueContours:
    given = _given_contours(settings, slide_id)
    if given:
        return read_contours(given).select(params.keep_ids, params.exclude_ids)
    segmenter = load_plugin("crane_ray.slides.segmenters", settings.segmenter)
    found: TissueContours = segmenter.segment(reader, params)
    return found


def _given_contours(settings: PlanSettings, slide_id: str) -> str | None:
    if settings.contours is None:
        return None
    path = storage.join(settings.contours, f"{slide_id}.geojson")
    return path if storage.exists(path) else None


def failure_reason(slide_id: str, error: Exception) -> str:
    """An error as the reason of one slide's failure, without the slide's name in front."""
    text = str(error) if isinstance(error, CraneError) else f"{type(error).__name__}: {error}"
    return text.removeprefix(f"slide {slide_id}: ")
