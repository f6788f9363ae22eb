"""SVG text: elements with everything escaped, and the frame that charts of two axes share.

Colours are written into the elements, so that a chart is right on its own, on paper too. Classes
and ``data-trial`` are for the page around it.
"""

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crane_ray.pages.scales import Scale
from crane_ray.pages.wording import number_text

INK = "#1c1f24"
SOFT = "#59606b"
"""Ink of what is second: ticks and units. 6:1 against white."""
RULE = "#e3e6ea"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

LETTER = 0.56
"""Width of a letter on average, in font sizes; SVG cannot measure before it is drawn."""

UNDRAWABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no XML document may have."""


def escaped(text: object) -> str:
    """Text as it may stand in HTML and SVG, attributes too."""
    return html.escape(UNDRAWABLE.sub("\ufffd", str(text)), quote=True)


def element(name: str, *children: str, **attributes: object) -> str:
    """An element; children are markup already, attributes are escaped, those of None left out.

    ``_`` in an attribute's name stands for ``-``; one at the end is dropped (``class_``).
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{''.join(children)}</{name}>" if children else f"<{name}{written}/>"


def label(x: float, y: float, text: object, **attributes: object) -> str:
    """Text at a point; ink, size and anchor are ordinary unless given."""
    usual: dict[str, object] = {"fill": INK, "font_size": 12}
    return element("text", escaped(text), x=x, y=y, **{**usual, **attributes})


def tip(text: str) -> str:
    """What an element says when it is pointed at."""
    return element("title", escaped(text))


def line(points: Iterable[tuple[float, float]], **attributes: object) -> str:
    """Straight lines through points."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", points=path, fill="none", **attributes)


def shortened(text: str, width: float, size: float = 12) -> str:
    """Text that takes about so much room, its middle left out where it is longer."""
    most = max(4, int(width / (LETTER * size)))
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}…{text[-tail:]}"


def spread(places: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Places moved little, to lie so far apart, in order, and within the bounds if they fit."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    # Less its number of steps, each place may not lie before the one above it: those that do are
    # drawn together about their middle (pool adjacent violators).
    pools: list[list[float]] = []
    for number, index in enumerate(order):
        pools.append([places[index] - number * apart])
        while len(pools) > 1 and _middle(pools[-2]) > _middle(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    starts = [_middle(pool) for pool in pools for _ in pool]
    most = high - apart * (len(places) - 1)
    moved = [0.0] * len(places)
    for number, index in enumerate(order):
        moved[index] = max(low, min(most, starts[number])) + number * apart
    return moved


def svg(name: str, size: tuple[float, float], *, title: str, about: str, body: str) -> str:
    """A whole drawing with its title and description, which say what it shows without sight.

    The first word of the name tells its ids from those of other drawings; all are classes.
    """
    width, height = size
    key = name.split(maxsplit=1)[0]
    return element(
        "svg",
        element("title", escaped(title), id=f"{key}-title"),
        element("desc", escaped(about), id=f"{key}-about"),
        body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=f"{width:g}",
        height=f"{height:g}",
        class_=f"chart {name}",
        role="img",
        aria_labelledby=f"{key}-title {key}-about",
        font_family=FONT,
    )


def nothing(name: str, title: str, why: str) -> str:
    """A drawing of the reason why there is nothing to draw."""
    body = label(0, 24, why, fill=SOFT, font_size=13)
    return svg(
        f"{name} nothing", (LETTER * 13 * len(why) + 20, 36), title=title, about=why, body=body
    )


@dataclass(frozen=True)
class Frame:
    """A chart of two axes; in px of the drawing."""

    width: float
    height: float
    x: Scale
    y: Scale
    left: float = 64
    right: float = 134
    top: float = 30
    bottom: float = 44

    @property
    def floor(self) -> float:
        """Where the y axis ends."""
        return self.height - self.bottom

    @property
    def wall(self) -> float:
        """Where the x axis ends."""
        return self.width - self.right

    def at_x(self, value: float) -> float:
        """Where a value lies across."""
        return self.left + (self.x.place(value) or 0.0) * (self.wall - self.left)

    def at_y(self, value: float) -> float:
        """Where a value lies up."""
        return self.floor - (self.y.place(value) or 0.0) * (self.floor - self.top)

    def axes(
        self, x_words: str, y_words: str, *, x_ticks: Iterable[float], below: float = 0
    ) -> str:
        """Rules at the y axis's ticks, numbers at both, and what they are of.

        Args:
            x_words: of the x axis.
            y_words: of the y axis, written above it.
            x_ticks: values to mark.
            below: room between the y axis's end and the x axis's numbers.
        """
        drawn = [label(self.left, self.top - 14, y_words, font_size=12, font_weight=600)]
        for tick in self.y.ticks():
            y = self.at_y(tick)
            drawn.append(line([(self.left, y), (self.wall, y)], stroke=RULE, stroke_width=1))
            text = number_text(tick)
            drawn.append(label(self.left - 8, y + 4, text, fill=SOFT, text_anchor="end"))
        base = self.floor + below + 18
        bottom = [(self.left, self.floor), (self.wall, self.floor)]
        drawn.append(line(bottom, stroke="#9aa1ab", stroke_width=1))
        for tick in x_ticks:
            text = number_text(tick)
            drawn.append(label(self.at_x(tick), base, text, fill=SOFT, text_anchor="middle"))
        middle = (self.left + self.wall) / 2
        return "".join(drawn) + label(middle, base + 18, x_words, fill=SOFT, text_anchor="middle")


def _middle(pool: Sequence[float]) -> float:
    return sum(pool) / len(pool)


def _value(value: object) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else escaped(value)
