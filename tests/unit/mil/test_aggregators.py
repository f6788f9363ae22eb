"""Aggregators against the published formulas in numpy, and their contract."""

import importlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.mil.aggregator import PACKAGE, Aggregator, MILOutput, build_aggregator
from crane_ray.mil.configs import InstanceConfig, ModelConfig
from crane_ray.plugins import plugin_names
from crane_ray.testing.contracts import aggregator as contract
from crane_ray.testing.contracts import check_aggregator
from tests.unit.mil import numpy_networks as reference

Array = npt.NDArray[np.float64]
NAMES = plugin_names(PACKAGE)
ONE_TASK = ("clam_mb", "clam_sb", "max_pool")


def task(name: str, num_classes: int) -> TaskSpec:
    return TaskSpec(name=name, column=name, classes=tuple(f"c{i}" for i in range(num_classes)))


def build(
    name: str, *num_classes: int, dim: int = 10, seed: int = 0, **config: Any
) -> tuple[Aggregator, dict[str, Array]]:
    """A float64 network in evaluation mode, with biases that are not zero, and its state."""
    torch.manual_seed(seed)
    tasks = [task(f"t{place}", number) for place, number in enumerate(num_classes)]
    network = build_aggregator(ModelConfig(name=name, **config), dim, tasks).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network, {key: value.numpy() for key, value in network.state_dict().items()}


def bag(num_patches: int, dim: int = 10, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng([seed, num_patches])
    return torch.from_numpy(rng.normal(size=(num_patches, dim)))


def near(found: torch.Tensor, expected: Array | Sequence[float], tolerance: float = 1e-6) -> None:
    assert np.abs(found.detach().numpy() - np.asarray(expected)).max() < tolerance


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_each_built_in_keeps_the_contract(name: str, num_classes: int) -> None:
    module = importlib.import_module(f"{PACKAGE}.{name}")
    tasks = [task("t", num_classes)]
    instances = InstanceConfig(subtyping=num_classes == 3, num_patches=2, loss="ce")
    check_aggregator(module, ModelConfig(name=name, hidden_dim=8, instances=instances), tasks=tasks)


@pytest.mark.parametrize("name", ["crane", "mean_pool"])
def test_several_tasks_keep_the_contract(name: str) -> None:
    module = importlib.import_module(f"{PACKAGE}.{name}")
    tasks = [task("a", 2), task("b", 5), task("c", 3)]
    check_aggregator(module, ModelConfig(name=name, hidden_dim=8, gated=False), tasks=tasks)


@pytest.mark.parametrize("name", ONE_TASK)
def test_networks_of_one_task_refuse_several(name: str) -> None:
    with pytest.raises(ConfigError, match=r"exactly one task, not 2 \(t0, t1\); take crane"):
        build(name, 2, 2)


@pytest.mark.parametrize("num_patches", [1, 2, 37])
@pytest.mark.parametrize(("dropout", "gated"), [(0.25, True), (0, True), (0.25, False), (0, False)])
@pytest.mark.parametrize("num_classes", [(2, 2, 2), (2,), (4, 2)])
def test_crane_is_the_published_formula(
    num_patches: int, dropout: float, gated: bool, num_classes: tuple[int, ...]
) -> None:
    network, state = build("crane", *num_classes, dropout=dropout, gated=gated)
    x = bag(num_patches)
    output = network(x)
    logits, scores, attention = reference.crane(
        state, x.numpy(), len(num_classes), dropout=bool(dropout), gated=gated
    )
    assert network.heads == tuple(output.logits) == tuple(f"t{i}" for i in range(len(num_classes)))
    for found, expected in zip(output.logits.values(), logits, strict=True):
        near(found[0], expected)
    near(output.scores_HN, scores)
    near(output.attention_HN, attention)


@pytest.mark.parametrize("num_patches", [1, 3, 40])
@pytest.mark.parametrize(("dropout", "gated"), [(0.25, True), (0, True), (0.1, False), (0, False)])
@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
def test_clam_is_the_published_formula(
    name: str, num_patches: int, dropout: float, gated: bool, num_classes: int
) -> None:
    network, state = build(name, num_classes, dropout=dropout, gated=gated)
    x = bag(num_patches)
    output = network(x)
    logits, scores, attention, h = reference.clam(
        state, x.numpy(), branches=name == "clam_mb", dropout=bool(dropout), gated=gated
    )
    near(output.logits["t0"][0], logits)
    near(output.scores_HN, scores)
    near(output.attention_HN, attention)
    assert output.hidden_NE is not None
    near(output.hidden_NE, h)
    rows = [f"t0:c{i}" for i in range(num_classes)] if name == "clam_mb" else ["t0"]
    assert network.heads == tuple(rows)


@pytest.mark.parametrize("num_patches", [1, 5, 8, 11, 40])
@pytest.mark.parametrize("kind", ["svm", "ce"])
@pytest.mark.parametrize("subtyping", [False, True])
@pytest.mark.parametrize(("name", "num_classes"), [("clam_sb", 2), ("clam_mb", 3), ("clam_sb", 3)])
def test_instance_loss_is_clams(
    name: str,
    num_classes: int,
    subtyping: bool,
    kind: Literal["svm", "ce"],
    num_patches: int,
) -> None:
    instances = InstanceConfig(loss=kind, subtyping=subtyping)
    network, state = build(name, num_classes, instances=instances)
    x = bag(num_patches)
    output = network(x)
    _, _, attention, h = reference.clam(state, x.numpy(), branches=name == "clam_mb", dropout=True)
    for label in range(num_classes):
        loss = network.auxiliary_loss(output, torch.tensor([label]))
        assert loss is not None
        expected = reference.instance_loss(
            state, attention, h, label, num_classes, b=8, subtyping=subtyping, kind=kind
        )
        assert loss.item() == pytest.approx(expected, abs=1e-9)
    missing = network.auxiliary_loss(output, torch.tensor([MISSING]))
    assert missing is not None
    assert missing.item() == 0


def test_instance_clustering_can_be_left_out_without_changing_the_keys() -> None:
    network, state = build("clam_sb", 2, instances=InstanceConfig(enabled=False))
    assert network.auxiliary_loss(network(bag(9)), torch.tensor([1])) is None
    assert "instance_classifiers.1.weight" in state
    frozen = [name for name, value in network.named_parameters() if not value.requires_grad]
    assert frozen == [f"instance_classifiers.{c}.{p}" for c in (0, 1) for p in ("weight", "bias")]


@pytest.mark.parametrize("num_patches", [1, 2, 33])
@pytest.mark.parametrize("num_classes", [2, 3, 6])
def test_max_pool_is_decided_by_the_patch_with_the_highest_probability(
    num_patches: int, num_classes: int
) -> None:
    for seed in range(3):
        network, state = build("max_pool", num_classes, seed=seed)
        x = bag(num_patches, seed=seed)
        output = network(x)
        logits, patch = reference.max_pool(state, x.numpy(), num_classes)
        near(output.logits["t0"][0], logits)
        near(output.attention_HN[0], np.eye(num_patches)[patch])
        assert output.scores_HN.argmax().item() == patch
        p = reference.softmax(logits)
        near(output.scores_HN.max(), p[1] if num_classes == 2 else p.max())


@pytest.mark.parametrize("num_classes", [(2,), (3, 2)])
def test_mean_pool_is_the_mean(num_classes: tuple[int, ...]) -> None:
    network, state = build("mean_pool", *num_classes)
    x = bag(21)
    output = network(x)
    expected = reference.mean_pool(state, x.numpy(), len(num_classes))
    for found, logits in zip(output.logits.values(), expected, strict=True):
        near(found[0], logits)
    near(output.attention_HN, np.full((1, 21), 1 / 21))


@pytest.mark.parametrize(
    ("name", "size", "width"),
    [
        ("crane", None, 384), ("crane", "small", 256), ("crane", "big", 384),
        ("clam_sb", None, 256), ("clam_sb", "big", 384), ("clam_mb", "small", 256),
    ],
)  # fmt: skip
def test_widths_are_the_published_ones(name: str, size: str | None, width: int) -> None:
    _, state = build(name, 2, size=size, dim=1024)
    at = "attention_net.6" if name == "crane" else "attention_net.3"
    assert state[f"{at}.attention_a.0.weight"].shape == (width, 512)
    assert state["attention_net.0.weight"].shape == (512, 1024)


def test_other_widths_can_be_given() -> None:
    _, state = build("crane", 2, hidden_dim=24, attention_dim=7)
    assert state["attention_net.6.attention_b.0.weight"].shape == (7, 24)
    with pytest.raises(ValidationError, match="give one of them"):
        ModelConfig(size="big", attention_dim=7)


@pytest.mark.parametrize("name", ["max_pool", "mean_pool"])
@pytest.mark.parametrize("widths", [{"size": "big"}, {"attention_dim": 9}])
def test_networks_without_attention_refuse_its_width(name: str, widths: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no attention"):
        build(name, 2, **widths)


KEYS = {
    ("crane", (2, 2, 2), 0.25, True): {
        "attention_net.0", "attention_net.3", "attention_net.6.attention_a.0",
        "attention_net.6.attention_b.0", "attention_net.6.attention_c", "classifier_1",
        "classifier_2", "classifier_3",
    },
    ("crane", (2,), 0, True): {
        "attention_net.0", "attention_net.2", "attention_net.4.attention_a.0",
        "attention_net.4.attention_b.0", "attention_net.4.attention_c", "classifier",
    },
    ("clam_sb", (2,), 0.25, True): {
        "attention_net.0", "attention_net.3.attention_a.0", "attention_net.3.attention_b.0",
        "attention_net.3.attention_c", "classifiers", "instance_classifiers.0",
        "instance_classifiers.1",
    },
    ("clam_mb", (3,), 0, True): {
        "attention_net.0", "attention_net.2.attention_a.0", "attention_net.2.attention_b.0",
        "attention_net.2.attention_c", *(f"classifiers.{c}" for c in range(3)),
        *(f"instance_classifiers.{c}" for c in range(3)),
    },
    ("clam_sb", (2,), 0.25, False): {
        "attention_net.0", "attention_net.3.module.0", "attention_net.3.module.3", "classifiers",
        "instance_classifiers.0", "instance_classifiers.1",
    },
    ("clam_sb", (2,), 0, False): {
        "attention_net.0", "attention_net.2.module.0", "attention_net.2.module.2", "classifiers",
        "instance_classifiers.0", "instance_classifiers.1",
    },
    ("max_pool", (2,), 0.25, True): {"fc.0", "classifier"},
    ("max_pool", (3,), 0.25, True): {"fc.0", "classifiers"},
}  # fmt: skip


@pytest.mark.parametrize("case", KEYS, ids=str)
def test_state_dict_keys_are_the_published_ones(
    case: tuple[str, tuple[int, ...], float, bool],
) -> None:
    name, num_classes, dropout, gated = case
    _, state = build(name, *num_classes, dropout=dropout, gated=gated)
    assert set(state) == {f"{key}.{part}" for key in KEYS[case] for part in ("weight", "bias")}


@pytest.mark.parametrize("name", NAMES)
def test_weights_begin_xavier_normal_and_biases_zero(name: str) -> None:
    torch.manual_seed(3)
    network = build_aggregator(ModelConfig(name=name), 768, [task("t", 2)])
    for key, value in network.named_parameters():
        if key.endswith("bias"):
            assert not value.any()
        elif value.numel() > 50_000:
            outputs, inputs = value.shape
            expected = (2 / (inputs + outputs)) ** 0.5
            assert value.std().item() == pytest.approx(expected, rel=0.02)
            assert value.mean().item() == pytest.approx(0, abs=0.02 * expected)
            beyond = (value.abs() > 2 * expected).double().mean().item()
            assert beyond == pytest.approx(0.0455, abs=0.005)  # normal; a uniform one has none


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_packing_never_changes_a_logit(name: str, sizes: list[int], seed: int) -> None:
    network, _ = build(name, 3, seed=seed, hidden_dim=16)
    x = 5 * bag(sum(sizes), seed=seed)
    outputs = network(x, sizes).split(sizes)
    for features_ND, found in zip(x.split_with_sizes(sizes), outputs, strict=True):
        alone = network(features_ND)
        for one, two in (
            (found.logits["t0"], alone.logits["t0"]),
            (found.attention_HN, alone.attention_HN),
            (found.scores_HN, alone.scores_HN),
        ):
            near(one, two.detach().numpy(), 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_packing_never_changes_a_gradient(name: str) -> None:
    network, _ = build(name, 3, hidden_dim=16)
    sizes = [4, 1, 9]
    x = bag(sum(sizes))
    apart = [network(part).logits["t0"].square().sum() for part in x.split_with_sizes(sizes)]
    expected = torch.autograd.grad(sum(apart), _trained(network), allow_unused=True)
    packed = network(x, sizes).logits["t0"].square().sum()
    found = torch.autograd.grad(packed, _trained(network), allow_unused=True)
    for one, two in zip(found, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None and two is not None:
            near(one, two.numpy(), 1e-12)


def _trained(network: Aggregator) -> list[torch.nn.Parameter]:
    return [value for key, value in network.named_parameters() if "instance" not in key]


@pytest.mark.parametrize("name", NAMES)
def test_softmax_stays_float32_under_autocast(name: str) -> None:
    torch.manual_seed(0)
    network = build_aggregator(ModelConfig(name=name), 16, [task("t", 3)]).eval()
    x = bag(300, 16).float()
    exact = network(x)
    for sizes in (None, [100, 200]):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(x, sizes)
        assert output.scores_HN.dtype == output.attention_HN.dtype == torch.float32
        ends = [len(x)] if sizes is None else sizes
        for attention_HP in output.attention_HN.split(ends, dim=1):
            near(attention_HP.sum(dim=1), np.ones(len(attention_HP)), 1e-6)
    near(output.scores_HN, exact.scores_HN.detach().numpy(), 0.05)


def test_bags_that_no_network_can_answer_for_are_refused() -> None:
    network, _ = build("crane", 2)
    with pytest.raises(ConfigError, match="length 11: the network was made for 10"):
        network(bag(3, dim=11))
    with pytest.raises(ConfigError, match="bag 2 of 3: has no patches"):
        network(bag(3), [1, 0, 2])
    with pytest.raises(ConfigError, match="bag 1 of 1: has no patches"):
        network(torch.empty(0, 10, dtype=torch.float64))


class _Broken:
    """Plug-ins that break one promise each."""

    def __init__(self, wrong: str) -> None:
        self.wrong = wrong

    def build(self, config: ModelConfig, dim: int, tasks: Sequence[TaskSpec]) -> Aggregator:
        if self.wrong == "seed":
            torch.manual_seed(7)
        network = build_aggregator(config, dim, tasks)
        own = network.forward

        def forward(features_ND: torch.Tensor, sizes_B: Sequence[int] | None = None) -> MILOutput:
            if self.wrong == "mixes bags":
                return own(features_ND - (features_ND.mean() if sizes_B else 0), sizes_B)
            if self.wrong == "hides NaN":
                return own(features_ND.nan_to_num(), sizes_B)
            if self.wrong == "writes":
                return own(features_ND.mul_(2), sizes_B)
            if self.wrong == "order":
                return own(features_ND * torch.arange(1, len(features_ND) + 1)[:, None], sizes_B)
            output = own(features_ND, sizes_B)
            return MILOutput(output.logits, output.scores_HN, output.scores_HN, output.hidden_NE)

        network.forward = forward  # type: ignore[method-assign]
        return network


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("seed", "different seeds are equal"), ("mixes bags", "of a bag among others"),
        ("hides NaN", "did not make"), ("writes", "changed the features"),
        ("order", "another order"), ("attention", "attention"),
    ],
)  # fmt: skip
def test_the_contract_finds_what_is_broken(wrong: str, message: str) -> None:
    broken: Any = _Broken(wrong)
    with pytest.raises(AssertionError, match=message):
        check_aggregator(broken, ModelConfig(hidden_dim=8))


def test_the_contract_finds_a_loss_without_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "SIZES_B", (2,))
    module = importlib.import_module(f"{PACKAGE}.crane")
    monkeypatch.setattr(
        module.Crane, "auxiliary_loss", lambda self, output, labels_T: output.scores_HN.sum()
    )
    with pytest.raises(AssertionError, match="auxiliary loss for a bag without labels"):
        check_aggregator(module, ModelConfig(hidden_dim=8))
