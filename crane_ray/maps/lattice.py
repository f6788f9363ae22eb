"""The lattice that a slide's patches lie on, as their corners show it."""

import numpy as np
import numpy.typing as npt


def step_px(xy: npt.NDArray[np.integer], footprint_px: float) -> float:
    """Distance of neighbouring patches in level-0 px, at most their footprint.

    The middle one of the distances between a patch and the next in its row or column, so that
    seams between lattices of several pieces of tissue and gaps do not count.

    Args:
        xy: (N, 2) corners.
        footprint_px: width of a patch; the answer where no two patches are beside one another.
    """
    found = []
    for along, across in ((0, 1), (1, 0)):
        order = np.lexsort((xy[:, along], xy[:, across]))
        place, line = xy[order, along].astype(np.int64), xy[order, across]
        steps = np.diff(place)[line[1:] == line[:-1]]
        found.append(steps[(steps > 0) & (steps <= np.ceil(footprint_px))])
    steps = np.concatenate(found)
    return min(float(np.median(steps)), footprint_px) if len(steps) else footprint_px
