"""Pictures of a slide: the mask (thumbnail with contours) and the stitch (patches in place)."""

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.slide import SlideReader
from crane_ray.slides.tissue import TissueContours

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB uint8."""

ENOUGH_PX = 1024
"""The coarsest level whose longer side has this many pixels is pictured."""
MAX_PX = 2048
MAX_LEVEL_PIXELS = 100_000_000
MAX_NUMBERED = 200
TISSUE_RGB = (0, 160, 0)
HOLE_RGB = (0, 60, 255)
JPEG_QUALITY = 88
PNG_EFFORT = 3
"""Of zlib: half the time of the usual 6 for a few percent of the size."""


@dataclass(frozen=True)
class Overview:
    """A slide at picture size."""

    rgb: Picture
    scale_xy: tuple[float, float]
    """Picture pixels per level-0 pixel along x and y."""


def read_overview(reader: SlideReader, params: TissueParams) -> Overview | None:
    """The slide at about 1,000 to 2,000 px; None where no level is small enough to be read whole.

    Raises:
        SlideError: the level cannot be decoded.
    """
    info = reader.info
    fine = [level for level, dims in enumerate(info.level_dimensions) if max(dims) >= ENOUGH_PX]
    level = (
        max(fine, default=0) if params.vis_level < 0 else min(params.vis_level, info.num_levels - 1)
    )
    width, height = info.level_dimensions[level]
    if width * height > MAX_LEVEL_PIXELS:
        return None
    rgb = reader.read_region((0, 0), level, (width, height))
    if max(width, height) > MAX_PX:
        shrink = MAX_PX / max(width, height)
        width, height = max(1, round(width * shrink)), max(1, round(height * shrink))
        rgb = np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))
    return Overview(rgb, (width / info.dimensions[0], height / info.dimensions[1]))


def draw_mask(overview: Overview, tissue: TissueContours, params: TissueParams) -> Picture:
    """The thumbnail with tissue outlined in green, holes in blue, each contour with its number."""
    picture = overview.rgb.copy()
    scale = np.array(overview.scale_xy)
    width = max(1, round(params.line_thickness * float(np.sqrt(scale.prod()))))
    for contour in tissue.contours:
        for ring, colour in [
            (contour.outline, TISSUE_RGB),
            *((h, HOLE_RGB) for h in contour.holes),
        ]:
            points = np.rint(ring * scale).astype(np.int32)[:, None]
            cv2.polylines(picture, [points], True, colour, width, cv2.LINE_AA)
    if len(tissue) <= MAX_NUMBERED:
        for number, contour in enumerate(tissue.contours):
            _write(picture, str(number), (contour.outline.mean(axis=0) * scale).astype(int))
    return picture


def draw_stitch(overview: Overview, grid: PatchGrid) -> Picture:
    """The patches in place at full brightness, what is left out faded towards white."""
    original = overview.rgb
    picture = (255 - (255 - original.astype(np.int16)) // 4).astype(np.uint8)
    scale = np.array(overview.scale_xy)
    corners = np.rint(grid.xy * scale).astype(int)
    ends = np.rint((grid.xy + np.array(grid.geometry.footprint_xy)) * scale).astype(int)
    ends = np.maximum(ends, corners + 1)
    for (left, top), (right, bottom) in zip(corners, ends, strict=True):
        picture[top:bottom, left:right] = original[top:bottom, left:right]
    if len(grid) and (ends - corners).min() >= 6:
        for (left, top), (right, bottom) in zip(corners, ends, strict=True):
            cv2.rectangle(picture, (left, top), (right - 1, bottom - 1), (90, 90, 90), 1)
    return picture


def write_picture(path: str, picture: Picture, quality: int = JPEG_QUALITY) -> None:
    """Writes a picture as JPEG or, where the path ends in .png, as PNG, whole or not at all.

    Args:
        path: where.
        picture: what.
        quality: of JPEG, 1 to 100.
    """
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    if path.endswith(".png"):
        done, data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, PNG_EFFORT])
    else:
        done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    storage.put_bytes(path, data.tobytes())


def _write(picture: Picture, text: str, centre: npt.NDArray[np.int_]) -> None:
    size = max(0.5, max(picture.shape) / 1200)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    place = (int(centre[0] - width / 2), int(centre[1] + height / 2))
    for colour, line in (((255, 255, 255), 5), ((0, 0, 0), 2)):
        cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, colour, line, cv2.LINE_AA)
