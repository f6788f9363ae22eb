"""The most confident errors on the page: their table, and what the network looked at."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crane_ray.pages.document import wide
from crane_ray.pages.drawing import element, escaped
from crane_ray.report.mistakes import Mistake, mistakes_of, num_mistakes
from crane_ray.report.results import TaskResults
from crane_ray.report.tables import Column, table
from crane_ray.report.wording import DASH, rate_text


@dataclass(frozen=True)
class ErrorPicture:
    """What the network that erred looked at."""

    map_jpeg: bytes = b""
    """The slide with the attention map of the task's head over it; none where it failed."""
    map_size: tuple[int, int] = (0, 0)
    """Width and height, px."""
    patches: tuple[bytes, ...] = ()
    """JPEGs of the patches with the highest attention, the highest first."""
    patch_px: int = 0
    head: str = ""
    """Whose attention it is."""
    whose: str = ""
    """Which networks'."""
    note: str = ""
    """What is missing, and why."""
    failure: str = ""
    """Why there is no picture."""


Pictures = Mapping[Mistake, ErrorPicture]


def mistakes_section(results: TaskResults, pictures: Pictures, why_none: str) -> str:
    """The table of the worst errors, then their pictures.

    Args:
        results: of the task.
        pictures: of the errors whose slides can be reached.
        why_none: what to say where there are none of any.
    """
    errors, total = mistakes_of(results), num_mistakes(results)
    if not errors:
        said = "None: every decision is right." if len(results.rows) else "Nothing was judged."
        return element("p", said, class_="note")
    judged = f"{total:,} of {len(results.rows):,} decisions are wrong"
    shown = f"; the {len(errors)} most confident ones" if total > len(errors) else ""
    several = ", a bag judged by several folds once" if results.num_bags < len(results.rows) else ""
    note = (
        f"{judged}{shown}{several}. Look at them before you trust or blame the network: labels "
        "may be wrong, too."
    )
    parts = [element("p", escaped(note), class_="note")]
    parts.append(wide(f"Errors of {results.task.name}", _table(results, errors)))
    drawn = [_figure(error, pictures[error]) for error in errors if error in pictures]
    if drawn:
        how = (
            "Red is high and blue low attention relative to the slide's other patches: it says "
            "where the network looked, not why it erred. Below each map are the patches with the "
            "highest attention, in order."
        )
        parts += [
            element("p", escaped(how), class_="note"),
            element("div", *drawn, class_="mistakes"),
        ]
    elif why_none:
        parts.append(element("p", escaped(f"No pictures of them: {why_none}"), class_="note"))
    return "".join(parts)


def _table(results: TaskResults, errors: Sequence[Mistake]) -> str:
    slides = results.bag == "slide"
    columns = [Column("slide")] if slides else []
    columns += [Column("case"), Column("fold", True), Column("true class"), Column("predicted")]
    columns += [Column("its probability", True), Column("that of the true class", True)]
    repeated = any(error.num_folds > 1 for error in errors)
    columns += [Column("folds that erred", True)] if repeated else []
    rows = []
    for error in errors:
        row: list[object] = [error.slide_id] if slides else []
        row += [error.case_id or DASH, str(error.fold), error.true, error.predicted]
        row += [rate_text(error.probability), rate_text(error.probability_of_true)]
        row += [f"{error.other_folds + 1} of {error.num_folds}"] if repeated else []
        rows.append(row)
    return table(columns, rows, caption=f"Most confident errors: {results.task.name}")


def _figure(error: Mistake, picture: ErrorPicture) -> str:
    """An error's map and patches, with what a reader must know to judge them."""
    said = (
        f"{error.slide_id}: {error.true}, predicted {error.predicted} "
        f"({rate_text(error.probability)})"
    )
    about = f"case {error.case_id}, attention of head {picture.head}, {picture.whose}"
    caption = escaped(said) + "<br>" + element("small", escaped(about))
    if picture.failure:
        note = element("p", escaped(f"No map: {picture.failure}"), class_="note")
        return element("figure", element("figcaption", escaped(said)), note)
    width, height = picture.map_size
    alt = f"Slide {error.slide_id} with the attention of head {picture.head} over it"
    drawn = [_image(picture.map_jpeg, alt, width, height)]
    patches = [
        _image(patch, f"Patch {place} by attention", picture.patch_px, picture.patch_px)
        for place, patch in enumerate(picture.patches, start=1)
    ]
    if patches:
        drawn.append(element("div", *patches, class_="patches"))
    if picture.note:
        drawn.append(element("p", escaped(picture.note), class_="note"))
    return element("figure", element("figcaption", caption), *drawn)


def _image(jpeg: bytes, alt: str, width: int, height: int) -> str:
    source = "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
    return f'<img src="{source}" alt="{escaped(alt)}" width="{width}" height="{height}">'
