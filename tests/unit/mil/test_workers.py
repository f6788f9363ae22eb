"""Two processes train as one: gloo on this machine, a thread each."""

import multiprocessing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.errors import ConfigError, StoreError
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.mil.loop import SingleEngine, train
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import EpochReport, FoldBags
from crane_ray.mil.workers import DistributedWorker, Worker
from tests.unit.mil.small_bags import (
    TASKS,
    assert_near,
    assert_near_arrays,
    clam_model,
    make_bag_set,
    make_pack,
    make_study,
    small_model,
    start,
    task,
    training,
)

WORLD = 2
NAMES = ("crane", "clam_sb", "clam_mb", "sgd", "odd", "nan", "one label", "default")


def problem(name: str) -> tuple[Study, FoldBags]:
    """13 training bags: four whole steps of three or six of two, and one bag that is left."""
    tasks = (task("a", 3),) if name.startswith("clam") else TASKS
    bags = make_bag_set(tasks, missing=True)
    if name == "one label":  # in most steps no worker has a label of the second task
        bags = tuple(replace(bag, labels_T=(bag.labels_T[0], -1)) for bag in bags[:-1]) + bags[-1:]
    per_step = {"bags_per_step": 3 if name in ("odd", "clam_mb") else 2}
    optim: dict[str, Any] = {"optim": {"name": "sgd", "lr": 0.05}} if name == "sgd" else {}
    balanced: dict[str, Any] = {"class_weights": "balanced"} if name == "odd" else {}
    recipe = training(epochs=2, **per_step, **optim, **balanced)
    if name == "default":
        recipe = training(epochs=2)
    model = clam_model(name) if name.startswith("clam") else small_model()
    pack = make_pack(bags)
    if name == "nan":
        pack.read("s05")[0] = np.nan
    config = ExperimentConfig(model=model, training=recipe)
    study = make_study(config, bags, tasks, pack=pack)
    return study, FoldBags(0, bags[:13], bags[13:])


def trained(name: str, worker: Worker | None = None) -> dict[str, Any]:
    study, bags = problem(name)
    run = start(study, bags)
    reports: list[EpochReport] = []
    train([run], SingleEngine(study, worker), study, report=reports.append)
    return {
        "weights": dict(run.network.state_dict()),
        "failure": run.failure,
        "losses": [one.train_loss for one in reports],
        "val_losses": [one.val_loss for one in reports],
        "logits": [dict(one.val_logits) for one in reports],
    }


def other_bags(worker: Worker) -> str:
    """What a worker says whose node could pack fewer slides."""
    study, bags = problem("crane")
    run = start(study, replace(bags, train=bags.train[worker.rank :]))
    with pytest.raises(StoreError) as caught:
        train([run], SingleEngine(study, worker), study)
    return str(caught.value)


def too_few(worker: Worker) -> str:
    study, _ = problem("crane")
    lonely = study.config.training.model_copy(update={"bags_per_step": 1})
    config = study.config.model_copy(update={"training": lonely})
    with pytest.raises(ConfigError) as caught:
        SingleEngine(replace(study, config=config), worker)
    return str(caught.value)


def gradients(worker: Worker) -> tuple[list[float], bool, float]:
    """Of one weight that only the second worker has a gradient of, and of one nobody has."""
    one, unused = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    if worker.rank:
        one.grad = torch.tensor([1.0, 2.0])
    loss = torch.tensor(0.5 + worker.rank)
    worker.sum_gradients([one, unused], loss)
    assert one.grad is not None
    return one.grad.tolist(), unused.grad is None, float(loss)


def work(rank: int, folder: str) -> None:
    """One process; it does all cases, since starting it costs most of the time."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    worker = DistributedWorker()
    assert (worker.rank, worker.world) == (rank, WORLD)
    assert worker.gather(rank * 10) == [0, 10]
    found: dict[str, Any] = {name: trained(name, worker) for name in NAMES}
    found["other bags"], found["too few"] = other_bags(worker), too_few(worker)
    found["gradients"] = gradients(worker)
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("workers")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, str(folder))) for rank in range(WORLD)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * WORLD
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORLD)]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("nan", "default")])
def test_two_workers_train_as_one(name: str, outcomes: list[dict[str, Any]]) -> None:
    alone = trained(name)
    for outcome in outcomes:
        found = outcome[name]
        assert found["failure"] == ""
        assert_near(found["weights"], alone["weights"])
        assert found["losses"] == pytest.approx(alone["losses"], abs=1e-5)
        assert found["val_losses"] == pytest.approx(alone["val_losses"], abs=1e-5)
        for logits, expected in zip(found["logits"], alone["logits"], strict=True):
            assert_near_arrays(logits, expected)


def test_workers_agree_to_the_last_bit(outcomes: list[dict[str, Any]]) -> None:
    for name in NAMES:
        one, two = (outcome[name] for outcome in outcomes)
        assert one["val_losses"] == two["val_losses"]
        if name != "nan":
            assert_near(one["weights"], two["weights"], 0)
            assert_near_arrays(one["logits"][-1], two["logits"][-1], 0)


def test_the_same_bag_stops_all_workers(outcomes: list[dict[str, Any]]) -> None:
    assert {outcome["nan"]["failure"] for outcome in outcomes} == {trained("nan")["failure"]}
    assert "s05" in outcomes[0]["nan"]["failure"]


def test_a_bag_a_worker_is_the_default(outcomes: list[dict[str, Any]]) -> None:
    assert_near(outcomes[0]["default"]["weights"], outcomes[0]["crane"]["weights"], 0)
    assert trained("default")["losses"] != outcomes[0]["default"]["losses"]


def test_workers_that_have_other_bags_say_so(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert outcome["other bags"].startswith("fold 0: its workers have other bags")


def test_weights_that_no_worker_used_have_no_gradient(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert outcome["gradients"] == ([1.0, 2.0], True, 2.0)


def test_every_worker_needs_a_bag(outcomes: list[dict[str, Any]]) -> None:
    for outcome in outcomes:
        assert outcome["too few"].startswith("--bags-per-step 1: 2 workers need at least one bag")


def test_one_process_has_all_to_itself() -> None:
    worker = Worker()
    assert worker.gather("x") == ["x"]
    assert (worker.rank, worker.world) == (0, 1)
