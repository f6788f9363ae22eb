"""The outlines of labelled cells as rings of vertices."""

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.int32]
"""(Y, X); 0 outside, else the number of an area whose cells share edges."""

STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""Directions, clockwise on a screen (y downwards): right, down, left, up."""


def outlines(labels_YX: Labels, xs: Ints, ys: Ints) -> dict[int, list[Ints]]:
    """Each label's rings: its outline, then its holes.

    Outlines run clockwise on a screen, holes the other way. Cells of one label that touch with a
    corner alone keep their rings apart there, so that no ring crosses itself.

    Args:
        labels_YX: (Y, X) labels of cells, those of a label joined by edges.
        xs: (X + 1,) edges of the columns.
        ys: (Y + 1,) edges of the rows.

    Returns:
        (V, 2) xy vertices where a ring turns, not repeating the first, by label.
    """
    places, directions, label_E = _edges(labels_YX)
    follower = _followers(places, directions, labels_YX.shape[1] + 1)
    rings: dict[int, list[Ints]] = {}
    seen = np.zeros(len(places), dtype=np.bool_)
    turns = (directions[follower] != directions).tolist()
    follow = follower.tolist()
    for first in range(len(follow)):
        if seen[first]:
            continue
        corners, edge = [], first
        while not seen[edge]:
            seen[edge] = True
            if turns[edge]:
                corners.append(follow[edge])
            edge = follow[edge]
        found = places[corners]
        ring = np.stack([xs[found[:, 0]], ys[found[:, 1]]], axis=1)
        rings.setdefault(int(label_E[first]), []).append(ring)
    return {label: sorted(found, key=_area, reverse=True) for label, found in rings.items()}


def _edges(labels_YX: Labels) -> tuple[Ints, Ints, Labels]:
    """Sides of cells that border on another label, each with its cell on the right hand.

    Returns:
        Start (E, 2) as column and row of the cells' corners, direction (E,) and label (E,).
    """
    wide = np.pad(labels_YX, 1)
    own = wide[1:-1, 1:-1]
    neighbours = (wide[:-2, 1:-1], wide[1:-1, 2:], wide[2:, 1:-1], wide[1:-1, :-2])
    starts = ((0, 0), (1, 0), (1, 1), (0, 1))  # corner of the cell where its side begins
    places, directions, labels = [], [], []
    for direction, (other, start) in enumerate(zip(neighbours, starts, strict=True)):
        row, column = np.nonzero((own != other) & (own > 0))
        places.append(np.stack([column + start[0], row + start[1]], axis=1))
        directions.append(np.full(len(row), direction))
        labels.append(own[row, column])
    return np.concatenate(places), np.concatenate(directions), np.concatenate(labels)


def _followers(places: Ints, directions: Ints, width: int) -> Ints:
    """The edge that follows on each: the sharpest turn to the right that there is."""
    key = (places[:, 1] * width + places[:, 0]) * 4
    order = np.argsort(key + directions)
    sorted_keys = (key + directions)[order]
    ends = places + STEPS[directions]
    end_key = (ends[:, 1] * width + ends[:, 0]) * 4
    follower = np.full(len(places), -1)
    for turn in (3, 0, 1):  # left, straight on, right: the later one wins
        wanted = end_key + (directions + turn) % 4
        place = np.searchsorted(sorted_keys, wanted).clip(max=max(len(order) - 1, 0))
        there = sorted_keys[place] == wanted
        follower[there] = order[place[there]]
    return follower


def _area(ring: Ints) -> float:
    """Twice the area, positive where a ring runs clockwise on a screen."""
    x, y = ring.astype(np.float64).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))
