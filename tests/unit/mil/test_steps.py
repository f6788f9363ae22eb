"""The loss of a step: bags and instances in their published shares, a worker's part of it."""

from collections.abc import Sequence

import pytest
import torch

from crane_ray.cohort.tasks import MISSING
from crane_ray.mil.bags import Bag
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import FoldBags, FoldRun
from crane_ray.mil.steps import step_loss
from tests.unit.mil.small_bags import clam_model, make_bag_set, make_study, start, task, training

ONE = (task("a", 3),)


def loss_of(run: FoldRun, study: Study, mine: Sequence[Bag], step: Sequence[Bag]) -> torch.Tensor:
    parts = [study.reader.read(bag) for bag in mine]
    return step_loss(run, parts, mine, step, study=study).detach()


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
@pytest.mark.parametrize("missing", [False, True])
def test_instances_have_their_share_of_the_mean_over_bags(name: str, missing: bool) -> None:
    bags = list(make_bag_set(ONE, 4))
    if missing:
        bags[1] = Bag("s01", "p01", ("s01",), (MISSING,))
    study = make_study(ExperimentConfig(model=clam_model(name), training=training()), bags, ONE)
    run = start(study, FoldBags(0, tuple(bags)))
    bag_losses, instance_losses = [], []
    for bag in bags:
        output = run.network(study.reader.read(bag))
        labels_T = torch.tensor(bag.labels_T)
        instances = run.network.auxiliary_loss(output, labels_T)
        assert instances is not None
        instance_losses.append(instances.detach())
        if bag.labels_T[0] != MISSING:
            target = labels_T[:1]
            bag_losses.append(torch.nn.functional.cross_entropy(output.logits["a"], target))
    expected = 0.7 * torch.stack(bag_losses).mean() + 0.3 * torch.stack(instance_losses).mean()
    whole = loss_of(run, study, bags, bags)
    torch.testing.assert_close(whole, expected.detach())
    halves = loss_of(run, study, bags[::2], bags) + loss_of(run, study, bags[1::2], bags)
    torch.testing.assert_close(halves, whole)
