"""Folds that take turns on a CPU."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.errors import ConfigError
from crane_ray.mil import turns
from crane_ray.mil.bags import Bag, BagReader
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.loop import SingleEngine, train
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import EpochReport, FoldRun
from crane_ray.mil.turns import TurnsEngine, grouped_engine
from tests.unit.mil.small_bags import (
    TASKS,
    clam_model,
    halves,
    make_bag_set,
    make_pack,
    make_study,
    small_model,
    start,
    training,
)


class CountingReader(BagReader):
    """Counts how often a bag is read to train on it."""

    def __init__(self, bags: tuple[Bag, ...], **options: Any) -> None:
        super().__init__(make_pack(bags), **options)
        self.sampled: list[str] = []

    def sample(self, bag: Bag, *, seed: int, epoch: int) -> torch.Tensor:
        self.sampled.append(bag.bag_id)
        return super().sample(bag, seed=seed, epoch=epoch)


def study_of(config: ExperimentConfig, bags: tuple[Bag, ...]) -> tuple[Study, CountingReader]:
    reader = CountingReader(bags, max_patches=config.training.max_patches)
    plain = make_study(config, bags)
    return Study(config, plain.tasks, reader), reader


def started(study: Study, bags: tuple[Bag, ...]) -> list[FoldRun]:
    """Folds with train parts of different length, two of them of another seed."""
    return [start(study, halves(bags, fold), seed) for fold in range(3) for seed in (1, 2)]


@pytest.fixture(autouse=True, params=[1, 1000], ids=["one bag held", "several"])
def held_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One bag at a time, or several, with fewer at the end."""
    monkeypatch.setattr(turns, "HELD_BYTES", request.param)


@pytest.mark.parametrize(
    ("model", "recipe"),
    [
        (small_model(dropout=0.25), {}),
        (small_model(dropout=0.3), {"weighted_sample": True, "max_patches": 4}),
        (small_model(dropout=0.25), {"precision": "bf16"}),
        (small_model("mean_pool"), {"optim": {"name": "sgd", "lr": 0.01}}),
    ],
    ids=["dropout", "drawn and subsampled", "bf16", "sgd"],
)
def test_every_fold_is_its_own_run_bit_for_bit(model: Any, recipe: dict[str, Any]) -> None:
    bags = make_bag_set()
    study, _ = study_of(ExperimentConfig(model=model, training=training(**recipe)), bags)
    together, alone = started(study, bags), started(study, bags)
    reports: list[EpochReport] = []
    train(together, TurnsEngine(study), study, report=reports.append)
    for place, run in enumerate(alone):
        own: list[EpochReport] = []
        train([run], SingleEngine(study), study, report=own.append)
        found = [it for it in reports if (it.fold, it.seed) == (run.bags.fold, run.seed)]
        assert [it.train_loss for it in found] == [it.train_loss for it in own]
        assert [it.val_loss for it in found] == [it.val_loss for it in own]
        twin = together[place].network.state_dict()
        assert all(torch.equal(twin[name], it) for name, it in run.network.state_dict().items())


def test_a_bag_is_read_once_for_all_folds() -> None:
    bags = make_bag_set()
    study, reader = study_of(ExperimentConfig(model=small_model(), training=training()), bags)
    runs = started(study, bags)
    TurnsEngine(study).train_epoch(runs, 0)
    used = {bag.bag_id for run in runs for bag in run.bags.train}
    assert sorted(reader.sampled) == sorted(used)


def test_a_fold_whose_loss_is_not_finite_ends_alone() -> None:
    bags = make_bag_set()
    study, _ = study_of(ExperimentConfig(model=small_model(), training=training()), bags)
    broken, sound = started(study, bags)[:2]
    with torch.no_grad():
        next(broken.network.parameters()).fill_(math.nan)
    losses = TurnsEngine(study).train_epoch([broken, sound], 0)
    assert "the loss is nan in epoch 0" in broken.failure
    assert not sound.failure
    assert np.isfinite(losses[1])
    assert all(values.isfinite().all() for values in sound.network.parameters())


def test_instance_losses_are_those_of_a_run_of_its_own() -> None:
    bags = make_bag_set(TASKS[:1])
    config = ExperimentConfig(model=clam_model("clam_sb"), training=training(epochs=2))
    study = make_study(config, bags, TASKS[:1])
    together, alone = started(study, bags)[:2], started(study, bags)[:2]
    train(together, TurnsEngine(study), study)
    for ours, own in zip(together, alone, strict=True):
        train([own], SingleEngine(study), study)
        assert ours.best_loss == own.best_loss


def test_several_bags_a_step_are_refused() -> None:
    bags = make_bag_set()
    config = ExperimentConfig(model=small_model(), training=training(bags_per_step=2))
    study = make_study(config, bags)
    with pytest.raises(ConfigError, match="--bags-per-step 2: grouped folds take one bag a step"):
        grouped_engine(study, [start(study, halves(bags))])


def test_a_cpu_takes_turns() -> None:
    bags = make_bag_set()
    study = make_study(ExperimentConfig(model=small_model(), training=training()), bags)
    assert isinstance(grouped_engine(study, started(study, bags)), TurnsEngine)
