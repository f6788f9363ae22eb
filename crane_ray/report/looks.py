"""How lines and marks tell themselves apart without colour, and the legends that name them."""

from collections.abc import Sequence
from dataclasses import dataclass

from crane_ray.pages.drawing import INK, SOFT, element, label, line

SQUARE_PX = 344
"""Sides of charts whose axes have one range."""

QUIET = "#8b929c"
"""What is beside the point: chance, perfection, a single fold."""
GREY = "#c9ced6"

THIN, THICK = 1.0, 2.4


@dataclass(frozen=True)
class Look:
    """A line's colour and dashes, and the shape of its marks."""

    stroke: str
    dash: str | None = None
    mark: str = "circle"


CLASS_LOOKS = (
    Look("#1f5f7a"),
    Look("#a34a12", "7 3", "square"),
    Look("#3f7f4f", "2 3", "triangle"),
    Look("#6b4a8a", "9 3 2 3", "diamond"),
    Look("#1c1f24", "4 2", "circle"),
    Look("#7a6a1f", "1 2", "square"),
)
"""In order of the classes; from the seventh on they repeat, and the legend's order tells."""


def look_of(place: int) -> Look:
    """The look of a class, a task or whatever else has a place in a row."""
    return CLASS_LOOKS[place % len(CLASS_LOOKS)]


def mark(shape: str, x: float, y: float, size: float, **attributes: object) -> str:
    """A mark of a shape about a point.

    Args:
        shape: circle, square, triangle or diamond.
        x: of its middle.
        y: of its middle.
        size: half its width, px.
        attributes: fill, stroke and the like.
    """
    if shape == "circle":
        return element("circle", cx=float(x), cy=float(y), r=float(size), **attributes)
    if shape == "square":
        side = 1.8 * size
        return element("rect", x=float(x - side / 2), y=float(y - side / 2), width=float(side),
                       height=float(side), **attributes)  # fmt: skip
    corners = {
        "triangle": ((0, -1.2), (1.1, 0.9), (-1.1, 0.9)),
        "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    }[shape]
    points = " ".join(f"{x + size * dx:.1f},{y + size * dy:.1f}" for dx, dy in corners)
    return element("polygon", points=points, **attributes)


@dataclass(frozen=True)
class Entry:
    """A line of a legend."""

    text: str
    stroke: str
    dash: str | None = None
    width: float = THICK
    mark: str | None = None
    hollow: bool = False
    note: str = ""
    """A second line, in soft ink."""

    @property
    def height(self) -> float:
        """Room that it takes, px."""
        return 30.0 if self.note else 17.0


def legend_height(entries: Sequence[Entry]) -> float:
    """Room that a legend takes, px."""
    return sum(entry.height for entry in entries)


def legend(entries: Sequence[Entry], x: float, y: float, *, size: float = 12) -> str:
    """Samples of lines and marks with their names, one below the other.

    Args:
        entries: what is named.
        x: left end.
        y: top.
        size: of the letters, px.
    """
    drawn, top = "", y
    for entry in entries:
        middle = top + 8
        if entry.width:
            drawn += line([(x, middle), (x + 24, middle)], stroke=entry.stroke,
                          stroke_width=entry.width, stroke_dasharray=entry.dash)  # fmt: skip
        if entry.mark:
            fill = "#fff" if entry.hollow else entry.stroke
            drawn += mark(entry.mark, x + 12, middle, 4, fill=fill, stroke=entry.stroke,
                          stroke_width=1.5)  # fmt: skip
        drawn += label(x + 31, middle + 4, entry.text, font_size=size, fill=INK)
        if entry.note:
            drawn += label(x + 31, middle + 17, entry.note, font_size=size - 1, fill=SOFT)
        top += entry.height
    return drawn
