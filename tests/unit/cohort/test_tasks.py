from pathlib import Path

import pytest

from crane_ray.cohort.tasks import TaskSet, TaskSpec, load_task_set, task_set_names
from crane_ray.errors import ConfigError


@pytest.mark.parametrize("name", task_set_names())
def test_every_shipped_task_set_loads_under_its_own_name(name: str) -> None:
    assert load_task_set(name).name == name


def test_the_strata_of_grading_are_the_last_twelve_of_the_assessment() -> None:
    (assessment,) = load_task_set("cardiac-mtl-strata").tasks
    (grading,) = load_task_set("cardiac-grade-strata").tasks
    assert assessment.classes[:2] == ("healthy", "quilty")
    assert assessment.num_classes == 14
    assert grading.classes == assessment.classes[2:]


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(ConfigError, match="cardiac-mtl,"):
        load_task_set("cardiac")


def test_numbers_of_a_yaml_are_labels_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "name: own\nfilter: {year: [2020]}\n"
        "tasks: [{name: t, column: y, classes: [0, 1], aliases: {2: 1}, ignore: [9]}]\n"
    )
    own = load_task_set(str(file))
    assert own.tasks[0] == TaskSpec(
        name="t", column="y", classes=("0", "1"), aliases={"2": "1"}, ignore=("9",)
    )
    assert own.filter == {"year": ("2020",)}


def test_a_yes_that_yaml_takes_for_true_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("name: own\ntasks: [{name: t, column: y, classes: [no, yes]}]\n")
    with pytest.raises(ConfigError, match="quotes"):
        load_task_set(str(file))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ("a", "a")}, "given twice"),
        ({"aliases": {"x": "c"}}, "none of its classes"),
        ({"aliases": {"a": "b"}}, "'a' is a class, and cannot be an alias of 'b'"),
        ({"ignore": ("a",)}, "both a class and ignored"),
        ({"classes": ("a",)}, "at least 2"),
    ],
)
def test_impossible_tasks_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TaskSpec.model_validate({"name": "t", "column": "y", "classes": ("a", "b")} | change)


def test_two_tasks_of_one_name_are_refused() -> None:
    task = TaskSpec(name="t", column="y", classes=("a", "b"))
    with pytest.raises(ValueError, match="given twice"):
        TaskSet(name="s", tasks=(task, task))
