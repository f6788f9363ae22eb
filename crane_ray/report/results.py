"""What a report is about: the results of a run, as they lie in its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.evaluation.measurements import ENSEMBLED, MEAN, SPREAD, Evaluation, Measurement
from crane_ray.evaluation.predictions import ENSEMBLE, PredictionArrays, Predictions
from crane_ray.evaluation.summary import SPLIT_ORDER
from crane_ray.manifest import RunManifest
from crane_ray.mil.history import Epoch

SPLIT_NAMES = {
    "test": "test parts",
    "external": "another cohort",
    "val": "val parts",
    "train": "training parts",
}


@dataclass(frozen=True)
class FoldCourse:
    """How the training of a fold went."""

    fold: int
    outcome: Mapping[str, Any]
    """See `folds.FoldOutcome`."""
    history: tuple[Epoch, ...] = ()


@dataclass(frozen=True, eq=False)
class RunResults:
    """Everything that is known of a run."""

    folder: str
    kind: Literal["training", "evaluation"]
    name: str
    tasks: tuple[TaskSpec, ...]
    named_classes: bool = True
    """Whether the names of the classes were found; else they are their indices."""
    config: Mapping[str, Any] | None = None
    manifest: RunManifest | None = None
    predictions: Predictions | None = None
    """None where every fold failed."""
    evaluation: Evaluation | None = None
    courses: tuple[FoldCourse, ...] = ()
    checkpoints: Mapping[str, str] | None = None
    """Fingerprint of each fold's network, by fold."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the manifest says besides."""
        return self.manifest.facts if self.manifest else {}

    @cached_property
    def splits(self) -> list[str]:
        """The parts that there are predictions of, what counts first."""
        there = self.predictions.splits() if self.predictions is not None else []
        return [split for split in SPLIT_ORDER if split in there]

    @property
    def split(self) -> str:
        """The part that the report is about; "" where there is none."""
        return self.splits[0] if self.splits else ""

    def of_task(self, place: int, split: str | None = None) -> "TaskResults | None":
        """The results of a task, on the report's part if not on another; None without any."""
        wanted = self.split if split is None else split
        if (place, wanted) not in self._found:
            self._found[place, wanted] = self._of_task(place, wanted)
        return self._found[place, wanted]

    @cached_property
    def _found(self) -> dict[tuple[int, str], "TaskResults | None"]:
        return {}

    def _of_task(self, place: int, split: str) -> "TaskResults | None":
        task = self.tasks[place]
        part = None if self.predictions is None else self.predictions.select(split=split)
        if part is None or task.name not in part.tasks():
            return None
        return TaskResults(task, place, split, part.arrays(task.name), self.evaluation)


@dataclass(frozen=True, eq=False)
class TaskResults:
    """One task on one part, by all folds."""

    task: TaskSpec
    place: int
    """Among the run's tasks."""
    split: str
    every_row: PredictionArrays
    evaluation: Evaluation | None

    @cached_property
    def rows(self) -> PredictionArrays:
        """The labelled rows of the folds' networks, without the ensemble's."""
        rows = self.every_row.labelled()
        return rows.rows(rows.folds_N != ENSEMBLE)

    @cached_property
    def ensemble(self) -> PredictionArrays:
        """The labelled rows of the mean over folds; none where nobody asked."""
        rows = self.every_row.labelled()
        return rows.rows(rows.folds_N == ENSEMBLE)

    @cached_property
    def folds(self) -> list[int]:
        """The folds with labelled rows."""
        return [int(fold) for fold in np.unique(self.rows.folds_N)]

    def of_fold(self, fold: int) -> PredictionArrays:
        """The labelled rows of a fold."""
        return self.rows.rows(self.rows.folds_N == fold)

    @cached_property
    def num_bags(self) -> int:
        """Different bags among the rows: slides, or cases."""
        return len(set(zip(self.rows.slide_ids_N, self.rows.case_ids_N, strict=True)))

    @cached_property
    def bag(self) -> str:
        """What a row is of: ``slide`` or ``case``."""
        return "slide" if any(self.every_row.slide_ids_N) else "case"

    @cached_property
    def num_cases(self) -> int:
        """Different cases among the rows."""
        return len(set(self.rows.case_ids_N))

    @cached_property
    def temperatures(self) -> dict[int, float]:
        """What each fold's val part chose, of the folds that have one."""
        found = {}
        for row in self.evaluation.measurements if self.evaluation else ():
            own = (row.task, row.metric) == (self.task.name, "temperature")
            if own and row.value is not None and row.fold.isdigit():
                found[int(row.fold)] = row.value
        return found

    @cached_property
    def _measured(self) -> dict[tuple[str, str, str], Measurement]:
        rows = self.evaluation.measurements if self.evaluation else ()
        return {
            (row.metric, row.fold, row.group): row
            for row in rows
            if (row.task, row.split) == (self.task.name, self.split)
        }

    @cached_property
    def groups(self) -> list[str]:
        """The subgroups that were measured, in order."""
        return list(dict.fromkeys(group for _, _, group in self._measured if group))

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics that were measured, in order."""
        return list(dict.fromkeys(metric for metric, _, group in self._measured if not group))

    def at(self, metric: str, fold: int | str, group: str = "") -> Measurement | None:
        """A measurement of one fold, ``ensemble``, ``mean`` or ``sd``; None where there is none."""
        return self._measured.get((metric, str(fold), group))

    def overall(self, metric: str, group: str = "") -> Measurement | None:
        """The mean over folds, or the only fold's value."""
        found = self.at(metric, MEAN, group)
        if found is not None:
            return found
        folds = [key for key in self._measured if key[0] == metric and key[2] == group]
        alone = [key for key in folds if key[1] not in {ENSEMBLED, MEAN, SPREAD}]
        return self._measured[alone[0]] if len(alone) == 1 else None

    @property
    def averaged(self) -> str:
        """What `overall` is, in words."""
        return f"mean of {len(self.folds)} folds" if len(self.folds) > 1 else "one fold"
