"""Patches as rectangles, and the mean of their values wherever they lie over one another.

Sums are whole numbers, so that no rounding of one patch reaches another: a patch by itself keeps
its value to the last bit that matters, and a window shows what that part of the whole shows.
"""

from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Scalar = TypeVar("Scalar", bound=np.generic)

FIXED = 2.0**40
"""Values from 0 to 1 are summed in units of one over this: float32 values down to 2^-17 are exact,
and 8 million patches may lie over one another."""


@dataclass(frozen=True, eq=False)
class Cells:
    """A window cut along the edges of all patches in it, and what the patches say of each cell."""

    xs: Ints
    """(X + 1,) edges of the columns, from the window's left to its right, frame of the patches."""
    ys: Ints
    """(Y + 1,) edges of the rows."""
    mean_YX: Floats
    """Mean value of the patches over a cell; 0 where there is none."""
    covered_YX: Bools
    """Whether a patch lies over it."""
    shown_YX: Bools
    """Whether one does that is to be shown."""

    def spread(self, cells_YX: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
        """Something of each cell as pixels, (window height, window width, ...)."""
        rows = np.repeat(cells_YX, np.diff(self.ys), axis=0)
        return np.repeat(rows, np.diff(self.xs), axis=1)


@dataclass(frozen=True, eq=False)
class Rectangles:
    """Patches in whole pixels of some frame, with a value each."""

    low_N2: Ints
    """Left and top."""
    high_N2: Ints
    """Right and bottom, excluded."""
    values_N: Floats
    """0 to 1."""
    shown_N: Bools
    """Whether the patch is to be shown; it counts in the mean either way."""

    def within(self, left: int, top: int, right: int, bottom: int) -> Self:
        """Those that reach into a window, cut off at its edges."""
        inside = (
            (self.low_N2[:, 0] < right) & (self.high_N2[:, 0] > left)
            & (self.low_N2[:, 1] < bottom) & (self.high_N2[:, 1] > top)
        )  # fmt: skip
        low, high = [left, top], [right, bottom]
        return type(self)(
            self.low_N2[inside].clip(low, high),
            self.high_N2[inside].clip(low, high),
            self.values_N[inside],
            self.shown_N[inside],
        )

    def cells(self, left: int, top: int, right: int, bottom: int) -> Cells:
        """The cells of a window. Memory: the product of distinct edges along x and y."""
        found = self.within(left, top, right, bottom)
        corners = [found.low_N2, found.high_N2]
        edges, places = [], []
        for axis, ends in enumerate(((left, right), (top, bottom))):
            sides = np.concatenate([corner[:, axis] for corner in corners])
            unique, place = np.unique(np.concatenate([sides, ends]), return_inverse=True)
            edges.append(unique)
            places.append(place[: len(sides)].reshape(2, -1))
        shape = (len(edges[1]), len(edges[0]))
        count = _summed(places, np.ones(len(found.values_N), dtype=np.int64), shape)
        total = _summed(places, np.rint(found.values_N * FIXED).astype(np.int64), shape)
        shown = _summed(places, found.shown_N.astype(np.int64), shape)
        mean = total / np.maximum(count, 1) / FIXED
        return Cells(edges[0], edges[1], mean, count > 0, shown > 0)


def _summed(places: list[Ints], weights_N: Ints, shape: tuple[int, int]) -> Ints:
    """The sum of the weights of the rectangles over each cell, from what changes at corners."""
    (left, right), (top, bottom) = places
    change = np.zeros(shape, dtype=np.int64)
    flat, width = change.reshape(-1), shape[1]
    for row, column, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1),
                              (bottom, right, 1)):  # fmt: skip
        np.add.at(flat, row * width + column, sign * weights_N)
    np.cumsum(change, axis=0, out=change)
    np.cumsum(change, axis=1, out=change)
    return change[:-1, :-1]
