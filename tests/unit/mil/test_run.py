import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from crane_ray import storage
from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.errors import StoreError
from crane_ray.mil.bags import Bag
from crane_ray.mil.configs import ExperimentConfig, OptimConfig
from crane_ray.mil.loop import Engine, SingleEngine, train
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import (
    NUMBERS,
    FoldBags,
    FoldRun,
    balanced_weights,
    load_run,
    make_optimizer,
    save_run,
)
from tests.unit.mil.small_bags import (
    assert_near,
    clam_model,
    halves,
    make_bag_set,
    make_study,
    small_model,
    start,
    task,
    training,
)


def make(**config: Any) -> tuple[Study, FoldBags]:
    bags = make_bag_set()
    recipe = training(**config)
    return make_study(ExperimentConfig(model=small_model(dropout=0.25), training=recipe), bags), (
        halves(bags)
    )


def epochs_of(losses: list[float], patience: int, min_epochs: int) -> FoldRun:
    """A fold after these val losses, one an epoch, or fewer if it stops before."""
    study, bags = make(stopping={"enabled": True, "patience": patience, "min_epochs": min_epochs})
    run = start(study, bags)
    for loss in losses:
        if run.over:
            break
        run.close_epoch(loss, study.config)
    return run


@pytest.mark.parametrize(
    ("losses", "patience", "min_epochs", "epochs", "best"),
    [
        ([3, 2, 1], 1, 0, 3, 2),
        ([1, 2], 1, 0, 2, 0),
        ([1, 2, 3, 4, 5], 3, 0, 4, 0),
        ([1, 1, 1, 1, 1], 2, 0, 5, 4),  # equal counts as lower
        ([1, 2, 2, 1, 2, 2, 9], 2, 3, 6, 3),  # patience is used up again after min_epochs
        ([1, 2, 2, 2, 2, 2, 2], 2, 4, 6, 0),  # epoch 5 is the first beyond 4
        ([1, 2, 2, 2, 2, 0.5, 1, 1], 2, 4, 8, 5),
        ([1, 2, 1.5, 2, 0.9], 4, 0, 5, 4),  # lower than the last, not than the best
    ],
)
def test_early_stopping_is_the_published_one(
    losses: list[float], patience: int, min_epochs: int, epochs: int, best: int
) -> None:
    run = epochs_of([*losses, *[1e9] * (0 if epochs == len(losses) else 50)], patience, min_epochs)
    assert run.next_epoch == epochs
    assert run.best_epoch == best
    assert run.best_loss == losses[best]


def test_published_defaults_stop_at_epoch_51_at_the_earliest() -> None:
    run = epochs_of([1.0, *[2.0] * 100], 20, 50)
    assert (run.next_epoch, run.best_epoch, run.stopped) == (52, 0, True)
    run = epochs_of([*[2.0] * 40, 1.0, *[2.0] * 100], 20, 50)
    assert (run.next_epoch, run.best_epoch, run.stopped) == (61, 40, True)


def test_best_weights_are_those_of_the_best_epoch_whatever_comes_after() -> None:
    study, bags = make(stopping={"enabled": True, "patience": 9})
    run = start(study, bags)
    first = next(run.network.parameters())
    for value, loss in ((1.0, 5.0), (2.0, 3.0), (3.0, 4.0)):
        with torch.no_grad():
            first.fill_(value)
        run.close_epoch(loss, study.config)
    name = next(iter(run.network.state_dict()))
    assert set(run.best_weights[name].flatten().tolist()) == {2.0}


def test_without_early_stopping_the_last_weights_are_kept() -> None:
    study, bags = make()
    run = start(study, bags)
    for loss in (1.0, 2.0, 3.0):
        run.close_epoch(loss, study.config)
    assert (run.best_epoch, run.best_loss, run.stopped) == (2, 3.0, False)
    run.close_epoch(None, study.config)
    assert (run.best_epoch, run.best_loss) == (3, math.inf)


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("saved_after", [1, 3])
def test_a_resumed_fold_ends_as_if_it_had_not_been_interrupted(
    tmp_path: Path, optimiser: str, saved_after: int
) -> None:
    recipe = {"optim": {"name": optimiser, "lr": 0.02}, "epochs": 5, "weighted_sample": True}
    recipe["stopping"] = {"enabled": True, "patience": 2, "min_epochs": 0}
    study, bags = make(**recipe, max_patches=4)
    path = str(tmp_path / "folds" / "0" / "state.pt")

    def keep(run: FoldRun) -> None:
        if run.next_epoch == saved_after:
            save_run(run, path, "f")

    whole = start(study, bags)
    train([whole], SingleEngine(study), study, keep=keep)
    assert whole.next_epoch > saved_after
    torch.manual_seed(99)
    torch.rand(5)
    resumed = start(study, bags)
    assert load_run(resumed, path, "f")
    assert resumed.next_epoch == saved_after
    train([resumed], SingleEngine(study), study)
    assert_near(resumed.network.state_dict(), whole.network.state_dict(), 0)
    assert_near(resumed.best_weights, whole.best_weights, 0)
    for name in NUMBERS:
        assert getattr(resumed, name) == getattr(whole, name)


def test_a_fold_that_failed_or_stopped_stays_so(tmp_path: Path) -> None:
    study, bags = make()
    run = start(study, bags)
    run.failure = "fold 0: the loss is nan"
    save_run(run, str(tmp_path / "state.pt"), "f")
    again = start(study, bags)
    assert load_run(again, str(tmp_path / "state.pt"), "f")
    assert again.over and again.failure == run.failure

    class Never:
        train_epoch = evaluate = None

    engine: Engine = Never()  # type: ignore[assignment]
    train([again], engine, study)


def test_a_resumed_fold_keeps_the_best_weights_it_had(tmp_path: Path) -> None:
    study, bags = make(stopping={"enabled": True})
    run = start(study, bags)
    run.close_epoch(1.0, study.config)
    SingleEngine(study).train_epoch([run], 1)
    run.close_epoch(2.0, study.config)
    save_run(run, str(tmp_path / "state.pt"), "f")
    again = start(study, bags, seed=5)
    assert load_run(again, str(tmp_path / "state.pt"), "f")
    assert again.best_epoch == 0
    assert_near(again.best_weights, start(study, bags).network.state_dict(), 0)


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    study, bags = make()
    run = start(study, bags)
    assert not load_run(run, str(tmp_path / "state.pt"), "f")
    assert run.next_epoch == 0


def test_a_state_of_another_experiment_is_refused(tmp_path: Path) -> None:
    study, bags = make()
    path = str(tmp_path / "state.pt")
    save_run(start(study, bags), path, "one")
    with pytest.raises(StoreError, match=r"state.pt: belongs to a run with another .*--exp-code"):
        load_run(start(study, bags), path, "other")


@pytest.mark.parametrize("kind", ["empty", "half", "text", "list", "other network"])
def test_a_broken_state_is_refused(tmp_path: Path, kind: str) -> None:
    study, bags = make()
    path = tmp_path / "state.pt"
    save_run(start(study, bags), str(path), "f")
    data = path.read_bytes()
    if kind == "list":
        torch.save([1, 2], path)
    elif kind == "other network":
        wide = make_study(
            study.config.model_copy(update={"model": small_model(hidden_dim=9)}), bags.train
        )
        save_run(start(wide, bags), str(path), "f")
    else:
        broken = {"empty": b"", "half": data[: len(data) // 2], "text": b"not a checkpoint"}
        path.write_bytes(broken[kind])
    with pytest.raises(StoreError, match=r"state.pt: cannot be read: .*--overwrite begins anew"):
        load_run(start(study, bags), str(path), "f")


def test_saving_replaces_the_last_state_in_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, bags = make()
    run = start(study, bags)
    path = tmp_path / "state.pt"
    save_run(run, str(path), "f")
    before = path.read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(storage, "put_bytes", killed)
    run.next_epoch = 3
    with pytest.raises(KeyboardInterrupt):
        save_run(run, str(path), "f")
    assert path.read_bytes() == before


def test_weights_depend_on_the_seed_alone_and_leave_torchs_generator_alone() -> None:
    study, bags = make()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    one = start(study, bags, seed=4)
    assert torch.equal(torch.rand(1), expected)
    assert_near(one.network.state_dict(), start(study, bags, seed=4).network.state_dict(), 0)


def test_optimisers_leave_out_what_does_not_train() -> None:
    bags = make_bag_set((task("a"),))
    model = clam_model("clam_sb")
    off = model.model_copy(
        update={"instances": model.instances.model_copy(update={"enabled": False})}
    )
    study = make_study(ExperimentConfig(model=off), bags, (task("a"),))
    network = start(study, FoldBags(0, bags)).network
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        found = make_optimizer(network, OptimConfig.model_validate({"name": name}))
        assert type(found) is kind
        (group,) = found.param_groups
        assert (group["lr"], group["weight_decay"]) == (2e-4, 1e-5)
        trained = [one for one in network.parameters() if one.requires_grad]
        assert len(group["params"]) == len(trained) < len(list(network.parameters()))
    sgd = make_optimizer(network, OptimConfig(name="sgd", momentum=0.5, lr=1))
    assert sgd.param_groups[0]["momentum"] == 0.5


def test_class_weights_have_a_mean_of_one_over_the_bags() -> None:
    bags = make_bag_set(missing=True)[:17]
    study = make_study(
        ExperimentConfig(model=small_model(), training=training(class_weights="balanced")), bags
    )
    run = start(study, FoldBags(0, tuple(replace(bag) for bag in bags)))
    for place, one in enumerate(study.tasks):
        labels = [bag.labels_T[place] for bag in bags if bag.labels_T[place] >= 0]
        weights = run.class_weights[one.name]
        assert sum(float(weights[label]) for label in labels) == pytest.approx(len(labels))
        shares = [
            labels.count(number) * float(weights[number]) for number in range(one.num_classes)
        ]
        assert shares == pytest.approx([shares[0]] * one.num_classes)


def test_weights_of_the_classes_that_are_there_do_not_depend_on_one_that_is_not() -> None:
    three = TaskSpec(name="t", column="t", classes=("a", "b", "never"))
    bags = [Bag(f"S{label}{at}", "C", ("S",), (label,)) for at, label in enumerate([0, 0, 0, 1])]
    weights = balanced_weights(bags, [three])["t"].tolist()
    assert weights == pytest.approx([4 / (2 * 3), 4 / (2 * 1), 1])
    nothing = balanced_weights([Bag("S", "C", ("S",), (MISSING,))], [three])["t"].tolist()
    assert nothing == [1, 1, 1]
