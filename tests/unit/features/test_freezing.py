"""Frozen networks give the features of the networks that they are made of."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as fn
from torchvision.models import resnet18

from crane_ray.features.encoders.resnet50_trunc import TruncatedResNet50
from crane_ray.features.freezing import FusedConvolution, freeze_convolutions

Forward = Callable[[Any, Any], Any]

FUSES = freeze_convolutions(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), torch.float32) is not None
HAS_BF16 = (
    freeze_convolutions(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), torch.bfloat16) is not None
)
pytestmark = pytest.mark.skipif(not FUSES, reason="torch without oneDNN, or on another kind of CPU")
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="a CPU without bf16 instructions")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        yield
    torch.set_num_threads(threads)


def trained(network: nn.Module) -> nn.Module:
    """Weights and running statistics as uneven as trained ones, in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
    return network.eval()


def frozen(network: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    found = freeze_convolutions(network, dtype)
    assert found is not None
    return found


def output(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        dtype = next(network.parameters()).dtype
        laid_out = images.to(dtype).contiguous(memory_format=torch.channels_last)
        result: torch.Tensor = network(laid_out.clone())
        return result.double().flatten(1)


def assert_same(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """The frozen network; its fp32 output is the network's own to 1e-5 of the largest value."""
    expected = output(network, images)
    made = frozen(network)
    assert expected.std() > 1e-3, "a constant output proves nothing"
    torch.testing.assert_close(
        output(made, images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max())
    )
    return made


def num_of(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in network.modules())


PUBLISHED = pytest.mark.parametrize("build", [TruncatedResNet50, resnet18])


@PUBLISHED
def test_published_networks(build: Callable[[], nn.Module]) -> None:
    network = trained(build())
    made = assert_same(network, torch.randn(2, 3, 96, 96))
    assert num_of(made, nn.BatchNorm2d) == 0
    assert num_of(made, nn.Conv2d) == 0
    assert num_of(made, FusedConvolution) == num_of(network, nn.Conv2d)


@needs_bf16
@PUBLISHED
def test_bf16_points_the_same_way(build: Callable[[], nn.Module]) -> None:
    network, images = trained(build()), torch.randn(3, 3, 96, 96)
    made = frozen(network, torch.bfloat16)
    assert {value.dtype for value in made.parameters()} == {torch.bfloat16}
    cosine = fn.cosine_similarity(output(made, images), output(network, images))
    assert float(cosine.min()) >= 0.9999


@PUBLISHED
def test_the_network_stays_as_it_is(build: Callable[[], nn.Module]) -> None:
    network = trained(build()).train()
    first = next(iter(network.children()))
    first.eval()
    before = copy.deepcopy(network.state_dict())
    modes = {name: module.training for name, module in network.named_modules()}
    frozen(network, torch.bfloat16 if HAS_BF16 else torch.float32)
    after = network.state_dict()
    assert list(after) == list(before)
    for name, value in before.items():
        assert after[name].dtype == value.dtype, name
        assert torch.equal(after[name], value), name
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert not first.training


@PUBLISHED
def test_the_frozen_network_shares_no_memory_with_it(build: Callable[[], nn.Module]) -> None:
    network = trained(build())
    images = torch.randn(1, 3, 64, 64)
    made = frozen(network)
    expected = output(made, images)
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            value.zero_()
    assert torch.equal(output(made, images), expected)
    assert not any(module.training for module in made.modules())


class Net(nn.Module):
    """Four kinds of convolution of 8 channels, put together by a function."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self._forward = forward
        self.a = nn.Conv2d(8, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1, groups=4, bias=False)
        self.c = nn.Conv2d(8, 8, 1)
        self.wide = nn.Conv2d(8, 8, 3, padding=(2, 1), dilation=(2, 1), groups=2)
        self.same = nn.Conv2d(8, 8, 3, padding="same")
        self.mirror = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.norm, self.other_norm = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.relu, self.relu_here = nn.ReLU(), nn.ReLU(inplace=True)
        self.bias = nn.Parameter(torch.randn(1, 8, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._forward(self, images)
        return result


def used_again_later(net: Any, x: torch.Tensor) -> Any:
    hidden = net.a(x)
    return torch.relu(hidden) + hidden


def one_convolution_with_several_followers(net: Any, x: torch.Tensor) -> Any:
    hidden = net.relu(net.norm(net.a(x)))
    hidden = net.other_norm(net.a(hidden))
    return torch.relu(net.a(hidden)) - net.a(hidden)


def one_norm_of_two_convolutions(net: Any, x: torch.Tensor) -> Any:
    return fn.relu(net.norm(net.a(x))) - fn.relu(net.norm(net.b(x)))


def both_operands_are_convolutions(net: Any, x: torch.Tensor) -> Any:
    return torch.relu(net.norm(net.a(x)) + net.other_norm(net.b(x)))


def operands_are_the_same_tensor(net: Any, x: torch.Tensor) -> Any:
    hidden = net.a(x)
    return torch.relu(hidden + hidden)


def input_is_added(net: Any, x: torch.Tensor) -> Any:
    out = net.norm(net.a(x))
    out += x
    return net.relu_here(out)


def input_comes_first_in_the_sum(net: Any, x: torch.Tensor) -> Any:
    return (x + net.wide(x)).relu()


def sum_without_relu(net: Any, x: torch.Tensor) -> Any:
    return torch.add(net.norm(net.a(x)), x)


def weighted_sum(net: Any, x: torch.Tensor) -> Any:
    return torch.relu(torch.add(net.a(x), x, alpha=3))


def number_is_added(net: Any, x: torch.Tensor) -> Any:
    return torch.relu(net.a(x) + 0.5)


def size_is_added(net: Any, x: torch.Tensor) -> Any:
    return torch.relu(net.a(x) + x.size(0))


def bias_is_broadcast(net: Any, x: torch.Tensor) -> Any:
    return torch.relu(net.a(x) + net.bias)


def bias_without_batch_is_broadcast(net: Any, x: torch.Tensor) -> Any:
    return torch.relu(net.a(x) + net.bias[0])


def pooled_convolution_is_broadcast(net: Any, x: torch.Tensor) -> Any:
    return torch.relu(net.c(x.mean(dim=(2, 3), keepdim=True)) + x)


def other_has_more_precision(net: Any, x: torch.Tensor) -> Any:
    return torch.relu(net.a(x) + x.double()).float()


def odd_paddings(net: Any, x: torch.Tensor) -> Any:
    hidden = torch.relu(net.norm(net.same(x)))
    return torch.relu(net.other_norm(net.mirror(hidden))) + torch.relu(net.a(hidden))


def keywords(net: Any, x: torch.Tensor) -> Any:
    hidden = fn.relu(net.norm(input=net.a(input=x)), inplace=True)
    return fn.relu(net.wide(hidden), inplace=False)


def input_is_overwritten_before_the_relu(net: Any, x: torch.Tensor) -> Any:
    hidden = net.a(x)
    x.relu_()
    return fn.relu(hidden) + x


def input_is_overwritten_before_the_sum(net: Any, x: torch.Tensor) -> Any:
    hidden = net.a(x)
    net.relu_here(x)
    return torch.relu(hidden + x)


def input_is_multiplied_in_place(net: Any, x: torch.Tensor) -> Any:
    hidden = net.a(x)
    x *= 2
    return torch.relu(hidden + x)


FORWARDS = [
    value
    for value in list(globals().values())
    if callable(value) and getattr(value, "__annotations__", {}).keys() == {"net", "x", "return"}
]


@pytest.mark.parametrize("forward", FORWARDS, ids=lambda forward: forward.__name__)
def test_whatever_is_put_together(forward: Forward) -> None:
    network = trained(Net(forward))
    images = torch.randn(2, 8, 9, 11)
    expected = output(network, images)
    made = freeze_convolutions(network, torch.float32)
    assert expected.std() > 1e-2
    if made is not None:
        torch.testing.assert_close(output(made, images), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("forward", "fused", "norms"),
    [
        (input_is_added, 1, 0),
        (both_operands_are_convolutions, 2, 0),
        (input_comes_first_in_the_sum, 1, 0),
        (one_convolution_with_several_followers, 3, 0),
        (one_norm_of_two_convolutions, 2, 0),
        (odd_paddings, 1, 2),
        (sum_without_relu, 1, 0),
    ],
)
def test_what_can_be_fused_is(forward: Forward, fused: int, norms: int) -> None:
    made = frozen(trained(Net(forward)))
    assert num_of(made, FusedConvolution) == fused
    assert num_of(made, nn.BatchNorm2d) == norms


def test_a_stride_and_a_batch_of_any_size() -> None:
    network = trained(nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU()))
    made = assert_same(network, torch.randn(1, 3, 17, 12))
    images = torch.randn(7, 3, 8, 31)
    torch.testing.assert_close(output(made, images), output(network, images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
def test_norms_of_every_kind(options: dict[str, bool]) -> None:
    network = trained(
        nn.Sequential(
            nn.Conv2d(3, 5, 3),
            nn.BatchNorm2d(5, **options),
            nn.ReLU(),
            nn.Conv2d(5, 4, 1),
            nn.ReLU(),
        )
    )
    assert_same(network, torch.randn(3, 3, 9, 9))


def test_names_of_modules_that_look_like_the_fused_ones() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fused_a = nn.Conv2d(3, 3, 1)
            self.a = nn.Conv2d(3, 3, 1)
            self.a_1 = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.fused_a(torch.relu(self.a(x))) * 2
            return torch.relu(self.a(hidden)) - torch.relu(self.a_1(hidden))

    assert_same(Named(), torch.randn(2, 3, 5, 5))


def test_a_hook_on_a_convolution_is_kept() -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Conv2d(3, 3, 1), nn.ReLU()).eval()
    network[0].register_forward_hook(lambda module, args, result: result * 2)
    assert_same(network, torch.randn(2, 3, 5, 5))


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.conv(x))
        return hidden if hidden.sum() > 0 else -hidden


@pytest.mark.parametrize(
    "network",
    [DataDependent(), nn.Linear(3, 3), nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sigmoid())],
    ids=["cannot be traced", "no convolution", "nothing to fuse"],
)
def test_networks_without_anything_to_gain_are_left_alone(network: nn.Module) -> None:
    network.train()
    assert freeze_convolutions(network, torch.float32) is None
    assert all(module.training for module in network.modules())


def test_arithmetic_that_onednn_lacks_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    assert freeze_convolutions(network, torch.float16) is None
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert freeze_convolutions(network, torch.float32) is None


class ReadAgain(nn.Module):
    """A residual block whose summand is read once more afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        summand = torch.relu(self.first(images))
        after = torch.relu(self.second(summand) + summand)
        return torch.cat([after, summand], dim=1)


def overwriting(network: nn.Module) -> int:
    fused = [one for one in network.modules() if isinstance(one, FusedConvolution)]
    return sum(one.overwrites for one in fused)


def test_a_sum_takes_the_place_of_a_summand_that_nobody_reads_again() -> None:
    images = torch.rand(2, 3, 32, 32).to(memory_format=torch.channels_last)
    for network, places in ((TruncatedResNet50().eval(), 13), (ReadAgain().eval(), 0)):
        frozen = freeze_convolutions(network, torch.float32)
        assert frozen is not None
        assert overwriting(frozen) == places
        with torch.inference_mode():
            expected = network(images)
            for _ in range(2):
                torch.testing.assert_close(frozen(images), expected, rtol=1e-5, atol=1e-5)
