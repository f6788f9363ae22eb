"""Where the lesions of a rejected heart lie in its tissue, how many and how large they are.

At 0.5 um/px a lesion is 2 to 4 patches of 256 px wide, where the tissue has room for it.
Frame: level-0 px, xy.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import cv2
import numpy as np

from crane_ray.errors import ConfigError
from crane_ray.testing.fragments import Spot, blob, find_spot, free_distance, room_downsample
from crane_ray.testing.stains import Canvas
from crane_ray.testing.truth import LESION_KINDS, Lesion, LesionKind, Mask, Ring, fill_ring

Grade = Literal["low", "high"]

_MIN_RADIUS_UM = 16.0
"""A smaller lesion would not show in any patch."""

_WORTHWHILE = 0.6
"""A lesion is left out where it would be smaller than this share of the size wished for."""


@dataclass(frozen=True)
class Diagnosis:
    """What a pathologist would find: any mix of lesions, and a grade where there is rejection."""

    cell: bool = False
    """Cellular rejection."""
    amr: bool = False
    """Antibody-mediated rejection."""
    quilty: bool = False
    """Quilty lesion, a benign mimic of rejection."""
    grade: Grade | None = None

    def __post_init__(self) -> None:
        if (self.cell or self.amr) != (self.grade is not None):
            raise ConfigError(
                f"grade {self.grade}: exactly the diagnoses with cell or amr carry a grade; "
                "give 'low' or 'high' with them and None otherwise"
            )

    @property
    def kinds(self) -> tuple[LesionKind, ...]:
        """The kinds of lesions that are there."""
        return tuple(kind for kind in LESION_KINDS if getattr(self, kind))


class _Extent(NamedTuple):
    num: tuple[int, int]
    radius_um: tuple[float, float]
    max_share: float
    """A lesion's radius is at most this share of the deepest tissue's distance to glass, so that
    on small slides, too, a high grade shows more than a low one."""


_QUILTY = _Extent((1, 2), (155.0, 190.0), max_share=0.65)
_EXTENTS: dict[LesionKind, dict[Grade, _Extent]] = {
    "cell": {
        "low": _Extent((1, 1), (155.0, 180.0), max_share=0.62),
        "high": _Extent((4, 6), (190.0, 260.0), max_share=0.85),
    },
    "amr": {
        "low": _Extent((1, 1), (155.0, 180.0), max_share=0.62),
        "high": _Extent((3, 4), (190.0, 240.0), max_share=0.85),
    },
    "quilty": {"low": _QUILTY, "high": _QUILTY},
}


def plan_lesions(
    rng: np.random.Generator, canvas: Canvas, diagnosis: Diagnosis
) -> tuple[Lesion, ...]:
    """Lesions of a diagnosis, each within the tissue and apart from the others.

    One of each kind at least; all of them are smaller where the tissue is.

    Raises:
        ConfigError: the slide is too small for one lesion of each kind.
    """
    wishes = _wishes(rng, canvas, diagnosis)
    share = 1.0
    while not wishes or share * max(radius for _, radius in wishes) >= canvas.px(_MIN_RADIUS_UM):
        lesions = _place(rng, canvas, [(kind, share * radius) for kind, radius in wishes])
        if {lesion.kind for lesion in lesions} == set(diagnosis.kinds):
            return lesions
        share *= 0.85
    raise ConfigError(
        f"a slide of {canvas.tissue.shape[1]} x {canvas.tissue.shape[0]} px at "
        f"{canvas.mpp:g} um/px has no room for {' and '.join(diagnosis.kinds)}; "
        "make size_px larger"
    )


def _place(
    rng: np.random.Generator, canvas: Canvas, wishes: list[tuple[LesionKind, float]]
) -> tuple[Lesion, ...]:
    """The lesions wished for, as far as there is room for them."""
    downsample = room_downsample(canvas.mpp)
    tissue = _coarse_tissue(canvas.tissue, downsample)
    free = tissue.copy()
    lesions: list[Lesion] = []
    for kind, radius in wishes:
        spot = _find_place(rng, tissue, free, kind, radius=radius, downsample=downsample)
        if spot.radius >= max(_WORTHWHILE * radius, canvas.px(_MIN_RADIUS_UM)):
            lesions.append(Lesion(kind, _within_tissue(canvas, blob(rng, spot), lesions)))
            disc = (round(spot.x / downsample), round(spot.y / downsample))
            cv2.circle(free, disc, int(spot.radius / downsample) + 2, (0,), -1)
    return tuple(lesions)


def _wishes(
    rng: np.random.Generator, canvas: Canvas, diagnosis: Diagnosis
) -> list[tuple[LesionKind, float]]:
    """Kind and radius (px) of each lesion wished for: first one of each kind, then the others.

    Quilty lesions need the border and come first.
    """
    firsts: list[tuple[LesionKind, float]] = []
    others: list[tuple[LesionKind, float]] = []
    downsample = room_downsample(canvas.mpp)
    depth_px = free_distance(_coarse_tissue(canvas.tissue, downsample)).max() * downsample
    for kind in sorted(diagnosis.kinds, key=lambda kind: kind != "quilty"):
        extent = _EXTENTS[kind][diagnosis.grade or "low"]
        num = int(rng.integers(*extent.num, endpoint=True))
        radii = rng.uniform(*extent.radius_um, size=num) / canvas.mpp
        radii = np.minimum(radii, extent.max_share * depth_px)
        firsts.append((kind, float(radii[0])))
        others += [(kind, float(radius)) for radius in radii[1:]]
    return firsts + others


def _coarse_tissue(tissue: Mask, downsample: float) -> Mask:
    """The pixels of a smaller mask that are tissue altogether."""
    size = [max(1, int(side // downsample)) for side in tissue.shape[::-1]]
    fitting = tissue[: int(size[1] * downsample), : int(size[0] * downsample)]
    small = cv2.resize(fitting, size, interpolation=cv2.INTER_AREA)
    return np.where(small == 255, 255, 0).astype(np.uint8)


def _find_place(
    rng: np.random.Generator,
    tissue: Mask,
    free: Mask,
    kind: LesionKind,
    *,
    radius: float,
    downsample: float,
) -> Spot:
    if kind != "quilty":
        return find_spot(rng, free, radius, downsample=downsample)
    while radius > downsample:
        spot = _border_spot(rng, tissue, free, radius=radius, downsample=downsample)
        if spot is not None:
            return spot
        radius *= 0.9
    return Spot(0, 0, 0)


def _border_spot(
    rng: np.random.Generator, tissue: Mask, free: Mask, *, radius: float, downsample: float
) -> Spot | None:
    """A disc that a fragment's outer border cuts, its greater part in free tissue; or None."""
    outlines = cv2.findContours(tissue, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    solid = cv2.drawContours(np.zeros_like(tissue), outlines, -1, (255,), cv2.FILLED)
    depth = free_distance(solid) * downsample / radius
    # What is taken or a hole keeps a distance that the outer border need not keep.
    blocked = cv2.subtract(solid, free)
    clear = free_distance(255 - blocked) * downsample / radius
    fitting = np.flatnonzero((depth > 0.5) & (depth < 0.65) & (clear > 0.95) & (free > 0))
    if not len(fitting):
        return None
    row, column = divmod(int(rng.choice(fitting)), free.shape[1])
    return Spot((column + 0.5) * downsample, (row + 0.5) * downsample, radius)


def _within_tissue(canvas: Canvas, ring: Ring, earlier: list[Lesion]) -> Ring:
    """The largest part of a ring that is tissue by a margin of 2 px, and no earlier lesion."""
    window, corner = canvas.window(ring, margin_um=2)
    part = np.zeros_like(window.tissue)
    fill_ring(part, ring - corner, 255)
    for lesion in earlier:
        fill_ring(part, lesion.outline - corner, 0)
    part = cv2.bitwise_and(part, cv2.erode(window.tissue, np.ones((5, 5), np.uint8)))
    contours = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    largest = cv2.approxPolyDP(max(contours, key=cv2.contourArea), 0.75, closed=True)
    return np.asarray(largest.reshape(-1, 2) + 0.5 + corner, dtype=np.float64)
