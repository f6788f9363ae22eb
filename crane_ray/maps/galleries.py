"""Samples of a slide's patches: the most and least attended, or some between, as pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from crane_ray.errors import SlideError
from crane_ray.maps.lattice import step_px
from crane_ray.maps.scores import SlideScores
from crane_ray.maps.settings import SampleConfig
from crane_ray.slides.batches import fill_patches
from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.slide import SlideReader

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""
Rows = npt.NDArray[np.int64]
"""(k,) rows of the scores."""

SHOWN_PX = 224
"""Width and height of a patch in a gallery."""
MARGIN_PX, TEXT_PX, LABEL_PX, TITLE_PX = 12, 15, 44, 40
MOST_COLUMNS, FEW_COLUMNS, FEW = 10, 5, 25
AT_ONCE = 64
"""Patches in memory at full size: 12 MB of 256 px."""

CROWDED = 0.9
"""Patches whose step is below this share of their width overlap on purpose."""
MOST_SHARED = 0.25
"""Of the area of a patch that a patch before it in a sample may cover, where they overlap so."""


@dataclass(frozen=True)
class SampledPatch:
    """A patch of a sample and its pixels."""

    rank: int
    """From 1, in the sample's order."""
    xy: tuple[int, int]
    """Level-0 px."""
    percentile: float
    """0 to 1."""
    pixels: Picture
    """(S, S, 3), at the scale that the encoder saw."""

    def file_name(self, suffix: str) -> str:
        """What the patch's file is called."""
        x, y = self.xy
        return f"{self.rank:02d}_x{x}_y{y}_p{100 * self.percentile:.1f}.{suffix}"


def sample_rows(scores: SlideScores, head: str, sample: SampleConfig) -> Rows:
    """Which patches a sample has, at most k, in its order.

    ``topk`` begins with the highest score, ``reverse_topk`` with the lowest, ``range_sample`` draws
    without replacement from the percentiles between score_start and score_end (both included) and
    sorts from the highest. Equal scores are in the order of the patches. Where a map's patches
    overlap, one that shares more than a quarter of its area with one before it is left out: the
    sample would show one place k times.

    Raises:
        StoreError: there is no such head.
    """
    raw_N, percentile_N = scores.of(head, "raw"), scores.of(head)
    order = np.argsort(raw_N if sample.mode == "reverse_topk" else -raw_N, kind="stable")
    if sample.mode == "range_sample":
        inside = np.flatnonzero(
            (percentile_N >= np.float32(sample.score_start))
            & (percentile_N <= np.float32(sample.score_end))
        )
        drawn = np.random.default_rng(sample.seed).permutation(inside)
        chosen = _apart(scores, drawn, sample.k)
        return order[np.isin(order, chosen)]
    return _apart(scores, order, sample.k)


def read_sample(
    reader: SlideReader, grid: PatchGrid, scores: SlideScores, head: str, rows: Rows
) -> Iterator[SampledPatch]:
    """The patches of a sample one after the other, decoded some at a time.

    Raises:
        SlideError: the grid is not that of the scores, or a patch cannot be decoded.
    """
    check_grid(grid, scores)
    percentile_N, size = scores.of(head), grid.spec.size_px
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        pixels = np.empty((len(part), size, size, 3), dtype=np.uint8)
        fill_patches(reader, grid, part, pixels)
        for number, row in enumerate(part.tolist()):
            x, y = grid.xy[row].tolist()
            yield SampledPatch(start + number + 1, (x, y), float(percentile_N[row]), pixels[number])


def check_grid(grid: PatchGrid, scores: SlideScores) -> None:
    """Refuses a grid that does not have the scored patches row for row.

    Raises:
        SlideError: this one does not.
    """
    if len(grid) != len(scores) or not (grid.xy == scores.xy).all():
        raise SlideError(
            f"slide {scores.slide_id}: its {len(grid)} patches are not the {len(scores)} that were "
            "scored; make the maps anew with --overwrite"
        )


def thumbnail(pixels: Picture) -> Picture:
    """A patch at the size that galleries show."""
    smaller = len(pixels) > SHOWN_PX
    how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(pixels, (SHOWN_PX, SHOWN_PX), interpolation=how), dtype=np.uint8)


def draw_gallery(patches: Sequence[SampledPatch], title: str) -> Picture:
    """All patches of a sample in one picture, under each its rank, percentile and coordinates."""
    columns = FEW_COLUMNS if len(patches) <= FEW else MOST_COLUMNS
    columns = max(1, min(columns, len(patches)))
    rows = -(-len(patches) // columns)
    across, down = SHOWN_PX + MARGIN_PX, SHOWN_PX + LABEL_PX
    font, heading = ImageFont.load_default(TEXT_PX), ImageFont.load_default(TEXT_PX + 3)
    width = max(columns * across + MARGIN_PX, round(heading.getlength(title)) + 2 * MARGIN_PX)
    sheet = Image.new("RGB", (width, TITLE_PX + rows * down + MARGIN_PX), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX), title, fill="black", font=heading)
    for number, patch in enumerate(patches):
        row, column = divmod(number, columns)
        x, y = MARGIN_PX + column * across, TITLE_PX + row * down
        sheet.paste(Image.fromarray(thumbnail(patch.pixels)), (x, y))
        draw.rectangle((x, y, x + SHOWN_PX - 1, y + SHOWN_PX - 1), outline=(120, 120, 120))
        lines = (
            f"{patch.rank}   percentile {100 * patch.percentile:.1f}",
            f"x {patch.xy[0]}  y {patch.xy[1]}",
        )
        for line, text in enumerate(lines):
            place = (x, y + SHOWN_PX + 3 + line * (TEXT_PX + 3))
            draw.text(place, text, fill="black", font=font)
    return np.asarray(sheet)


def _apart(scores: SlideScores, order: npt.NDArray[Any], most: int) -> Rows:
    """The first patches of an order that do not show the same place."""
    footprint = scores.footprint_px
    if step_px(scores.xy, footprint) >= CROWDED * footprint:
        return np.asarray(order[:most], dtype=np.int64)
    chosen: list[int] = []
    kept = np.empty((0, 2))
    for row in order.tolist():
        xy = scores.xy[row].astype(np.float64)
        shared = (footprint - np.abs(kept - xy)).clip(0).prod(axis=1) / footprint**2
        if (shared > MOST_SHARED).any():
            continue
        chosen.append(row)
        kept = np.concatenate([kept, xy[None]])
        if len(chosen) == most:
            break
    return np.asarray(chosen, dtype=np.int64)
