"""Who is in the cohort, who is not and why, and what was noticed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crane_ray.cohort.findings import counted
from crane_ray.pages.document import wide
from crane_ray.pages.drawing import element, escaped
from crane_ray.report.results import RunResults
from crane_ray.report.tables import Column, table
from crane_ray.report.wording import DASH, percent

MOST_LEFT_OUT = 60
"""Slides that are listed; the manifest has all of them."""

SEVERITIES = {"error": "Error", "warning": "Warning", "note": "Note"}


def cohort_section(run: RunResults) -> str:
    """Classes by task, bags by fold, slides that were left out, and findings."""
    parts = [_classes(run), _folds(run), _left_out(run), _noticed(run)]
    return "".join(parts)


def findings_of(run: RunResults, severities: Sequence[str]) -> str:
    """What was noticed, of some severities, as markup; nothing where nothing was."""
    return "".join(
        _finding(str(it.get("severity", "note")), str(it.get("message", "")))
        for it in run.facts.get("findings", ())
        if it.get("severity") in severities
    )


def failures_of(run: RunResults) -> str:
    """The folds that failed, and why, as markup."""
    failed = [course for course in run.courses if course.outcome.get("failure")]
    return "".join(_finding("error", str(course.outcome["failure"])) for course in failed)


def _finding(severity: str, message: str) -> str:
    word = SEVERITIES.get(severity, "Note")
    known = severity if severity in SEVERITIES else "note"
    return element("p", element("b", f"{word}: "), escaped(message), class_=f"finding {known}")


def _classes(run: RunResults) -> str:
    """The classes of each task, of the whole cohort where the manifest counted it."""
    held = run.facts.get("cohort") or {}
    counts: Mapping[str, Any] = held.get("classes") or _judged_classes(run)
    if held:
        said = (
            f"{counted(held['slides'], 'slide')} of {counted(held['cases'], 'case')} with features "
            "and at least one label. A case counts in each class that one of its slides has."
        )
    else:
        said = (
            "The run does not say what its whole cohort was; counted are the bags that its "
            "predictions name, with a label."
        )
    columns = [Column("task"), Column("class"), Column("slides", True), Column("share", True)]
    columns.append(Column("cases", True))
    rows = []
    for task, classes in counts.items():
        total = sum(slides for name, slides, _ in classes if name is not None)
        for place, (name, slides, cases) in enumerate(classes):
            if name is None and not slides:
                continue
            share = percent(slides / total) if total and name is not None else ""
            shown = "without a label" if name is None else name
            rows.append([task if place == 0 else "", shown, slides, share, cases])
    note = element("p", escaped(said), class_="note")
    return (
        element("h3", "Labels")
        + note
        + table(columns, rows, caption="Labels by task", class_="classes", heads=False)
    )


def _judged_classes(run: RunResults) -> dict[str, list[list[Any]]]:
    """Classes of the bags in the predictions, each bag once, in the form of `class_counts`."""
    found: dict[str, list[list[Any]]] = {}
    there = run.predictions.tasks() if run.predictions is not None else ()
    for task in run.tasks:
        if run.predictions is None or task.name not in there:
            continue
        rows = run.predictions.arrays(task.name).labelled()
        bags = set(zip(rows.slide_ids_N, rows.case_ids_N, rows.labels_N.tolist(), strict=True))
        slides = Counter(label for _, _, label in bags)
        cases = Counter(label for _, label in {(case, label) for _, case, label in bags})
        found[task.name] = [
            [name, slides[place], cases[place]] for place, name in enumerate(task.classes)
        ]
    return found


def _folds(run: RunResults) -> str:
    """How each fold's training went; nothing for an evaluation."""
    if not run.courses:
        return ""
    columns = [Column("fold"), *(Column(f"{part} bags", True) for part in ("train", "val", "test"))]
    columns += [Column("epochs", True), Column("kept epoch", True), Column("val loss", True)]
    columns += [Column("ended")]
    rows = []
    for course in run.courses:
        it = course.outcome
        loss = it.get("best_loss")
        best = int(it.get("best_epoch", -1)) + 1
        ended = "early stopping" if it.get("stopped_early") else "after its last epoch"
        rows.append([
            f"fold {course.fold}",
            *(it.get(f"num_{part}", DASH) for part in ("train", "val", "test")),
            it.get("epochs", DASH),
            best if best > 0 else DASH,
            DASH if loss is None else f"{loss:.4f}",
            "failed" if it.get("failure") else ended,
        ])  # fmt: skip
    return element("h3", "Folds") + wide(
        "Folds", table(columns, rows, caption="Training of each fold", class_="metrics")
    )


def _left_out(run: RunResults) -> str:
    """The slides whose features could not be used, with their reasons."""
    slides = run.manifest.left_out if run.manifest else []
    if not slides:
        none = "No slide of the cohort was left out." if run.manifest else ""
        return element("h3", "Left out") + element("p", none, class_="note") if none else ""
    columns = [Column("slide"), Column("reason")]
    rows = [[slide.slide_id, slide.reason] for slide in slides[:MOST_LEFT_OUT]]
    more = len(slides) - MOST_LEFT_OUT
    said = f"{counted(len(slides), 'slide')}, whose features could not be used."
    said += f" The first {MOST_LEFT_OUT} are shown; manifest.json has all." if more > 0 else ""
    return (
        element("h3", "Left out")
        + element("p", escaped(said), class_="note")
        + table(columns, rows, caption="Slides that were left out")
    )


def _noticed(run: RunResults) -> str:
    found = findings_of(run, ("error", "warning", "note"))
    if not found and run.manifest is None:
        return ""
    nothing = element("p", "Nothing was noticed about the table and its splits.", class_="note")
    return element("h3", "What was noticed") + (found or nothing)


def overlap_text(run: RunResults) -> str:
    """How far the judged parts of the folds share cases, in words; nothing of one fold."""
    if run.predictions is None:
        return ""
    own = run.predictions.select(split=run.split).table
    pairs = set(zip(own["fold"].to_pylist(), own["case_id"].to_pylist(), strict=True))
    folds = Counter(case for fold, case in pairs if fold >= 0)
    if len({fold for fold, _ in pairs if fold >= 0}) < 2:
        return ""
    return _overlap_words(folds.values())


def _overlap_words(folds_of_case: Iterable[int]) -> str:
    counts = list(folds_of_case)
    shared = sum(count > 1 for count in counts)
    if not shared:
        return (
            "No case is in the judged parts of two folds; training parts overlap between folds all "
            "the same, so that folds are not independent repetitions."
        )
    return (
        f"{shared:,} of {len(counts):,} cases are in the judged parts of more than one fold (as in "
        "Monte Carlo splits): folds are no independent repetitions, and the standard deviation "
        "over folds is no standard error. Intervals draw a patient for all folds at once, and so "
        "take this into account."
    )
