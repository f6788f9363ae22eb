"""A reader whose process dies over one slide, as a decoding library's crash would make it.

Or it reads nothing of a slide for as long as a test needs to do its harm.
"""

import os
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crane_ray.errors import SlideError
from crane_ray.slides.readers import openslide, tiff
from crane_ray.slides.readers.tiff import TiffReader

from .faults import hold, note, order

CALLS = count(1)


class PoisonedReader(TiffReader):
    name = "poisoned"

    def __init__(self, path: Path) -> None:
        super().__init__(path, lambda: openslide.open_reader(path))
        self._slide = path.stem

    def read_regions(
        self, xy: npt.NDArray[np.int64], level: int, out: npt.NDArray[np.uint8]
    ) -> None:
        if self._slide == order("poison"):
            note("deaths", f"{self._slide} {os.getpid()}")
            os._exit(1)
        every = int(order("reads that fail") or 0)
        if every and next(CALLS) % every == 0:
            note("failed reads", self._slide)
            raise SlideError(f"{self._slide}: Input/output error")
        super().read_regions(xy, level, out)


def detects(path: Path) -> bool:
    return tiff.detects(path)


def open_reader(path: Path) -> PoisonedReader:
    hold(path.stem)
    return PoisonedReader(path)
