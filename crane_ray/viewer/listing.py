"""The list of slides as the page asks for it: searched, filtered, sorted, a part at a time."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from crane_ray.slides.workspace import SlideRow
from crane_ray.viewer.catalogue import Run, Snapshot
from crane_ray.viewer.faults import BadRequestError
from crane_ray.viewer.predictions import Prediction

MAX_LIMIT = 200
FILTERS = ("all", "ok", "no_tissue", "failed", "maps")
"""Statuses of patching, and those slides that have maps of the run."""
PROBABILITY = "p:"
"""Sort key ``p:TASK:CLASS``: the class's probability."""


@dataclass(frozen=True)
class Question:
    """Which slides, in which order, and how many of them."""

    text: str = ""
    """Words that must all occur in a slide's id, case, status or decided classes."""
    show: str = "all"
    sort: str = "slide_id"
    descending: bool = False
    offset: int = 0
    limit: int = 60
    run: str | None = None


def list_slides(snapshot: Snapshot, question: Question) -> dict[str, Any]:
    """The answer for the page: how many there are and match, and the rows asked for.

    Raises:
        BadRequestError: an unknown filter or sort key.
    """
    if question.show not in FILTERS:
        raise BadRequestError(f"show {question.show!r}: {', '.join(FILTERS)} are known")
    run = snapshot.run(question.run)
    words = question.text.casefold().split()
    found = [
        row
        for row in snapshot.slides.values()
        if _shown(row, question.show, run) and _matches(row, words, snapshot, run)
    ]
    found = _sorted(found, question, snapshot, run)
    part = found[question.offset : question.offset + min(question.limit, MAX_LIMIT)]
    return {
        "total": len(snapshot.slides),
        "matched": len(found),
        "offset": question.offset,
        "slides": [brief(row, snapshot, run) for row in part],
    }


def brief(row: SlideRow, snapshot: Snapshot, run: Run | None) -> dict[str, Any]:
    """What the list shows of a slide."""
    made = run.rows.get(row.slide_id) if run else None
    return {
        "slide_id": row.slide_id,
        "case_id": row.case_id or "",
        "status": row.status,
        "reason": row.reason or "",
        "num_patches": row.num_patches,
        "maps": made.status if made else "",
        "maps_reason": (made.reason or "") if made else "",
        "predictions": [one.as_json() for one in predictions(row, snapshot, run)],
    }


def predictions(row: SlideRow, snapshot: Snapshot, run: Run | None) -> list[Prediction]:
    """What is said of a slide: by the run's networks, else its case's diagnosis."""
    own = run.predictions(row.slide_id) if run else []
    return own or list(snapshot.diagnoses.get(row.case_id or row.slide_id, []))


def _shown(row: SlideRow, show: str, run: Run | None) -> bool:
    if show == "all":
        return True
    if show == "maps":
        return run is not None and run.has_maps(row.slide_id)
    return row.status == show


def _matches(row: SlideRow, words: list[str], snapshot: Snapshot, run: Run | None) -> bool:
    if not words:
        return True
    decided = [one.decision for one in predictions(row, snapshot, run)]
    text = " ".join([row.slide_id, row.case_id or "", row.status, *decided]).casefold()
    return all(word in text for word in words)


def _sorted(
    rows: list[SlideRow], question: Question, snapshot: Snapshot, run: Run | None
) -> list[SlideRow]:
    """In order; slides without the value come last whichever way it is sorted."""
    value = _sort_value(question.sort, snapshot, run)
    by_id = sorted(rows, key=lambda row: row.slide_id)
    valued = [(value(row), row) for row in by_id]
    known = [pair for pair in valued if pair[0] is not None]
    known.sort(key=lambda pair: pair[0], reverse=question.descending)
    return [row for _, row in known] + [row for found, row in valued if found is None]


def _sort_value(sort: str, snapshot: Snapshot, run: Run | None) -> Callable[[SlideRow], Any]:
    simple: dict[str, Callable[[SlideRow], Any]] = {
        "slide_id": lambda row: row.slide_id,
        "case_id": lambda row: row.case_id or None,
        "status": lambda row: row.status,
        "num_patches": lambda row: row.num_patches,
    }
    if sort in simple:
        return simple[sort]
    if not sort.startswith(PROBABILITY):
        raise BadRequestError(f"sort {sort!r}: {', '.join(simple)}, p:TASK:CLASS are known")
    task, _, name = sort.removeprefix(PROBABILITY).partition(":")

    def probability(row: SlideRow) -> float | None:
        for one in predictions(row, snapshot, run):
            if one.task == task and name in one.classes:
                return one.probabilities[one.classes.index(name)]
        return None

    return probability
