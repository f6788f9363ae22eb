"""What early stopping looks at: the loss of a part's labels, of the kind that is trained with."""

import numpy as np
import pytest

from crane_ray.cohort.tasks import MISSING
from crane_ray.mil.bags import Bag
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.prediction import Study, part_loss
from tests.unit.mil.small_bags import TASKS, make_bag_set, make_study, small_model, training

BAGS = (
    Bag("s00", "p", ("s00",), (0, 2)),
    Bag("s01", "p", ("s01",), (1, MISSING)),
    Bag("s02", "p", ("s02",), (1, 0)),
)
LOGITS = {
    "a": np.array([[2.0, -1.0], [0.5, 0.0], [-3.0, 1.0]]),
    "b": np.array([[0.0, 1.0, 2.0], [9.0, 9.0, 9.0], [1.0, -1.0, 0.0]]),
}


def study(**config: object) -> Study:
    return make_study(
        ExperimentConfig(model=small_model(), training=training(**config)), make_bag_set()
    )


@pytest.mark.parametrize(("kind", "margin"), [("ce", 0.0), ("svm", 1.0)])
def test_a_part_s_loss_is_of_the_kind_of_the_training_and_knows_no_class_weights(
    kind: str, margin: float
) -> None:
    means = []
    for place, one in enumerate(TASKS):
        losses = []
        for row, bag in enumerate(BAGS):
            label = bag.labels_T[place]
            if label == MISSING:
                continue
            raised = LOGITS[one.name][row] + margin * (np.arange(one.num_classes) != label)
            losses.append(np.log(np.exp(raised).sum()) - raised[label])
        means.append(one.weight * np.mean(losses))
    expected = sum(means) / sum(one.weight for one in TASKS)
    found = part_loss(LOGITS, BAGS, study(bag_loss=kind, class_weights="balanced"))
    assert found == pytest.approx(expected)


def test_a_part_without_bags_has_no_loss() -> None:
    assert part_loss({}, (), study()) is None
