"""Synthetic haematoxylin and eosin slides of heart biopsies, with the truth about each."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from crane_ray.testing.fragments import plan_fragments
from crane_ray.testing.lesion_painting import paint_lesion
from crane_ray.testing.lesions import Diagnosis, plan_lesions
from crane_ray.testing.myocardium import paint_myocardium
from crane_ray.testing.stains import Canvas, develop
from crane_ray.testing.truth import SlideTruth


@dataclass(frozen=True, eq=False)
class PaintedSlide:
    """A slide's pixels, (H, W, 3) uint8 RGB at level 0, and what is painted where."""

    image: npt.NDArray[np.uint8]
    truth: SlideTruth


def paint_slide(
    rng: np.random.Generator,
    *,
    size_px: tuple[int, int] = (4096, 3072),
    mpp: float = 0.5,
    diagnosis: Diagnosis | None = None,
    num_fragments: int | None = None,
) -> PaintedSlide:
    """A biopsy on glass: one to five fragments of myocardium with the lesions of a diagnosis.

    The same generator state and arguments give the same pixels and truth. Sizes of cells,
    vessels and lesions are those of real tissue in um, so that `mpp` decides their size in px.

    Args:
        rng: drawn from.
        size_px: (width, height).
        mpp: um/px.
        diagnosis: lesions to paint; None paints healthy tissue.
        num_fragments: how many fragments; None draws their number.

    Raises:
        ConfigError: the slide is too small for its lesions.
    """
    tissue = plan_fragments(rng, size_px, mpp, num_fragments)
    canvas = Canvas.blank(size_px, mpp, tissue)
    lesions = plan_lesions(rng, canvas, diagnosis or Diagnosis())
    paint_myocardium(rng, canvas, tissue)
    for lesion in lesions:
        paint_lesion(rng, canvas, lesion)
    return PaintedSlide(develop(rng, canvas), SlideTruth(tissue, lesions))
