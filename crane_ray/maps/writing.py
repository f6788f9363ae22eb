"""All files of one slide's maps."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import SlideError
from crane_ray.maps.folder import MapsFolder
from crane_ray.maps.galleries import (
    SampledPatch,
    check_grid,
    draw_gallery,
    read_sample,
    sample_rows,
    thumbnail,
)
from crane_ray.maps.pyramid import TILE_PX, write_pyramid
from crane_ray.maps.raster import MapPainter, check_picture_size, picture_of
from crane_ray.maps.regions import regions_geojson
from crane_ray.maps.scores import SlideScores, write_clam_scores, write_scores
from crane_ray.maps.settings import MapSettings
from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.pictures import write_picture
from crane_ray.slides.slide import SlideReader
from crane_ray.slides.tissue import TissueContours

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

SLIDE = "slide"
"""In place of a head's name: the slide without a map."""
MAX_JPEG_SIDE_PX = 65_500
BLURRED_BAND_PX = 1024
"""What is painted at a time: a blur reads beyond a window, which costs narrow ones most."""


@dataclass(frozen=True)
class MapFiles:
    """What was written for a slide: paths or URIs."""

    scores: tuple[str, ...] = ()
    pictures: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    galleries: tuple[str, ...] = ()
    patches: tuple[str, ...] = ()


def make_maps(
    scores: SlideScores,
    folder: MapsFolder,
    settings: MapSettings,
    *,
    reader: SlideReader | None,
    tissue: TissueContours | None = None,
    grid: PatchGrid | None = None,
) -> MapFiles:
    """Writes everything that the settings ask for of one slide, in place of what was there.

    Args:
        scores: of the slide.
        folder: where the run's maps lie.
        settings: what is made, and how it looks.
        reader: of the slide; None where its pixels are not at hand, which only maps on an empty
            canvas without samples do without.
        tissue: its contours, if known.
        grid: the patches that were scored, row for row; needed for samples.

    Raises:
        SlideError: the slide cannot be read, lacks the level or scale asked for, or a map is too
            large for its format.
        StorageError: something cannot be written.
    """
    painter = MapPainter(scores, settings, reader, tissue)
    _check(painter, reader, grid)
    for earlier in folder.slide_folders(scores.slide_id):
        # Nobody could tell files of other settings from those made now.
        storage.remove_tree(earlier)
    pictures: list[str] = []
    regions: list[str] = []
    galleries: list[str] = []
    patches: list[str] = []
    written = _write_scores(scores, folder, settings)
    for head in [*scores.heads, *([SLIDE] if settings.save_slide else [])]:
        pictures += _write_map(painter, folder, head)
    for head in scores.heads if settings.geojson else ():
        regions.append(folder.regions(scores.slide_id, head))
        tree = regions_geojson(scores, head, settings.regions_from)
        storage.put_bytes(regions[-1], json.dumps(tree).encode())
    if reader is not None and grid is not None:
        for head in scores.heads:
            sheets, files = _write_samples(reader, grid, painter, folder, head)
            galleries += sheets
            patches += files
    return MapFiles(written, tuple(pictures), tuple(regions), tuple(galleries), tuple(patches))


def _check(painter: MapPainter, reader: SlideReader | None, grid: PatchGrid | None) -> None:
    """Refuses what cannot be made before anything of before is taken away."""
    slide_id, settings = painter.scores.slide_id, painter.settings
    if reader is None and settings.save_slide:
        raise SlideError(
            f"slide {slide_id}: its pixels are not at hand, and --save-slide asks for them"
        )
    if settings.save_slide and SLIDE in painter.scores.heads:
        raise SlideError(
            f"slide {slide_id}: the map of the task {SLIDE} and the picture that --save-slide asks "
            "for would be the same file; leave one of them out"
        )
    if settings.samples and (reader is None or grid is None):
        raise SlideError(
            f"slide {slide_id}: its pixels are not at hand, and samples show them; ask for none "
            "with --set maps.samples=[]"
        )
    if grid is not None:
        check_grid(grid, painter.scores)
    if set(settings.formats) & {"jpg", "png"}:
        check_picture_size(painter)
    width, height = painter.canvas.finished_px
    if "jpg" in settings.formats and max(width, height) > MAX_JPEG_SIDE_PX:
        raise SlideError(
            f"slide {slide_id}: a jpg has at most {MAX_JPEG_SIDE_PX:,} px a side, "
            f"the map has {width:,} x {height:,}; take --format png or tif, or a coarser "
            "--vis-level"
        )


def _write_scores(
    scores: SlideScores, folder: MapsFolder, settings: MapSettings
) -> tuple[str, ...]:
    paths = [folder.scores(scores.slide_id)]
    write_scores(paths[0], scores)
    for head in scores.heads if settings.clam_scores else ():
        paths.append(folder.clam_scores(scores.slide_id, head))
        write_clam_scores(paths[-1], scores, head)
    return tuple(paths)


def _write_map(painter: MapPainter, folder: MapsFolder, head: str) -> tuple[str, ...]:
    """The map of a head, or the slide alone, in every format."""
    settings, canvas = painter.settings, painter.canvas
    whose = head if head in painter.scores.heads else None
    shrunk = canvas.finished_px != canvas.size_px
    picture = None
    if shrunk or set(settings.formats) & {"jpg", "png"}:
        picture = picture_of(painter, whose)
    paths = []
    for suffix in settings.formats:
        path = folder.picture(painter.scores.slide_id, head, suffix)
        if suffix == "tif":
            mpp = painter.scores.mpp
            write_pyramid(
                path,
                _bands(painter, whose) if picture is None else _cut(picture),
                canvas.finished_px,
                mpp_xy=None if mpp is None else canvas.mpp_xy(mpp),
                quality=settings.jpeg_quality,
            )
        else:
            assert picture is not None
            write_picture(path, picture, settings.jpeg_quality)
        paths.append(path)
    return tuple(paths)


def _bands(painter: MapPainter, head: str | None) -> Iterator[Picture]:
    """A map from top to bottom in rows of tiles, however large it is."""
    patches = None if head is None else painter.patches(head)
    height = BLURRED_BAND_PX if painter.settings.blur else TILE_PX
    for row in painter.windows(height):
        yield from _cut(np.concatenate([painter.paint(patches, one) for one in row], axis=1))


def _cut(picture: Picture) -> Iterator[Picture]:
    for top in range(0, len(picture), TILE_PX):
        yield picture[top : top + TILE_PX]


def _write_samples(
    reader: SlideReader,
    grid: PatchGrid,
    painter: MapPainter,
    folder: MapsFolder,
    head: str,
) -> tuple[list[str], list[str]]:
    """The galleries of a head, and the files of their patches."""
    scores, settings = painter.scores, painter.settings
    galleries, files = [], []
    for sample in settings.samples:
        shown: list[SampledPatch] = []
        rows = sample_rows(scores, head, sample)
        for patch in read_sample(reader, grid, scores, head, rows):
            name = patch.file_name(settings.patch_format)
            files.append(folder.patch(scores.slide_id, head, sample.name, name))
            write_picture(files[-1], patch.pixels, settings.jpeg_quality)
            shown.append(replace(patch, pixels=thumbnail(patch.pixels)))
        if shown:
            title = f"{scores.slide_id}   {head}   {sample.name}"
            galleries.append(folder.gallery(scores.slide_id, head, sample.name))
            write_picture(galleries[-1], draw_gallery(shown, title), settings.jpeg_quality)
    return galleries, files
