"""Folds that train as one batched network go the way that each goes alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.mil import aggregator as protocol
from crane_ray.mil.aggregator import Aggregator
from crane_ray.mil.aggregators import mean_pool
from crane_ray.mil.bags import Bag
from crane_ray.mil.configs import ExperimentConfig, ModelConfig
from crane_ray.mil.grouped import GroupedEngine, schedule
from crane_ray.mil.loop import SingleEngine, fold_order, train
from crane_ray.mil.pack import Pack
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import EpochReport, FoldBags, FoldRun, load_run, save_run
from tests.unit.mil.small_bags import (
    TASKS,
    assert_near,
    assert_near_arrays,
    clam_model,
    halves,
    make_bag_set,
    make_pack,
    make_study,
    small_model,
    start,
    task,
    training,
)

Key = tuple[int, int]
Reports = dict[Key, list[EpochReport]]


def follow(study: Study, runs: Sequence[FoldRun], *, grouped: bool) -> Reports:
    """Trains the runs together or one after the other; what was reported of each."""
    reports: Reports = {(run.bags.fold, run.seed): [] for run in runs}

    def report(one: EpochReport) -> None:
        reports[one.fold, one.seed].append(one)

    if grouped:
        train(runs, GroupedEngine(study, runs), study, report=report)
    else:
        for run in runs:
            train([run], SingleEngine(study), study, report=report)
    return reports


def assert_same_runs(found: Sequence[FoldRun], expected: Sequence[FoldRun]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.next_epoch, one.best_epoch, one.waited, one.stopped, one.failure) == (
            other.next_epoch,
            other.best_epoch,
            other.waited,
            other.stopped,
            other.failure,
        )
        assert_near(one.network.state_dict(), other.network.state_dict())
        assert_near(one.best_weights, other.best_weights)
        states = one.optimizer.state_dict()["state"], other.optimizer.state_dict()["state"]
        assert states[0].keys() == states[1].keys()
        for place, values in states[1].items():
            assert_near(states[0][place], values)


def assert_same_course(study: Study, folds: Sequence[tuple[FoldBags, int]]) -> list[FoldRun]:
    together = [start(study, bags, seed) for bags, seed in folds]
    alone = [start(study, bags, seed) for bags, seed in folds]
    found = follow(study, together, grouped=True)
    expected = follow(study, alone, grouped=False)
    assert_same_runs(together, alone)
    for key, reports in expected.items():
        assert len(found[key]) == len(reports)
        for one, other in zip(found[key], reports, strict=True):
            assert one.train_loss == pytest.approx(other.train_loss, abs=1e-5)
            assert one.val_loss == pytest.approx(other.val_loss, abs=1e-5)
            assert one.val_bags == other.val_bags
            assert_near_arrays(one.val_logits, other.val_logits)
    return together


NETWORKS: dict[str, tuple[ModelConfig, tuple[TaskSpec, ...]]] = {
    "crane": (small_model(), TASKS),
    "crane, not gated": (small_model(gated=False), TASKS),
    "mean_pool": (small_model("mean_pool"), TASKS),
    "clam_mb": (clam_model("clam_mb"), (task("a", 3),)),
    "clam_sb": (clam_model("clam_sb"), (task("a", 3),)),
    "max_pool": (small_model("max_pool"), (task("a"),)),
    "max_pool of three classes": (small_model("max_pool"), (task("a", 3),)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_fold_goes_the_way_it_goes_alone(name: str) -> None:
    model, tasks = NETWORKS[name]
    bags = make_bag_set(tasks, missing=True)
    study = make_study(ExperimentConfig(model=model, training=training()), bags, tasks)
    assert_same_course(study, [(halves(bags, 0), 1), (halves(bags, 1), 1), (halves(bags, 3), 2)])


RECIPES: dict[str, dict[str, Any]] = {
    "class weights": {"class_weights": "balanced"},
    "weighted sampling": {"weighted_sample": True},
    "some patches": {"max_patches": 4},
    "svm": {"bag_loss": "svm"},
    "sgd": {"optim": {"name": "sgd", "lr": 0.01}},
    "adamw": {"optim": {"name": "adamw", "lr": 0.01}},
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_can_be_grouped(name: str) -> None:
    bags = make_bag_set(missing=True)
    study = make_study(
        ExperimentConfig(model=small_model(), training=training(**RECIPES[name])), bags
    )
    assert_same_course(study, [(halves(bags, 0), 1), (halves(bags, 2), 5)])


def test_folds_that_stop_at_different_epochs() -> None:
    bags = make_bag_set()
    stopping = {"enabled": True, "patience": 2, "min_epochs": 0}
    recipe = training(epochs=12, stopping=stopping, optim={"lr": 0.005})
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
    wrong = tuple(replace(bag, labels_T=(1 - bag.labels_T[0], 0)) for bag in bags[:5])
    folds = [
        (FoldBags(0, bags[:14], bags[14:]), 1),
        (FoldBags(1, bags[5:], wrong), 1),
        (FoldBags(2, bags[4:], bags[:4]), 1),
    ]
    runs = assert_same_course(study, folds)
    assert runs[1].stopped and runs[1].next_epoch < runs[0].next_epoch


def test_a_fold_with_nan_does_not_disturb_the_others() -> None:
    bags = make_bag_set()
    pack = make_pack(bags)
    pack.read("s02")[0] = np.nan
    study = make_study(ExperimentConfig(model=small_model(), training=training()), bags, pack=pack)
    folds = [FoldBags(0, bags[:10]), FoldBags(1, bags[3:12]), FoldBags(2, bags[6:])]
    runs = [start(study, fold) for fold in folds]
    follow(study, runs, grouped=True)
    assert "fold 0: the loss is nan in epoch 0 at bag s02;" in runs[0].failure
    alone = [start(study, fold) for fold in folds[1:]]
    follow(study, alone, grouped=False)
    assert_same_runs(runs[1:], alone)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_schedule_gives_every_fold_its_own_order(weighted: bool) -> None:
    bags = make_bag_set()
    study = make_study(
        ExperimentConfig(model=small_model(), training=training(weighted_sample=weighted)), bags
    )
    runs = [start(study, halves(bags, fold)) for fold in range(4)]
    for epoch in range(3):
        seen: list[list[Bag]] = [[] for _ in runs]
        for bag, members in schedule(runs, study, epoch):
            for member in members:
                seen[member].append(bag)
        assert seen == [fold_order(run, study, epoch) for run in runs]


def test_a_case_with_other_slides_in_another_fold_is_another_bag() -> None:
    whole = tuple(Bag(f"p{n}", f"p{n}", (f"s0{n}", f"s0{n + 1}"), (n % 2, 0)) for n in range(4))
    part = tuple(replace(bag, slide_ids=bag.slide_ids[:1]) for bag in whole[:2]) + whole[2:]
    pack = make_pack(make_bag_set())
    study = make_study(ExperimentConfig(model=small_model(), training=training()), whole, pack=pack)
    assert_same_course(
        study, [(FoldBags(0, whole, whole[:1]), 1), (FoldBags(1, part, part[:1]), 1)]
    )


class CountingPack(Pack):
    def __init__(self, pack: Pack) -> None:
        self.__dict__.update(pack.__dict__)
        self.reads = Counter[str]()

    def read(self, slide_id: str) -> Any:
        self.reads[slide_id] += 1
        return super().read(slide_id)


def test_training_reads_a_bag_once_an_epoch_for_all_folds() -> None:
    bags = make_bag_set()
    pack = CountingPack(make_pack(bags))
    study = make_study(ExperimentConfig(model=small_model(), training=training()), bags, pack=pack)
    runs = [start(study, replace(halves(bags, fold), val=())) for fold in (0, 1, 2, 0)]
    engine = GroupedEngine(study, runs)
    engine.train_epoch(runs, 0)
    everyone = {bag.bag_id for run in runs for bag in run.bags.train}
    assert pack.reads == Counter(everyone)


def test_a_resumed_group_ends_as_if_it_had_not_been_interrupted(tmp_path: Any) -> None:
    bags = make_bag_set()
    recipe = training(epochs=4)
    study = make_study(ExperimentConfig(model=small_model(dropout=0.2), training=recipe), bags)
    folds = [halves(bags, fold) for fold in range(3)]
    whole = [start(study, fold) for fold in folds]

    def keep(run: FoldRun) -> None:
        if run.next_epoch == 2:
            save_run(run, str(tmp_path / f"{run.bags.fold}"), "f")

    train(whole, GroupedEngine(study, whole), study, keep=keep)
    for load_first in (True, False):
        runs = [start(study, fold) for fold in folds]
        engine = None if load_first else GroupedEngine(study, runs)
        assert all(load_run(run, str(tmp_path / f"{run.bags.fold}"), "f") for run in runs)
        train(runs, engine or GroupedEngine(study, runs), study)
        for run, other in zip(runs, whole, strict=True):
            assert run.next_epoch == 4
            assert_near(run.network.state_dict(), other.network.state_dict(), 0)


def test_runs_may_come_in_another_order_than_the_engine_knows_them() -> None:
    bags = make_bag_set()
    study = make_study(ExperimentConfig(model=small_model(), training=training()), bags)
    folds = [FoldBags(0, bags), FoldBags(1, bags[:9])]
    runs, alone = ([start(study, fold, seed=fold.fold) for fold in folds] for _ in range(2))
    losses = GroupedEngine(study, runs).train_epoch(runs[::-1], 0)
    expected = SingleEngine(study).train_epoch(alone[::-1], 0)
    assert losses == pytest.approx(expected, abs=1e-5)
    assert_same_runs(runs, alone)


def test_dropout_differs_between_folds_and_loss_falls() -> None:
    bags = make_bag_set()
    recipe = training(epochs=15, optim={"lr": 0.01})
    study = make_study(ExperimentConfig(model=small_model(dropout=0.25), training=recipe), bags)
    fold = halves(bags)
    runs = [start(study, fold, seed=3), start(study, replace(fold, fold=1), seed=3)]
    reports = follow(study, runs, grouped=True)
    one, two = (next(run.network.parameters()) for run in runs)
    assert not torch.equal(one, two)
    for course in reports.values():
        assert course[-1].train_loss < 0.7 * course[0].train_loss


def test_bfloat16_can_be_grouped() -> None:
    bags = make_bag_set()
    recipe = training(epochs=1, precision="bf16")
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
    folds = [halves(bags, 0), halves(bags, 1)]
    together, alone = ([start(study, fold) for fold in folds] for _ in range(2))
    follow(study, together, grouped=True)
    follow(study, alone, grouped=False)
    for one, other in zip(together, alone, strict=True):
        assert_near(one.network.state_dict(), other.network.state_dict(), 0.05)


def test_several_bags_a_step_cannot_be_grouped() -> None:
    bags = make_bag_set()
    recipe = training(bags_per_step=4)
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
    with pytest.raises(ConfigError, match=r"--bags-per-step 4: grouped folds take one bag a step"):
        GroupedEngine(study, [start(study, halves(bags))])


def test_networks_that_keep_statistics_cannot_be_grouped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bags = make_bag_set()
    study = make_study(ExperimentConfig(model=small_model("mean_pool"), training=training()), bags)
    runs = [start(study, halves(bags))]
    module = ModuleType("normed")

    def build(config: ModelConfig, dim: int, tasks: tuple[TaskSpec, ...]) -> Aggregator:
        network = mean_pool.build(config, dim, tasks)
        network.add_module("norm", torch.nn.BatchNorm1d(3))
        return network

    module.build = build  # type: ignore[attr-defined]
    monkeypatch.setattr(protocol, "load_plugin", lambda *_: module)
    with pytest.raises(ConfigError, match=r"keeps statistics .* without --grouped-folds"):
        GroupedEngine(study, runs)
