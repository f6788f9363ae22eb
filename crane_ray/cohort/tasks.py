"""TaskSpec and TaskSet: which heads a network has, and which labels they are trained with."""

import difflib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from crane_ray.config import Config, read_yaml
from crane_ray.errors import ConfigError

MISSING = -1
"""The class index of a label that is not there: masked in losses and metrics."""


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(
            f"YAML reads this as {str(value).lower()}; put labels such as yes and no in quotes"
        )
    return str(value) if isinstance(value, int | float) else value


Label = Annotated[str, BeforeValidator(_as_text)]
"""A label as it stands in a table; a number in YAML is meant as its digits."""


class TaskSpec(Config):
    """One head: a question with a closed set of answers."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")
    """Name of the task in results."""
    column: str = Field(min_length=1)
    """Column of the label table."""
    classes: tuple[Label, ...] = Field(min_length=2)
    """The classes in order; a class's index is its place here."""
    aliases: dict[Label, Label] = Field(default_factory=dict)
    """Other labels of the table, and the class each stands for."""
    ignore: tuple[Label, ...] = ()
    """Labels that count as missing for this task."""
    weight: float = Field(1.0, gt=0)
    """Weight of the task's loss."""

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise ValueError(f"task {self.name}: classes {', '.join(twice)} are given twice")
        for label, name in self.aliases.items():
            if name not in self.classes:
                raise ValueError(
                    f"task {self.name}: alias {label!r} stands for {name!r}, which is none of its "
                    f"classes: {', '.join(self.classes)}"
                )
            if label in self.classes and label != name:
                raise ValueError(
                    f"task {self.name}: {label!r} is a class, and cannot be an alias of {name!r}; "
                    "leave out one of the two"
                )
        taken = sorted({*self.ignore} & {*self.classes, *self.aliases})
        if taken:
            raise ValueError(f"task {self.name}: {', '.join(taken)} is both a class and ignored")
        return self

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)


class TaskSet(Config):
    """The heads that are trained together, and which rows of the table take part."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9_.-]+$")
    """Name of the set; results and splits are filed under it."""
    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    """The heads, in order."""
    filter: dict[str, tuple[Label, ...]] = Field(default_factory=dict)
    """Columns and the values of rows that take part; rows with others do not."""

    @model_validator(mode="after")
    def _tasks_differ(self) -> Self:
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"task set {self.name}: tasks {', '.join(twice)} are given twice")
        return self


def task_set_names() -> list[str]:
    """The names of the shipped task sets."""
    folder = files("crane_ray.cohort").joinpath("task_sets")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())


def load_task_set(name: str) -> TaskSet:
    """A shipped task set by its name, or the one in a YAML file.

    Raises:
        ConfigError: there is none of that name, or the file does not hold a task set.
    """
    is_file = name.endswith((".yaml", ".yml"))
    if is_file and Path(name).is_file():
        return TaskSet.load(name)
    if is_file or name not in task_set_names():
        near = difflib.get_close_matches(name, task_set_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"task {name}: no such {'file' if is_file else 'task set'}; {hint}Known task sets: "
            f"{', '.join(task_set_names())}; or give a YAML file of your own with name and tasks "
            "(each name, column, classes)"
        )
    shipped = files("crane_ray.cohort").joinpath("task_sets", f"{name}.yaml")
    return TaskSet.model_validate(read_yaml(Path(str(shipped))))
