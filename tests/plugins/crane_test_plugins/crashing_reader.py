"""A reader whose process dies when it opens one slide, as a decoding library's crash would."""

import os
from pathlib import Path

from crane_ray.slides.readers import openslide
from crane_ray.slides.slide import SlideReader

POISONED = "c"


def detects(path: Path) -> bool:
    return openslide.detects(path)


def open_reader(path: Path) -> SlideReader:
    if path.stem == POISONED:
        os._exit(1)
    return openslide.open_reader(path)
