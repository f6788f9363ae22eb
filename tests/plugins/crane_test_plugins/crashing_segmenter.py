"""A segmenter whose process dies on one slide, as a decoding library's crash would make it."""

import os

from crane_ray.slides.params import TissueParams
from crane_ray.slides.segmenters import saturation
from crane_ray.slides.slide import SlideReader
from crane_ray.slides.tissue import TissueContours

POISONED_WIDTH_PX = 1000


def segment(reader: SlideReader, params: TissueParams) -> TissueContours:
    if reader.info.dimensions[0] == POISONED_WIDTH_PX:
        os._exit(1)
    return saturation.segment(reader, params)
