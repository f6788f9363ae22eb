"""Tables of a report, as HTML text."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crane_ray.evaluation.measurements import Measurement
from crane_ray.evaluation.metrics import CALIBRATION
from crane_ray.pages.document import wide
from crane_ray.pages.drawing import element, escaped
from crane_ray.report.results import RunResults, TaskResults
from crane_ray.report.wording import DASH, metric_name, rate_text, with_interval

OVERVIEW = {
    "auc": "AUC",
    "average_precision": "average precision",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "kappa",
    "ece": "ECE",
    "brier": "Brier",
}
"""Metrics of the overview, and of the tables of folds and subgroups."""

OF_GROUPS = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "kappa": "kappa",
    "ece": "ECE",
    "brier": "Brier",
}
"""Metrics of subgroups: accuracy is defined where there is one class alone, too."""

GROUPED = {
    "Ranking": ("auc", "auc_micro", "auc_of_", "average_precision"),
    "Decisions for the most probable class": (
        "accuracy", "balanced_accuracy", "f1", "f1_macro", "kappa", "sensitivity", "specificity",
        "sensitivity_of_", "specificity_of_",
    ),
    "Decisions at a threshold": ("sensitivity_at_", "specificity_at_"),
    "Probabilities": ("ece", "brier", "log_loss"),
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column's heading, and whether its cells are numbers."""

    name: str
    right: bool = False


def table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    heads: bool = True,
    class_: str | None = None,
) -> str:
    """A table of text; the first cell of a row is its heading.

    Args:
        columns: headings, text.
        rows: text, or a `Cell`.
        caption: text that says what it is, for those who do not see the heading above it.
        heads: whether each row's first cell is a heading.
        class_: of the table.
    """
    head = [
        element("th", escaped(column.name), scope="col", class_="n" if column.right else None)
        for column in columns
    ]
    body = []
    for row in rows:
        cells = []
        for place, (value, column) in enumerate(zip(row, columns, strict=True)):
            markup = value.markup if isinstance(value, Markup) else escaped(value)
            is_head = heads and place == 0
            cells.append(
                element("th" if is_head else "td", markup, scope="row" if is_head else None,
                        class_="n" if column.right else None)
            )  # fmt: skip
        body.append(element("tr", *cells))
    parts = [element("caption", escaped(caption))] if caption else []
    parts += [element("thead", element("tr", *head)), element("tbody", "", *body)]
    return element("table", *parts, class_=class_)


@dataclass(frozen=True)
class Markup:
    """A cell that is markup already."""

    markup: str


def overview_table(run: RunResults, split: str) -> str:
    """A row a task: what of a part was judged, and the metrics that say most."""
    columns = [Column("task"), Column("slides", True), Column("cases", True)]
    columns += [Column(name, True) for name in OVERVIEW.values()]
    rows: list[list[object]] = []
    for place, task in enumerate(run.tasks):
        found = run.of_task(place, split)
        if found is None:
            rows.append([task.name, *[DASH] * (len(columns) - 1)])
            continue
        slides = str(found.num_bags) if found.bag == "slide" else DASH
        cells = [value_cell(found.overall(metric)) for metric in OVERVIEW]
        rows.append([task.name, slides, str(found.num_cases), *cells])
    return table(columns, rows, caption=f"Metrics of each task: {split}", class_="metrics")


def value_cell(row: Measurement | None) -> Markup:
    """A value with its interval below it; a dash, and why, where it is undefined."""
    if row is None or row.value is None:
        note = row.note if row is not None else ""
        return Markup(element("span", DASH, title=note or None))
    value = escaped(rate_text(row.value))
    if row.low is None or row.high is None:
        return Markup(value)
    ends = escaped(with_interval(row).partition(" ")[2])
    return Markup(f"{value} {element('small', ends)}")


def calibration_table(results: TaskResults) -> str:
    """Scores of the probabilities before and after scaling, and each fold's temperature."""
    columns = [Column("score"), Column("as predicted", True), Column("after scaling", True)]
    rows: list[list[object]] = [
        [
            metric_name(metric, classes=()).partition(" (")[0],
            value_cell(results.overall(metric)),
            value_cell(results.overall(f"{metric}_calibrated")),
        ]
        for metric in CALIBRATION
        if results.overall(metric) is not None
    ]
    scores = table(columns, rows, caption=f"Calibration: {results.task.name}", class_="metrics")
    held = [
        [f"fold {fold}", f"{results.temperatures[fold]:.3f}"]
        for fold in results.folds
        if fold in results.temperatures
    ]
    columns = [Column("network"), Column("temperature", True)]
    temperatures = table(columns, held, caption="Temperatures", class_="classes") if held else ""
    return (wide("Calibration", scores) if rows else "") + temperatures


def metrics_table(results: TaskResults) -> str:
    """Every metric of a task in groups: its value, interval, spread over folds, and remarks."""
    several = len(results.folds) > 1
    ensemble = bool(len(results.ensemble))
    columns = [Column("metric"), Column("mean of folds" if several else "value", True)]
    columns += [Column("95 % interval", True)]
    columns += [Column("SD of folds", True)] if several else []
    columns += [Column("ensemble", True)] if ensemble else []
    columns += [Column("remarks")]
    parts = []
    for group, metrics in _by_group(results.metrics).items():
        rows = [_metric_row(results, metric, several, ensemble) for metric in metrics]
        parts.append(element("h4", escaped(group)))
        parts.append(table(columns, rows, caption=f"{group}: {results.task.name}", class_="metric"))
    return "".join(parts)


def _metric_row(results: TaskResults, metric: str, several: bool, ensemble: bool) -> list[object]:
    row, spread = results.overall(metric), results.at(metric, "sd")
    value = DASH if row is None or row.value is None else rate_text(row.value)
    interval = with_interval(row).partition(" ")[2] or DASH
    cells: list[object] = [metric_name(metric, classes=results.task.classes), value, interval]
    if several:
        cells.append(DASH if spread is None or spread.value is None else rate_text(spread.value))
    if ensemble:
        cells.append(value_cell(results.at(metric, "ensemble")))
    note = row.note if row is not None else "not measured"
    if row is not None and row.value is None:
        note = f"undefined: {note}"
    return [*cells, note]


def _by_group(metrics: Sequence[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {group: [] for group in GROUPED}
    for metric in metrics:
        stem = metric.removesuffix("_calibrated")
        for group, names in GROUPED.items():
            if stem in names or any(name[-1] == "_" and stem.startswith(name) for name in names):
                found[group].append(metric)
                break
    return {group: names for group, names in found.items() if names}


def folds_table(results: TaskResults) -> str:
    """A row a fold, then their mean, spread and ensemble."""
    columns = [Column("fold"), Column("slides", True), Column("cases", True)]
    columns += [Column(name, True) for name in OVERVIEW.values()]
    names: list[tuple[str, int | str]] = [(f"fold {fold}", fold) for fold in results.folds]
    if len(results.folds) > 1:
        names += [("mean of folds", "mean"), ("SD of folds", "sd")]
    if len(results.ensemble):
        names.append(("ensemble", "ensemble"))
    rows = [_measured_row(results, name, fold) for name, fold in names]
    return table(columns, rows, caption=f"Folds: {results.task.name}", class_="metrics")


def groups_table(results: TaskResults) -> str:
    """A row a subgroup; none where nobody asked for any."""
    if not results.groups:
        return ""
    columns = [Column("subgroup"), Column("slides", True), Column("cases", True)]
    columns += [Column(name, True) for name in OF_GROUPS.values()]
    rows = []
    for group in results.groups:
        row = results.overall("auc", group)
        fold = row.fold if row else "mean"
        rows.append(_measured_row(results, group, fold, group=group, metrics=OF_GROUPS))
    return table(columns, rows, caption=f"Subgroups: {results.task.name}", class_="metrics")


def _measured_row(
    results: TaskResults,
    name: str,
    fold: int | str,
    *,
    group: str = "",
    metrics: Iterable[str] = OVERVIEW,
) -> list[object]:
    found = [results.at(metric, fold, group) for metric in metrics]
    first = next((row for row in found if row is not None), None)
    slides = DASH if first is None or first.num_slides is None else str(first.num_slides)
    cases = DASH if first is None else str(first.num_cases)
    if fold == "sd":
        slides = cases = ""
    return [name, slides, cases, *(value_cell(row) for row in found)]
