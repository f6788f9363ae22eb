"""A small multiple-instance problem: bags whose class a few patches tell, packed in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.mil.bags import Bag, BagReader
from crane_ray.mil.configs import ExperimentConfig, InstanceConfig, ModelConfig, TrainingConfig
from crane_ray.mil.pack import Pack
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import FoldBags, FoldRun, start_run

DIM = 6
NUM_BAGS = 20
LR = 5e-4
"""Near the published one: Adam makes whole steps of gradients that are rounding errors."""


def task(name: str, num_classes: int = 2, weight: float = 1.0) -> TaskSpec:
    classes = tuple(f"c{number}" for number in range(num_classes))
    return TaskSpec(name=name, column=name, classes=classes, weight=weight)


TASKS = (task("a"), task("b", 3, weight=2.0))


def small_model(name: str = "crane", **config: Any) -> ModelConfig:
    widths = {"hidden_dim": 8, "dropout": 0.0}
    if name not in ("max_pool", "mean_pool"):
        widths["attention_dim"] = 4
    return ModelConfig(name=name, **{**widths, **config})


def clam_model(name: str, **config: Any) -> ModelConfig:
    instances = InstanceConfig(num_patches=2, subtyping=name == "clam_mb", loss="svm")
    return small_model(name, instances=instances, **config)


def training(**config: Any) -> TrainingConfig:
    tree: dict[str, Any] = {"epochs": 3, "optim": {"lr": LR}, "stopping": {"enabled": False}}
    return TrainingConfig.model_validate({**tree, **config})


def make_bag_set(
    tasks: Sequence[TaskSpec] = TASKS, num_bags: int = NUM_BAGS, *, missing: bool = False
) -> tuple[Bag, ...]:
    """Bags s00, s01, ...; every fourth lacks the last task's label if asked for."""
    return tuple(
        Bag(
            f"s{number:02}",
            f"p{number:02}",
            (f"s{number:02}",),
            tuple(
                MISSING if missing and place and number % 4 == 1 else number % one.num_classes
                for place, one in enumerate(tasks)
            ),
        )
        for number in range(num_bags)
    )


def make_pack(bags: Sequence[Bag], dtype: Any = np.float32) -> Pack:
    """3 to 9 patches a bag, two of which carry the classes of its tasks."""
    parts, rows, start = [], {}, 0
    for number, bag in enumerate(bags):
        rng = np.random.default_rng([7, number])
        features = rng.normal(size=(3 + number % 7, DIM)).astype(dtype)
        for place, label in enumerate(bag.labels_T):
            features[:2, (2 * place + max(label, 0)) % DIM] += 3
        parts.append(features)
        rows[bag.bag_id] = (start, start + len(features))
        start += len(features)
    return Pack(np.concatenate(parts), rows, ())


def make_study(
    config: ExperimentConfig,
    bags: Sequence[Bag],
    tasks: Sequence[TaskSpec] = TASKS,
    *,
    pack: Pack | None = None,
) -> Study:
    reader = BagReader(pack or make_pack(bags), max_patches=config.training.max_patches)
    return Study(config, tuple(tasks), reader)


def start(study: Study, bags: FoldBags, seed: int | None = None) -> FoldRun:
    return start_run(bags, study.config, study.tasks, dim=DIM, seed=seed)


def halves(bags: Sequence[Bag], fold: int = 0, num_val: int = 6) -> FoldBags:
    """Another val part a fold; the rest trains, less by one bag in every further fold."""
    val = [bags[(fold * 5 + number) % len(bags)] for number in range(num_val)]
    train = [bag for bag in bags if bag not in val]
    return FoldBags(fold, tuple(train[fold:]), tuple(val))


def assert_near(
    found: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    tolerance: float = 1e-5,
) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert (found[name] - values).abs().max() <= tolerance, name


def assert_near_arrays(
    found: Mapping[str, npt.NDArray[Any]],
    expected: Mapping[str, npt.NDArray[Any]],
    tolerance: float = 1e-5,
) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert np.abs(found[name] - values).max() <= tolerance, name
