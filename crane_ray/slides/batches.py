"""Patches of a grid as uint8 pixels, in an order in which neighbours share the file's tiles."""

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.slide import RegionsReader, SlideReader

Pixels = npt.NDArray[np.uint8]
"""(B, S, S, 3) RGB uint8, S the spec's size_px."""
Rows = npt.NDArray[np.int64]
"""(n,) rows of a grid."""

CELL_STEPS = 8
"""Patches a side of the squares that are read one after the other: 64 patches off the lattice of
tiles then need 81 tiles, where a column of 64 needs 130."""

SCRATCH_BYTES = 32 * 2**20
"""Pixels that one thread holds before they are resampled."""


def reading_order(grid: PatchGrid, rows: range) -> Rows:
    """A run of rows, sorted by squares of `CELL_STEPS` patches; depends on the grid alone.

    Squares go from left to right, then down: planned grids run down their columns, so a run of
    them is narrow, and the tiles on the seam of two rows of squares are still at hand.
    """
    xy = grid.xy[rows.start : rows.stop]
    cells = np.floor(xy / (np.asarray(grid.geometry.step_xy) * CELL_STEPS))
    return rows.start + np.lexsort((xy[:, 0], xy[:, 1], cells[:, 0], cells[:, 1]))


def fill_patches(reader: SlideReader, grid: PatchGrid, rows: Rows, out: Pixels) -> None:
    """Decodes patches into (n, S, S, 3): read at the grid's level, resampled where sizes differ.

    Resampling is by area, from ``read_size_px`` to the spec's size.

    Raises:
        SlideError: pixels of one of them cannot be decoded.
    """
    read_px, size = grid.geometry.read_size_px, grid.spec.size_px
    if read_px == size:
        _fill(reader, grid, rows, out)
        return
    at_once = max(1, SCRATCH_BYTES // (read_px * read_px * 3))
    for start in range(0, len(rows), at_once):
        part = rows[start : start + at_once]
        read = np.empty((len(part), read_px, read_px, 3), dtype=np.uint8)
        _fill(reader, grid, part, read)
        for place, region in enumerate(read, start):
            out[place] = cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA)


def read_patch(reader: SlideReader, grid: PatchGrid, row: int) -> Pixels:
    """One patch as (S, S, 3).

    Raises:
        SlideError: its pixels cannot be decoded.
    """
    pixels = np.empty((1, grid.spec.size_px, grid.spec.size_px, 3), dtype=np.uint8)
    fill_patches(reader, grid, np.array([row]), pixels)
    patch: Pixels = pixels[0]
    return patch


def _fill(reader: SlideReader, grid: PatchGrid, rows: Rows, out: Pixels) -> None:
    level, read_px = grid.geometry.read_level, grid.geometry.read_size_px
    if isinstance(reader, RegionsReader):
        reader.read_regions(grid.xy[rows], level, out)
        return
    for place, (x, y) in enumerate(grid.xy[rows].tolist()):
        out[place] = reader.read_region((x, y), level, (read_px, read_px))
