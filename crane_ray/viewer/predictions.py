"""What networks say of a slide, task by task, in the form that the page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from crane_ray.maps.folder import HeadTask, MapRow
from crane_ray.tables import iter_rows

PROBABILITY, DECISION = "p_", "decision_"


@dataclass(frozen=True)
class Prediction:
    """The probabilities of one task's classes."""

    task: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    decision: str
    """The class decided for: the most probable one, unless a threshold says otherwise."""

    def as_json(self) -> dict[str, Any]:
        """For the page."""
        return {
            "task": self.task,
            "classes": list(self.classes),
            "probabilities": list(self.probabilities),
            "decision": self.decision,
        }


def of_maps(row: MapRow, tasks: Sequence[HeadTask]) -> list[Prediction]:
    """The predictions that came with a slide's maps; tasks without any are left out."""
    found = row.probabilities()
    return [
        Prediction(
            task.name,
            task.classes,
            tuple(found[task.name]),
            task.classes[max(range(len(task.classes)), key=found[task.name].__getitem__)],
        )
        for task in tasks
        if len(found.get(task.name, ())) == len(task.classes)
    ]


def of_assessment(table: pa.Table) -> dict[str, list[Prediction]]:
    """The diagnoses of a table of `crane-ray assess` by case.

    Blank ones (cases without a finding get no grade) are left out.
    """
    tasks = [name.removeprefix(DECISION) for name in table.column_names if _is_decision(name)]
    columns = {task: _class_columns(table, task, tasks) for task in tasks}
    return {
        str(row["case_id"]): [
            _diagnosis(task, row, columns[task])
            for task in tasks
            if row[DECISION + task] is not None and columns[task]
        ]
        for row in iter_rows(table)
    }


def _is_decision(name: str) -> bool:
    return name.startswith(DECISION)


def _class_columns(table: pa.Table, task: str, tasks: Sequence[str]) -> dict[str, str]:
    """Columns of a task's classes; of tasks ``cell`` and ``cell_low`` each its own."""
    longer = [other for other in tasks if other.startswith(task + "_")]
    prefix = f"{PROBABILITY}{task}_"
    return {
        name.removeprefix(prefix): name
        for name in table.column_names
        if name.startswith(prefix)
        and not any(name.startswith(f"{PROBABILITY}{other}_") for other in longer)
    }


def _diagnosis(task: str, row: Mapping[str, Any], columns: Mapping[str, str]) -> Prediction:
    probabilities = tuple(float(row[name]) for name in columns.values())
    return Prediction(task, tuple(columns), probabilities, str(row[DECISION + task]))
