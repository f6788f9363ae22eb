"""What the network that erred looked at: maps and top patches of the errors, as small JPEGs."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import CraneError, SlideError
from crane_ray.maps.galleries import read_sample, sample_rows
from crane_ray.maps.raster import render
from crane_ray.maps.scores import SlideScores
from crane_ray.maps.settings import MapSettings, SampleConfig
from crane_ray.report.error_scores import Scored, ScoreSource, SlideFacts
from crane_ray.report.mistakes import Mistake
from crane_ray.report.mistakes_section import ErrorPicture
from crane_ray.slides.opening import open_staged
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.planning import failure_reason
from crane_ray.slides.slide import Slide, SlideReader
from crane_ray.slides.staging import StagingConfig
from crane_ray.slides.tissue import read_contours
from crane_ray.slides.workspace import SlideRow, Workspace

log = logging.getLogger(__name__)

MAP_PX, PATCH_PX, NUM_PATCHES = 640, 112, 5
"""Longer side of a map, side of a patch, and how many of them: about 80 KB an error."""
QUALITY = 80
MOST_PICTURES = 24
"""Of a report, so that it stays below some MB."""
MOST_SECONDS = 90.0
"""After so long, errors that are left have no picture: a report is to be there soon."""
MARGIN = 0.03
"""Of the patches' bounding box, around it."""

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Places:
    """Where slides are, and what is done to reach them."""

    workspace: Workspace
    rows: Mapping[str, SlideRow]
    fetch: bool = False
    """Whether slides of object storage are fetched, whole."""


def draw_errors(
    errors: Sequence[Sequence[Mistake]], source: ScoreSource, places: Places
) -> dict[Mistake, ErrorPicture]:
    """Pictures of the errors, the worst of each task first; one that fails says why.

    Args:
        errors: of each task, the worst first.
        source: of the attention.
        places: of the slides.
    """
    drawn: dict[Mistake, ErrorPicture] = {}
    begun = time.monotonic()
    for place in range(max((len(one) for one in errors), default=0)):
        for error in (one[place] for one in errors if place < len(one)):
            if len(drawn) == MOST_PICTURES:
                return drawn
            if time.monotonic() - begun > MOST_SECONDS:
                why = f"the others took {MOST_SECONDS:.0f} s; crane-ray heatmap makes all maps"
                drawn[error] = ErrorPicture(failure=why)
                continue
            drawn[error] = _drawn(error, source, places)
    return drawn


def _drawn(error: Mistake, source: ScoreSource, places: Places) -> ErrorPicture:
    """A picture, or why there is none: whatever is wrong with a slide costs that slide alone."""
    try:
        slide = _slide(error, places)
        with open_staged(slide, StagingConfig()) as (_, reader):
            facts = SlideFacts(reader.info.dimensions, slide.mpp)
            scored = source.scores(error, places.workspace, facts)
            return _picture(reader, scored, places.workspace)
    except Exception as problem:
        if not isinstance(problem, CraneError):
            log.warning("error's picture of slide %s", error.slide_id, exc_info=True)
        return ErrorPicture(failure=failure_reason(error.slide_id, problem))


def _slide(error: Mistake, places: Places) -> Slide:
    row = places.rows.get(error.slide_id)
    if row is None:
        raise SlideError(f"it is not in {places.workspace.slides_table}")
    if storage.is_uri(row.uri) and not places.fetch:
        raise SlideError(
            f"it lies at {row.uri}, and is not fetched unless asked for: crane-ray report with "
            f"--work {places.workspace.root}"
        )
    return Slide(row.slide_id, row.uri, row.case_id, row.mpp)


def _picture(reader: SlideReader, scored: Scored, work: Workspace) -> ErrorPicture:
    scores, head = scored.scores, scored.head
    path = work.contours(scores.slide_id)
    tissue = read_contours(path) if storage.exists(path) else None
    drawn = render(scores, head, _settings(scores, reader), reader, tissue)
    height, width = drawn.shape[:2]
    patches, note = _patches(reader, scores, head, work)
    return ErrorPicture(
        map_jpeg=_jpeg(drawn),
        map_size=(width, height),
        patches=patches,
        patch_px=PATCH_PX,
        head=head,
        whose=scored.whose,
        note=note,
    )


def _settings(scores: SlideScores, reader: SlideReader) -> MapSettings:
    """The part of the slide that has patches, about `MAP_PX` large."""
    region = _region(scores)
    downsample = max(max(region[2:]) / MAP_PX, 1.0)
    if scores.mpp is not None:
        mpp = scores.mpp * downsample
        return MapSettings(roi=region, map_mpp=mpp, max_size_px=MAP_PX)
    level = reader.info.best_level(downsample)
    return MapSettings(roi=region, vis_level=level, max_size_px=MAP_PX)


def _region(scores: SlideScores) -> tuple[int, int, int, int]:
    """The patches' bounding box with some room, level-0 px: most of a slide is glass."""
    low = scores.xy.min(axis=0)
    high = scores.xy.max(axis=0) + scores.footprint_px
    room = MARGIN * (high - low).max() + scores.footprint_px / 4
    left, top = (int(edge) for edge in np.maximum(low - room, 0))
    right, bottom = (int(edge) for edge in np.minimum(high + room, scores.dimensions))
    return left, top, max(right - left, 1), max(bottom - top, 1)


def _patches(
    reader: SlideReader, scores: SlideScores, head: str, work: Workspace
) -> tuple[tuple[bytes, ...], str]:
    """The patches with the highest attention, and why there are none if so."""
    rows = sample_rows(scores, head, SampleConfig(name="top", k=NUM_PATCHES))
    try:
        grid = read_patches(work.patches(scores.slide_id), scores.slide_id)
        found = [_small(it.pixels) for it in read_sample(reader, grid, scores, head, rows)]
    except SlideError as problem:
        return (), f"no patches: {failure_reason(scores.slide_id, problem)}"
    return tuple(_jpeg(patch) for patch in found), ""


def _small(pixels: Picture) -> Picture:
    how = cv2.INTER_AREA if len(pixels) > PATCH_PX else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (PATCH_PX, PATCH_PX), interpolation=how), dtype=np.uint8)


def _jpeg(picture: Picture) -> bytes:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    assert done
    return bytes(data.tobytes())
