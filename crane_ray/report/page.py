"""The report of a run as one HTML page: it fetches nothing, and needs no script."""

from collections.abc import Iterator, Sequence

from crane_ray.cohort.findings import counted
from crane_ray.pages.document import document, figures, wide
from crane_ray.pages.drawing import element, escaped
from crane_ray.report.cohort_section import cohort_section, failures_of, findings_of
from crane_ray.report.mistakes_section import Pictures
from crane_ray.report.notes import (
    intervals_note,
    reading_list,
    split_note,
    training_note,
)
from crane_ray.report.page_style import STYLE
from crane_ray.report.provenance_section import provenance_section
from crane_ray.report.results import SPLIT_NAMES, RunResults
from crane_ray.report.tables import (
    overview_table,
)
from crane_ray.report.task_section import TASK_PARTS, task_section
from crane_ray.report.training_charts import auc_charts, loss_chart
from crane_ray.report.wording import rate_text
from crane_ray.version import __version__


def report_page(run: RunResults, *, pictures: Pictures | None = None, why_none: str = "") -> str:
    """The page, whole.

    Args:
        run: what it is about.
        pictures: of the most confident errors, where their slides can be reached.
        why_none: in words, why there are none of any.
    """
    parts = list(_parts(run, pictures or {}, why_none))
    sections = [
        element(
            "section",
            element("h2", escaped(name), class_="task" if key.startswith("task-") else None),
            content,
            id=key,
        )
        for key, name, content in parts
    ]
    body = element(
        "main",
        element("header", _head(run), _contents([(key, name) for key, name, _ in parts], run)),
        *sections,
        _foot(run),
    )
    skip = element("a", "Skip to the results", href="#results", class_="skip")
    title = f"{run.kind.capitalize()} {run.name}"
    return document(title, skip + body, style=STYLE, pictures=bool(pictures))


def _parts(run: RunResults, pictures: Pictures, why_none: str) -> Iterator[tuple[str, str, str]]:
    """Key, heading and content of each part of the page."""
    yield "results", "Results", _results(run)
    for place, task in enumerate(run.tasks):
        found = run.of_task(place)
        name = f"Task {task.name}"
        if found is None:
            nothing = element("p", "There are no predictions of this task.", class_="note")
            yield f"task-{place}", name, nothing
        else:
            yield f"task-{place}", name, task_section(found, pictures, why_none)
    if run.kind == "training":
        yield "training", "Training", _training(run)
    yield "cohort", "Cohort", cohort_section(run)
    yield "provenance", "Config and provenance", provenance_section(run)
    yield "reading", "How to read this", reading_list(run)


def _contents(parts: Sequence[tuple[str, str]], run: RunResults) -> str:
    """Links to the parts of the page, and to those of each task."""
    rows, plain = [], ""
    for key, name in parts:
        link = element("a", escaped(name), href=f"#{key}")
        place = key.removeprefix("task-")
        if place == key:  # those that are no task share a line
            plain += link
            continue
        rows += [element("li", plain)] if plain else []
        plain = ""
        if run.of_task(int(place)) is not None:
            link += "".join(
                element("a", escaped(part.lower()), href=f"#{key}-{part_key}")
                for part_key, part in TASK_PARTS.items()
            )
        rows.append(element("li", link))
    rows.append(element("li", plain))
    return element("nav", element("ul", *rows), class_="contents", aria_label="Contents")


def _head(run: RunResults) -> str:
    when = f", {run.manifest.started[:10]}" if run.manifest else ""
    tasks = ", ".join(task.name for task in run.tasks) or "no task"
    about = f"{counted(len(run.tasks), 'task')} ({tasks})"
    folds = run.predictions.folds() if run.predictions is not None else []
    num = len([fold for fold in folds if fold >= 0])
    lead = f"{about}, {counted(num, 'fold')} with predictions"
    lead += f", judged on {SPLIT_NAMES[run.split]}" if run.split else ""
    return (
        element("h1", escaped(f"{run.kind.capitalize()} {run.name}"))
        + element("p", escaped(f"{lead}{when}. For research, not for diagnosis."), class_="lead")
        + figures(_figures(run))
    )


def _figures(run: RunResults) -> list[tuple[str, str, str]]:
    """The AUC of each task, and what it was measured on."""
    shown = []
    for place, task in enumerate(run.tasks[:4]):
        found = run.of_task(place)
        row = found.overall("auc") if found is not None else None
        name = f"AUC, {task.name}" + (" (macro)" if task.num_classes > 2 else "")
        if row is None or row.value is None:
            shown.append((name, "undefined", (row.note if row else "") or "nothing was judged"))
            continue
        ends = ""
        if row.low is not None and row.high is not None:
            ends = f"95 % interval {rate_text(row.low)} to {rate_text(row.high)}"
        shown.append((name, rate_text(row.value), ends or "no interval"))
    judged = run.of_task(0)
    if judged is not None:
        bags = counted(judged.num_bags, judged.bag) if judged.bag == "slide" else ""
        cases = counted(judged.num_cases, "case")
        shown.append(("Judged on", bags or cases, f"of {cases}" if bags else "bags are cases"))
    return shown


def _results(run: RunResults) -> str:
    alarms = failures_of(run) + findings_of(run, ("error",))
    note = split_note(run.split)
    told = element("p", escaped(note), class_="finding warning") if note else ""
    if run.predictions is None:
        nothing = "There are no predictions: no fold ended well, or none has a part to judge."
        return alarms + element("p", nothing, class_="note")
    parts = [alarms, told, element("p", escaped(intervals_note(run)), class_="note")]
    parts.append(wide("Metrics of each task", overview_table(run, run.split)))
    for split in run.splits[1:]:
        parts.append(element("h3", escaped(f"The same on {SPLIT_NAMES[split]}")))
        parts.append(element("p", escaped(split_note(split)), class_="note"))
        parts.append(wide(f"Metrics on {SPLIT_NAMES[split]}", overview_table(run, split)))
    return "".join(parts)


def _training(run: RunResults) -> str:
    charts = element("div", loss_chart(run), *auc_charts(run), class_="charts")
    return element("p", escaped(training_note(run)), class_="note") + charts


def _foot(run: RunResults) -> str:
    return element(
        "footer",
        escaped(
            f"Made by crane-ray {__version__} from {run.folder}. For research, not for diagnosis: "
            "no medical decision may rest on it."
        ),
    )
