"""Patches of a grid as uint8 batches, decoded by threads a bounded number of batches ahead."""

from collections import deque
from collections.abc import Generator
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.slide import SlideReader

Pixels = npt.NDArray[np.uint8]
"""(B, S, S, 3) RGB uint8, S the spec's size_px."""


@dataclass(frozen=True)
class PatchBatch:
    """Consecutive patches of one grid."""

    start: int
    """Row of the first patch in the grid."""
    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)


def read_patch(reader: SlideReader, grid: PatchGrid, row: int) -> Pixels:
    """One patch as (S, S, 3): read at the grid's level, resampled by area where sizes differ.

    Raises:
        SlideError: its pixels cannot be decoded.
    """
    geometry, size = grid.geometry, grid.spec.size_px
    x, y = grid.xy[row].tolist()
    read_size = (geometry.read_size_px, geometry.read_size_px)
    region = reader.read_region((x, y), geometry.read_level, read_size)
    if geometry.read_size_px == size:
        return region
    return np.asarray(cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def read_batches(
    reader: SlideReader,
    grid: PatchGrid,
    rows: range,
    batch_size: int,
    *,
    pool: Executor,
    ahead: int = 2,
) -> Generator[PatchBatch, None, None]:
    """Batches over a run of rows, in order, while the next ones are being decoded.

    Args:
        reader: the open slide; used by the pool's threads at once.
        grid: where the patches are.
        rows: consecutive rows of the grid.
        batch_size: patches a batch; the last one may be smaller.
        pool: threads that decode.
        ahead: batches decoded beyond the one in hand. At most ``ahead + 2`` are in memory: the
            caller still holds one while the next is begun.

    Raises:
        SlideError: a patch cannot be decoded.
    """
    starts = deque(range(rows.start, rows.stop, batch_size))
    waiting: deque[tuple[PatchBatch, list[Future[None]]]] = deque()
    try:
        while starts or waiting:
            while starts and len(waiting) <= ahead:
                start = starts.popleft()
                stop = min(start + batch_size, rows.stop)
                waiting.append(_submit(reader, grid, start, stop, pool))
            batch, futures = waiting[0]
            for future in futures:
                future.result()
            waiting.popleft()
            yield batch
    finally:
        _give_up([future for _, futures in waiting for future in futures])


def _give_up(futures: list[Future[None]]) -> None:
    """Cancels what has not begun and waits for what has.

    The caller closes the reader next, and closing a slide under a thread that decodes it takes
    the process down. After an error that includes the rest of the batch it happened in.
    """
    for future in futures:
        future.cancel()
    for future in futures:
        if not future.cancelled():
            future.exception()


def _submit(
    reader: SlideReader, grid: PatchGrid, start: int, stop: int, pool: Executor
) -> tuple[PatchBatch, list[Future[None]]]:
    size = grid.spec.size_px
    pixels = np.empty((stop - start, size, size, 3), dtype=np.uint8)

    def fill(row: int) -> None:
        pixels[row - start] = read_patch(reader, grid, row)

    return PatchBatch(start, pixels), [pool.submit(fill, row) for row in range(start, stop)]
