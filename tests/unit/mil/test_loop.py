"""The loop against a plain one, and what it does with faults."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crane_ray.cohort.tasks import MISSING
from crane_ray.errors import ConfigError
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.mil.bags import Bag
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.loop import SingleEngine, fold_order, train
from crane_ray.mil.pack import Pack
from crane_ray.mil.prediction import PACKED_PATCHES, Study, part_loss, predict
from crane_ray.mil.run import EpochReport, FoldBags, FoldRun
from crane_ray.mil.workers import Worker
from tests.unit.mil.small_bags import (
    DIM,
    LR,
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


def run_to_end(study: Study, bags: FoldBags, seed: int | None = None) -> FoldRun:
    run = start(study, bags, seed)
    train([run], SingleEngine(study), study)
    return run


def weights_of(run: FoldRun) -> dict[str, torch.Tensor]:
    return {name: values.detach().clone() for name, values in run.network.state_dict().items()}


def test_training_learns_a_problem_with_two_tasks() -> None:
    config = ExperimentConfig(model=small_model(), training=training(epochs=25, optim={"lr": 0.01}))
    bags = make_bag_set(num_bags=72)
    study = make_study(config, bags)
    reports: list[EpochReport] = []
    run = start(study, FoldBags(3, bags[:60], bags[60:]), seed=5)
    train([run], SingleEngine(study), study, report=reports.append)
    assert [(one.fold, one.seed, one.epoch) for one in reports] == [(3, 5, e) for e in range(25)]
    assert reports[-1].train_loss < 0.4 * reports[0].train_loss
    assert reports[-1].val_loss is not None and reports[0].val_loss is not None
    assert reports[-1].val_loss < 0.5 * reports[0].val_loss
    assert reports[-1].val_bags == bags[60:]
    for place, one in enumerate(TASKS):
        found = reports[-1].val_logits[one.name].argmax(axis=1)
        assert (found == [bag.labels_T[place] for bag in bags[60:]]).mean() >= 0.9


def test_the_loop_imports_no_ray() -> None:
    code = """
import sys
from tests.unit.mil import small_bags as small
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.loop import SingleEngine, train
bags = small.make_bag_set()
config = ExperimentConfig(model=small.small_model(), training=small.training())
study = small.make_study(config, bags)
run = small.start(study, small.halves(bags))
train([run], SingleEngine(study), study)
assert run.next_epoch == 3 and not run.failure
print([name for name in sys.modules if name.split(".")[0] == "ray"])
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == "[]"


def plain_loop(study: Study, bags: FoldBags, seed: int) -> dict[str, torch.Tensor]:
    """Published training, restated: one bag, one step of Adam."""
    torch.manual_seed(seed)
    network = build_aggregator(study.config.model, DIM, study.tasks)
    optimizer = torch.optim.Adam(network.parameters(), lr=LR, weight_decay=1e-5)
    total = sum(one.weight for one in study.tasks)
    for epoch in range(study.config.training.epochs):
        for bag in fold_order(start(study, bags), study, epoch):
            features = torch.tensor(study.reader.pack.read(bag.bag_id))
            logits = network(features).logits
            loss = torch.zeros(())
            for one, label in zip(study.tasks, bag.labels_T, strict=True):
                if label != MISSING:
                    target = torch.tensor([label])
                    loss = loss + one.weight / total * torch.nn.functional.cross_entropy(
                        logits[one.name], target
                    )
            # a head without a label still steps: its gradient is zero, its weight decays
            loss = loss + 0 * sum(values.sum() for values in logits.values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return dict(network.state_dict())


@pytest.mark.parametrize("missing", [False, True])
def test_one_bag_a_step_is_plain_adam(missing: bool) -> None:
    bags = make_bag_set(missing=missing)
    config = ExperimentConfig(model=small_model(), training=training())
    study, fold = make_study(config, bags), halves(bags)
    run = run_to_end(study, fold)
    assert_near(weights_of(run), plain_loop(study, fold, seed=1), 1e-6)


def test_weights_and_dropout_depend_on_the_seed_and_the_order_does_not() -> None:
    bags = make_bag_set()
    study = make_study(ExperimentConfig(model=small_model(), training=training()), bags)
    fold = halves(bags)
    one, two = start(study, fold, seed=1), start(study, fold, seed=2)
    assert not torch.equal(*(next(run.network.parameters()) for run in (one, two)))
    assert fold_order(one, study, 4) == fold_order(two, study, 4)
    assert_near(weights_of(one), weights_of(start(study, fold, seed=1)), 0)


@pytest.mark.parametrize("name", ["crane", "clam_sb", "clam_mb"])
def test_packed_bags_step_along_the_mean_of_their_gradients(name: str) -> None:
    tasks = TASKS if name == "crane" else TASKS[1:]
    bags = make_bag_set(tasks, 10)
    model = small_model() if name == "crane" else clam_model(name)
    recipe = training(epochs=1, bags_per_step=4, optim={"name": "sgd", "lr": 0.1, "momentum": 0.0})
    study = make_study(ExperimentConfig(model=model, training=recipe), bags, tasks)
    single = make_study(
        ExperimentConfig(model=model, training=recipe.model_copy(update={"bags_per_step": 1})),
        bags,
        tasks,
    )
    fold = FoldBags(0, bags)
    packed = run_to_end(study, fold)
    run = start(study, fold)
    order = fold_order(run, study, 0)
    expected = dict(run.network.named_parameters())
    for step in (order[:4], order[4:8], order[8:]):
        before = weights_of(run)
        moved = {key: torch.zeros_like(values) for key, values in before.items()}
        for bag in step:
            alone = start(study, FoldBags(0, (bag,)))
            alone.network.load_state_dict(before)
            SingleEngine(single).train_epoch([alone], 0)
            for key, values in alone.network.state_dict().items():
                moved[key] += (values - before[key]) / len(step)
        run.network.load_state_dict({key: before[key] + moved[key] for key in before})
    assert_near(weights_of(packed), {k: v.detach() for k, v in expected.items()}, 2e-5)


def test_classes_weigh_as_rare_as_they_are() -> None:
    bags = make_bag_set((task("a"),))
    fold = FoldBags(0, bags[:2] + bags[2::2])  # 11 of class 0 ... and one of class 1
    recipe = training(class_weights="balanced")
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags, (task("a"),))
    run = start(study, fold)
    counts = np.bincount([bag.labels_T[0] for bag in fold.train])
    expected = counts.sum() / (2 * counts)
    assert run.class_weights["a"].tolist() == pytest.approx(expected.tolist())
    loss = SingleEngine(study).train_epoch([run], 0)
    plain = make_study(
        ExperimentConfig(model=small_model(), training=training()), bags, (task("a"),)
    )
    assert loss != SingleEngine(plain).train_epoch([start(plain, fold)], 0)


def test_a_class_without_bags_and_a_task_without_labels_weigh_one() -> None:
    bags = tuple(replace(bag, labels_T=(0, MISSING)) for bag in make_bag_set())
    recipe = training(class_weights="balanced")
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
    run = run_to_end(study, FoldBags(0, bags))
    assert not run.failure
    assert run.class_weights["a"].tolist() == [1, 1]
    assert run.class_weights["b"].tolist() == [1, 1, 1]


def test_bags_without_a_label_train_the_other_tasks_only() -> None:
    bags = tuple(replace(bag, labels_T=(bag.labels_T[0], MISSING)) for bag in make_bag_set())
    recipe = training(optim={"lr": 0.01, "weight_decay": 0.0})
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
    before = weights_of(start(study, FoldBags(0, bags)))
    after = weights_of(run_to_end(study, FoldBags(0, bags)))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in changed if name.startswith("classifier_2")}
    assert "classifier_1.weight" in changed


def test_weighted_sampling_is_seen_by_the_fold() -> None:
    bags = tuple(replace(bag, labels_T=(int(n == 3), 0)) for n, bag in enumerate(make_bag_set()))
    recipe = training(weighted_sample=True)
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
    run = start(study, FoldBags(0, bags))
    orders = [fold_order(run, study, epoch) for epoch in range(20)]
    assert all(len(order) == len(bags) for order in orders)
    assert sum(order.count(bags[3]) for order in orders) / 400 == pytest.approx(0.5, abs=0.1)


def spoiled(pack: Pack, bag: Bag) -> Pack:
    pack.read(bag.bag_id)[1, 2] = np.nan
    return pack


@pytest.mark.parametrize("bags_per_step", [1, 2])
def test_a_loss_that_is_nan_stops_its_fold_and_names_the_bag(bags_per_step: int) -> None:
    bags = make_bag_set()
    recipe = training(bags_per_step=bags_per_step)
    config = ExperimentConfig(model=small_model(), training=recipe)
    study = make_study(config, bags, pack=spoiled(make_pack(bags), bags[7]))
    bad, good = FoldBags(4, bags[5:15]), FoldBags(5, bags[10:])
    runs = [start(study, bad), start(study, good)]
    kept: list[tuple[int, str]] = []
    reports: list[EpochReport] = []
    train(
        runs,
        SingleEngine(study),
        study,
        keep=lambda run: kept.append((run.bags.fold, run.failure)),
        report=reports.append,
    )
    assert "fold 4: the loss is nan in epoch 0 at bag" in runs[0].failure
    assert "s07" in runs[0].failure.split("at bag")[1].split(";")[0]
    assert runs[0].over and runs[0].next_epoch == 0 and runs[0].best_epoch == -1
    assert not runs[1].failure and runs[1].next_epoch == 3
    assert [fold for fold, _ in kept] == [4, 5, 5, 5]
    assert kept[0][1] == runs[0].failure
    assert [report.fold for report in reports] == [5, 5, 5]
    alone = run_to_end(study, good)
    assert_near(weights_of(runs[1]), weights_of(alone), 0)


def test_a_val_loss_that_is_nan_stops_the_fold_and_is_no_improvement() -> None:
    bags = make_bag_set()
    config = ExperimentConfig(model=small_model(), training=training())
    study = make_study(config, bags, pack=spoiled(make_pack(bags), bags[16]))
    run = run_to_end(study, FoldBags(2, bags[:12], bags[12:]))
    assert run.failure.startswith("fold 2: the val loss is nan in epoch 0 at bag s16;")
    assert run.best_epoch == -1 and not run.best_weights


def test_a_learning_rate_that_is_too_high_is_a_failure_of_the_fold() -> None:
    bags = make_bag_set()
    recipe = training(optim={"name": "sgd", "lr": 1e30})
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
    run = run_to_end(study, halves(bags))
    assert "lower --lr" in run.failure and "epoch 0 at bag s" in run.failure


def test_parts_without_labelled_bags_are_refused() -> None:
    bags = make_bag_set()
    stopping = make_study(
        ExperimentConfig(model=small_model(), training=training(stopping={"enabled": True})), bags
    )
    blank = replace(bags[0], labels_T=(MISSING, MISSING))
    with pytest.raises(ConfigError, match=r"fold 7: its val part .* --no-early-stopping"):
        run_to_end(stopping, FoldBags(7, bags))
    with pytest.raises(ConfigError, match="fold 7: its val part"):
        run_to_end(stopping, FoldBags(7, bags, (blank,)))
    with pytest.raises(ConfigError, match=r"fold 1: its training part has no bag"):
        run_to_end(stopping, FoldBags(1, (), bags))
    with pytest.raises(ConfigError, match="fold 1: its training part"):
        run_to_end(stopping, FoldBags(1, (blank,), bags))
    plain = make_study(ExperimentConfig(model=small_model(), training=training()), bags)
    run = run_to_end(plain, FoldBags(0, bags))
    assert run.best_epoch == 2
    assert_near(run.best_weights, weights_of(run), 0)


def test_early_stopping_ends_training_and_keeps_the_best_weights() -> None:
    bags = make_bag_set(num_bags=12)
    stopping = {"patience": 2, "min_epochs": 3}
    recipe = training(epochs=60, stopping=stopping, optim={"lr": 0.05})
    study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
    flipped = tuple(replace(bag, labels_T=(1 - bag.labels_T[0], MISSING)) for bag in bags[6:])
    run = start(study, FoldBags(0, bags[:6], flipped))
    seen: list[float] = []
    states: list[dict[str, torch.Tensor]] = []

    def report(one: EpochReport) -> None:
        assert one.val_loss is not None
        seen.append(one.val_loss)
        states.append(weights_of(run))

    train([run], SingleEngine(study), study, report=report)
    assert run.stopped and len(seen) < 60
    assert run.best_loss == min(seen) and seen[run.best_epoch] == min(seen)
    assert_near(run.best_weights, states[run.best_epoch], 0)
    assert len(seen) == max(run.best_epoch + 3, 5)


def test_predictions_do_not_depend_on_how_bags_are_packed() -> None:
    bags = make_bag_set()
    study = make_study(ExperimentConfig(model=small_model(), training=training()), bags)
    network = start(study, FoldBags(0, bags)).network
    rows = {bag.bag_id: (0, 3000 if n % 3 else 9000) for n, bag in enumerate(bags)}
    features = np.random.default_rng(0).normal(size=(9000, DIM)).astype(np.float32)
    wide = make_study(study.config, bags, pack=Pack(features, rows, ()))
    assert sum(stop for _, stop in rows.values()) > 2 * PACKED_PATCHES
    for one in (study, wide):
        found = predict(network, bags, one)
        singles = [predict(network, [bag], one) for bag in bags]
        expected = {name: np.concatenate([s[name] for s in singles]) for name in found}
        assert_near_arrays(found, expected)
        assert all(values.dtype == np.float64 for values in found.values())
    assert predict(network, [], study)["b"].shape == (0, 3)


def test_predictions_are_without_dropout() -> None:
    bags = make_bag_set()
    config = ExperimentConfig(model=small_model(dropout=0.5), training=training())
    study = make_study(config, bags)
    network = start(study, FoldBags(0, bags)).network
    plain = make_study(config.model_copy(update={"model": small_model()}), bags)
    other = start(plain, FoldBags(0, bags)).network
    other.load_state_dict(dict(zip(other.state_dict(), network.state_dict().values(), strict=True)))
    network.train()
    assert_near_arrays(predict(network, bags, study), predict(other, bags, plain), 0)


def test_a_parts_loss_is_each_tasks_mean_over_its_labelled_bags() -> None:
    bags = make_bag_set(missing=True)
    study = make_study(ExperimentConfig(model=small_model(), training=training()), bags)
    rng = np.random.default_rng(0)
    logits = {one.name: rng.normal(size=(len(bags), one.num_classes)) for one in TASKS}
    expected = 0.0
    for place, one in enumerate(TASKS):
        log_p = logits[one.name] - np.log(np.exp(logits[one.name]).sum(axis=1, keepdims=True))
        labels = [bag.labels_T[place] for bag in bags]
        losses = [-log_p[n, label] for n, label in enumerate(labels) if label != MISSING]
        expected += one.weight / 3 * float(np.mean(losses))
    assert part_loss(logits, bags, study) == pytest.approx(expected)
    assert part_loss({}, (), study) is None


def test_bfloat16_stays_near_float32() -> None:
    bags = make_bag_set()
    fold = halves(bags)
    runs = []
    for precision in ("fp32", "bf16"):
        recipe = training(epochs=2, precision=precision)
        study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
        runs.append(run_to_end(study, fold))
        assert {values.dtype for values in runs[-1].network.state_dict().values()} == {
            torch.float32
        }
    first, second = (weights_of(run) for run in runs)
    assert_near(first, second, 0.05)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_training_on_some_patches_of_large_bags() -> None:
    bags = make_bag_set()
    fold = halves(bags)
    found = []
    for max_patches in (4, 4, None):
        recipe = training(max_patches=max_patches)
        study = make_study(ExperimentConfig(model=small_model(), training=recipe), bags)
        found.append(weights_of(run_to_end(study, fold)))
    assert_near(found[0], found[1], 0)
    assert any((found[0][name] - found[2][name]).abs().max() > 1e-3 for name in found[0])


def test_resumed_folds_that_were_saved_at_different_epochs_end_alike() -> None:
    bags = make_bag_set()
    study = make_study(
        ExperimentConfig(model=small_model(dropout=0.25), training=training(epochs=5)), bags
    )
    folds = [halves(bags, 0), halves(bags, 1)]
    runs = [start(study, fold) for fold in folds]
    engine = SingleEngine(study)
    for epoch in range(3):
        engine.train_epoch(runs[:1], epoch)
        runs[0].close_epoch(None, study.config)
    train(runs, engine, study)
    for run, fold in zip(runs, folds, strict=True):
        assert run.next_epoch == 5
        assert_near(weights_of(run), weights_of(run_to_end(study, fold)), 0)


def test_each_worker_drops_other_values() -> None:
    bags = make_bag_set()
    study = make_study(ExperimentConfig(model=small_model(), training=training()), bags)
    seeds = set()
    for rank in range(2):
        worker = Worker()
        worker.rank, worker.world = rank, 2
        SingleEngine(study, worker).train_epoch([start(study, halves(bags))], 0)
        seeds.add(torch.initial_seed())
    assert len(seeds) == 2
