import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.search.objective import MODES, make_objective

TASKS = tuple(
    TaskSpec(name=name, column=name, classes=("no", "yes")) for name in ("one", "two", "three")
)
LABELS = np.array([[0, 1, MISSING], [1, 0, MISSING], [0, 0, MISSING], [1, 1, 0]])
LOGITS = {
    "one": np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0], [0.5, 1.0]]),
    "two": np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 0.0], [0.0, 0.5]]),
    "three": np.zeros((4, 2)),
}


def auc(place: int, task: str) -> float:
    return float(roc_auc_score(LABELS[:, place], LOGITS[task][:, 1] - LOGITS[task][:, 0]))


def test_the_mean_is_over_the_tasks_in_which_the_metric_is_defined() -> None:
    objective = make_objective("auc", None, TASKS)
    found = objective.of_tasks(LABELS, LOGITS)
    assert found == pytest.approx({"auc one": auc(0, "one"), "auc two": auc(1, "two")})
    assert objective.combine(9.0, found) == pytest.approx(np.mean(list(found.values())))


def test_one_task_may_count_alone() -> None:
    objective = make_objective("auc", "two", TASKS)
    found = objective.of_tasks(LABELS, LOGITS)
    assert objective.combine(9.0, found) == pytest.approx(auc(1, "two"))
    undefined = make_objective("auc", "three", TASKS)
    assert undefined.combine(9.0, undefined.of_tasks(LABELS, LOGITS)) is None


def test_the_loss_is_of_all_tasks() -> None:
    objective = make_objective("loss", None, TASKS)
    assert objective.mode == "min"
    assert objective.combine(0.7, objective.of_tasks(LABELS, LOGITS)) == 0.7
    assert objective.worst > 1e6
    with pytest.raises(ConfigError, match="the val loss is that of all tasks"):
        make_objective("loss", "one", TASKS)


@pytest.mark.parametrize("metric", sorted(set(MODES) - {"loss"}))
def test_a_better_network_is_better_by_every_metric(metric: str) -> None:
    objective = make_objective(metric, "one", TASKS)
    labels_BT = np.array([[0, 0, 0], [1, 0, 0]] * 20)
    right = np.where(labels_BT[:, :1] == [[0, 1]], 4.0, -4.0)
    logits = {task.name: right for task in TASKS}
    good = objective.combine(0.0, objective.of_tasks(labels_BT, logits))
    wrong = {task.name: -right for task in TASKS}
    bad = objective.combine(0.0, objective.of_tasks(labels_BT, wrong))
    assert good is not None
    assert bad is not None
    assert good > bad if objective.mode == "max" else good < bad
    assert bad > objective.worst if objective.mode == "max" else bad < objective.worst


def test_metrics_and_tasks_that_are_not_there() -> None:
    with pytest.raises(ConfigError, match="--metric acu: a search cannot go by it; known: auc,"):
        make_objective("acu", None, TASKS)
    with pytest.raises(ConfigError, match="no such task; there are: one, two, three"):
        make_objective("auc", "four", TASKS)
