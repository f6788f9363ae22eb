"""How probabilities are spread: a histogram a true class, one above the other."""

import numpy as np
import numpy.typing as npt

from crane_ray.pages.drawing import INK, SOFT, element, label, line, nothing, shortened, svg, tip
from crane_ray.report.looks import QUIET, look_of
from crane_ray.report.results import TaskResults

LEFT, WIDTH, TOP, ROW_PX, BOTTOM = 104, 440, 34, 66, 46
NUM_BINS = 20


def distribution(results: TaskResults) -> npt.NDArray[np.int64]:
    """(C, NUM_BINS) counts by true class of the probability that is shown.

    Of two classes that is the second's; of more it is the true class's own. Bins are
    [i / NUM_BINS, (i + 1) / NUM_BINS), the last with its end.
    """
    rows, task = results.rows, results.task
    shown_N = _shown(results)
    bins_N = np.minimum((shown_N * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    flat = np.bincount(rows.labels_N * NUM_BINS + bins_N, minlength=task.num_classes * NUM_BINS)
    return flat.reshape(task.num_classes, NUM_BINS)


def distribution_chart(results: TaskResults) -> str:
    """The histograms, each to its own height, with its median and where the decision changes."""
    key, title = f"spread-{results.place}", f"Predicted probabilities: {results.task.name}"
    if not len(results.rows):
        why = f"No {results.bag} of the {results.split} part has a label for this task."
        return nothing(key, title, why)
    task = results.task
    counts, shown_N = distribution(results), _shown(results)
    height = TOP + ROW_PX * task.num_classes + BOTTOM
    span = WIDTH - LEFT - 16
    words = "probability of " + (task.classes[1] if task.num_classes == 2 else "the true class")
    drawn, told = "", []
    floor = TOP + ROW_PX * task.num_classes
    if task.num_classes == 2:
        x = LEFT + span / 2
        drawn += line([(x, TOP - 12), (x, floor)], stroke=QUIET, stroke_width=1.2,
                      stroke_dasharray="5 4")  # fmt: skip
        drawn += label(x, TOP - 18, "decision at 0.5", fill=SOFT, font_size=11,
                       text_anchor="middle")  # fmt: skip
    for place, name in enumerate(task.classes):
        own_N = shown_N[results.rows.labels_N == place]
        drawn += _row(place, name, counts[place], own_N, span)
        median = f", median {np.median(own_N):.3f}" if len(own_N) else ""
        told.append(f"{name}: n = {len(own_N)}{median}")
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x = LEFT + span * tick
        drawn += label(x, floor + 18, f"{tick:g}", fill=SOFT, text_anchor="middle")
    drawn += label(LEFT + span / 2, floor + 36, shortened(words, span), fill=SOFT,
                   text_anchor="middle")  # fmt: skip
    about = f"{words}, by true class: " + "; ".join(told)
    return svg(f"{key} spread", (WIDTH, height), title=title, about=about, body=drawn)


def _shown(results: TaskResults) -> npt.NDArray[np.float64]:
    rows = results.rows
    if results.task.num_classes == 2:
        return rows.probabilities_NC[:, 1]
    own: npt.NDArray[np.float64] = rows.probabilities_NC[np.arange(len(rows)), rows.labels_N]
    return own


def _row(
    place: int,
    name: str,
    counts: npt.NDArray[np.int64],
    own_N: npt.NDArray[np.float64],
    span: float,
) -> str:
    base = TOP + ROW_PX * (place + 1) - 6
    drawn = label(LEFT - 10, base - 16, shortened(name, LEFT - 16), text_anchor="end")
    total = f"n = {len(own_N)}"
    drawn += label(LEFT - 10, base - 1, total, fill=SOFT, font_size=11, text_anchor="end")
    drawn += line([(LEFT, base), (LEFT + span, base)], stroke="#9aa1ab", stroke_width=1)
    look, room, most = look_of(place), span / NUM_BINS, max(int(counts.max()), 1)
    for index, count in enumerate(counts):
        if not count:
            continue
        high = (ROW_PX - 20) * count / most
        said = f"{index / NUM_BINS:.2f} to {(index + 1) / NUM_BINS:.2f}: {count}"
        bar = element("rect", x=float(LEFT + room * index + 0.5), y=float(base - high),
                      width=float(room - 1), height=float(high), fill=look.stroke,
                      fill_opacity="0.75")  # fmt: skip
        drawn += element("g", tip(said), bar)
    if len(own_N):
        x = LEFT + span * float(np.median(own_N))
        drawn += line([(x, base + 4), (x, base - ROW_PX + 14)], stroke=INK, stroke_width=1.6)
    return drawn
