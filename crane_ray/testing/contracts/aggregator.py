"""What an aggregator must hold to.

Shape suffixes: N patches of all bags, D features, B bags, H attention rows, C classes, T tasks.
"""

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.mil.aggregator import Aggregator, MILOutput
from crane_ray.mil.configs import ModelConfig

DIM = 12
SIZES_B = (7, 1, 3, 12)
TOLERANCE = 1e-9
"""Largest difference between two ways to the same float64 figures, about one in size."""


def check_aggregator(
    module: ModuleType, config: ModelConfig | None = None, *, tasks: Sequence[TaskSpec] = ()
) -> None:
    """Holds an aggregator to ``build(config, dim, tasks)`` and `Aggregator`.

    Args:
        module: the plug-in.
        config: of the network; one with narrow layers by default.
        tasks: heads that it is to take; one of three classes by default.

    Raises:
        AssertionError: outputs of another shape, attention that does not sum to one over a bag,
            logits that depend on the order of patches or the other bags of a step, that hide NaN,
            or that differ under `torch.func.vmap`, weights that get no gradient or do not come
            from torch's generator, or a loss for a label that is missing.
    """
    config = config or ModelConfig(hidden_dim=16)
    tasks = tuple(tasks) or (TaskSpec(name="t", column="t", classes=("a", "b", "c")),)
    case = _Case(module, config, tasks)
    with torch.random.fork_rng(devices=[]):
        case.check_generator()
        for size in SIZES_B:
            case.check_bag(size)
        case.check_packing()
        case.check_nan()
        case.check_gradients()
        case.check_missing_labels()
        case.check_vmap()
        case.check_state()


class _Case:
    """A plug-in with a config and tasks; its networks are float64, without dropout."""

    def __init__(
        self, module: ModuleType, config: ModelConfig, tasks: tuple[TaskSpec, ...]
    ) -> None:
        self.module, self.config, self.tasks = module, config, tasks
        self.network = self.build(0)

    def build(self, seed: int) -> Aggregator:
        torch.manual_seed(seed)
        network: Aggregator = self.module.build(self.config, DIM, self.tasks)
        return network.double().eval()

    def check_generator(self) -> None:
        same, other = self.build(0).state_dict(), self.build(1).state_dict()
        own = self.network.state_dict()
        assert all(torch.equal(own[key], same[key]) for key in own), (
            "networks built from the same seed of torch's generator differ"
        )
        assert any(not torch.equal(own[key], other[key]) for key in own), (
            "networks built from different seeds are equal"
        )

    def check_bag(self, size: int) -> None:
        features_ND = _features(size)
        given = features_ND.clone()
        output = self.network(features_ND)
        assert torch.equal(features_ND, given), "the aggregator changed the features it was given"
        self.require_shapes(output, (size,))
        self.require_same(self.network(features_ND), output, "the second time")
        order = torch.randperm(size)
        turned = self.network(features_ND[order])
        for task, logits_BC in output.logits.items():
            _require_near(turned.logits[task], logits_BC, "logits with patches in another order")
        _require_near(turned.attention_HN, output.attention_HN[:, order], "attention, likewise")

    def require_shapes(self, output: MILOutput, sizes_B: Sequence[int]) -> None:
        shapes = {task.name: (len(sizes_B), task.num_classes) for task in self.tasks}
        found = {name: tuple(logits.shape) for name, logits in output.logits.items()}
        assert found == shapes, f"logits {found}, {shapes} expected"
        rows = (len(self.network.heads), sum(sizes_B))
        for name in ("scores_HN", "attention_HN"):
            shape = tuple(getattr(output, name).shape)
            assert shape == rows, f"{name} is {shape}; with these heads {rows} is expected"
        for attention_HP in output.attention_HN.split_with_sizes(sizes_B, dim=1):
            assert (attention_HP >= 0).all(), "attention below zero"
            sums_H = attention_HP.sum(dim=1)
            _require_near(sums_H, torch.ones_like(sums_H), "sum of attention over a bag")

    def require_same(self, output: MILOutput, expected: MILOutput, what: str) -> None:
        for task, logits_BC in expected.logits.items():
            _require_near(output.logits[task], logits_BC, f"logits {what}")
        _require_near(output.scores_HN, expected.scores_HN, f"scores {what}")
        _require_near(output.attention_HN, expected.attention_HN, f"attention {what}")

    def check_packing(self) -> None:
        features_ND = _features(sum(SIZES_B))
        packed = self.network(features_ND, SIZES_B)
        self.require_shapes(packed, SIZES_B)
        bags = features_ND.split_with_sizes(SIZES_B)
        for bag_ND, output in zip(bags, packed.split(SIZES_B), strict=True):
            self.require_same(output, self.network(bag_ND), "of a bag among others")
        self.require_same(self.network(bags[0], [len(bags[0])]), self.network(bags[0]), "packed")

    def check_nan(self) -> None:
        features_ND = _features(5)
        features_ND[2] = torch.nan
        logits = self.network(features_ND).logits
        assert all(values.isnan().any() for values in logits.values()), (
            "a patch of NaN did not make the bag's logits NaN"
        )

    def check_gradients(self) -> None:
        """Every weight that asks for a gradient gets one from some label of some bag."""
        network = self.build(0).train()
        for label in range(max(task.num_classes for task in self.tasks)):
            labels_T = torch.tensor([min(label, task.num_classes - 1) for task in self.tasks])
            _loss(network, _features(9), labels_T).backward()  # type: ignore[no-untyped-call]
        for name, parameter in network.named_parameters():
            assert not parameter.requires_grad or parameter.grad is not None, (
                f"{name} gets no gradient; give it requires_grad_(False) if it is of no use"
            )

    def check_missing_labels(self) -> None:
        network = self.build(0)
        missing_T = torch.full((len(self.tasks),), MISSING)
        loss = network.auxiliary_loss(network(_features(9)), missing_T)
        if loss is None:
            return
        assert loss.shape == (), f"the auxiliary loss is {tuple(loss.shape)}, not a scalar"
        assert loss.item() == 0, "an auxiliary loss for a bag without labels"
        loss.backward()  # type: ignore[no-untyped-call]
        found = [name for name, value in network.named_parameters() if _has_gradient(value)]
        assert not found, f"a gradient of {found[0]} from a bag without labels"

    def check_vmap(self) -> None:
        """Stacked networks give what they give one by one, each with a label of its own."""
        networks = [self.build(seed) for seed in range(3)]
        features_ND = _features(9)
        rows = [[seed % task.num_classes for task in self.tasks] for seed in range(2)]
        labels_GT = torch.tensor([*rows, [MISSING] * len(self.tasks)])
        stacked, buffers = stack_module_state([_Loss(network) for network in networks])

        def losses(
            weights: dict[str, torch.Tensor], held: dict[str, torch.Tensor], labels_T: torch.Tensor
        ) -> torch.Tensor:
            arguments = (features_ND, labels_T)
            loss: torch.Tensor = functional_call(_Loss(networks[0]), (weights, held), arguments)
            return loss

        loss_G = vmap(losses)(stacked, buffers, labels_GT)
        loss_G.sum().backward()  # type: ignore[no-untyped-call]
        for place, (network, labels_T) in enumerate(zip(networks, labels_GT, strict=True)):
            alone = _loss(network, features_ND, labels_T)
            alone.backward()  # type: ignore[no-untyped-call]
            _require_near(loss_G[place], alone, "the loss under vmap")
            for name, parameter in network.named_parameters():
                gradients = stacked[f"network.{name}"].grad
                if parameter.grad is not None and gradients is not None:
                    _require_near(gradients[place], parameter.grad, f"{name}'s gradient under vmap")

    def check_state(self) -> None:
        other = self.build(1)
        other.load_state_dict(self.network.state_dict())
        features_ND = _features(9)
        self.require_same(other(features_ND), self.network(features_ND), "from the state dict")


class _Loss(nn.Module):
    """All that a network says, as one figure, on weights that it is given."""

    def __init__(self, network: Aggregator) -> None:
        super().__init__()
        self.network = network

    def forward(self, features_ND: torch.Tensor, labels_T: torch.Tensor) -> torch.Tensor:
        return _loss(self.network, features_ND, labels_T)


def _loss(network: Aggregator, features_ND: torch.Tensor, labels_T: torch.Tensor) -> torch.Tensor:
    output = network(features_ND)
    loss = torch.stack([values.square().sum() for values in output.logits.values()]).sum()
    auxiliary = network.auxiliary_loss(output, labels_T)
    return loss if auxiliary is None else loss + auxiliary


def _features(num_patches: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_patches)
    return torch.randn(num_patches, DIM, generator=generator, dtype=torch.float64)


def _has_gradient(parameter: nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.any())


def _require_near(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    apart = float((found - expected).detach().abs().max())
    assert apart <= TOLERANCE, f"{what}: {apart:.3g} apart"
