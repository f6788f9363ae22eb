"""The built-in encoder against torchvision's own network and transforms."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import resnet50

from crane_ray.errors import ConfigError
from crane_ray.features.encoder import EncoderInfo, Features, Precision
from crane_ray.features.encoders import resnet50_trunc
from crane_ray.features.torch_encoder import TorchEncoder, load_network
from crane_ray.features.weights import Weights

State = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole() -> nn.Module:
    """A ResNet50 with weights and running statistics as uneven as trained ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network: nn.Module = resnet50(weights=None)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.2, 0.2)
                nn.init.uniform_(layer.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
                nn.init.uniform_(layer.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


@pytest.fixture(scope="module")
def patches() -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    noise = rng.integers(-20, 21, (4, 256, 256, 3))
    mixed = np.clip(coarse.repeat(16, axis=1).repeat(16, axis=2) + noise, 0, 255)
    return np.asarray(mixed, dtype=np.uint8)


def saved(state: State) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def weights_of(data: bytes, suffix: str = ".pth") -> Weights:
    return Weights("file", "0", np.frombuffer(data, dtype=np.uint8), suffix=suffix)


def encoder_of(weights: Weights, precision: Precision = "fp32", size_px: int = 224) -> TorchEncoder:
    card = resnet50_trunc.CARD
    info = EncoderInfo(
        name="resnet50_trunc",
        dim=card.dim,
        input_size_px=size_px,
        mean=card.mean,
        std=card.std,
        precision=precision,
        weights="",
        weights_sha256="0",
    )
    return TorchEncoder(info, load_network(resnet50_trunc, weights), "cpu")


def reference(whole: nn.Module, patches: npt.NDArray[np.uint8]) -> Features:
    """torchvision's layers and transforms, patch by patch, written out."""
    prepare = transforms.Compose(
        [
            transforms.Resize(224, antialias=True),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    net: Any = whole
    features = []
    with torch.inference_mode():
        for patch in patches:
            hidden = net.maxpool(
                net.relu(net.bn1(net.conv1(prepare(Image.fromarray(patch))[None])))
            )
            features.append(net.layer3(net.layer2(net.layer1(hidden))).mean(dim=(2, 3))[0])
    return torch.stack(features).numpy()


def test_features_are_torchvisions(whole: nn.Module, patches: npt.NDArray[np.uint8]) -> None:
    expected = reference(whole, patches)
    weights = weights_of(saved(whole.state_dict()))
    found = encoder_of(weights).encode(patches)
    assert found.shape == (4, 1024)
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()

    short = encoder_of(weights, "bf16").encode(patches)
    assert short.dtype == np.float32
    norms = np.linalg.norm(short, axis=1) * np.linalg.norm(expected, axis=1)
    assert ((short * expected).sum(axis=1) / norms).min() > 0.999
    assert not np.array_equal(short, found)


def truncated(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith(("layer4", "fc"))}


def as_safetensors(state: State) -> Weights:
    from safetensors.torch import save

    return weights_of(save(state), ".safetensors")


FORMS: dict[str, Callable[[State], Weights]] = {
    "truncated": lambda state: weights_of(saved(truncated(state))),
    "data parallel": lambda state: weights_of(
        saved({f"module.{key}": value for key, value in state.items()})
    ),
    "in a checkpoint": lambda state: weights_of(
        saved({"state_dict": {f"module.backbone.{key}": v for key, v in state.items()}, "epoch": 3})
    ),
    "safetensors": as_safetensors,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_weight_file_gives_the_same_features(
    whole: nn.Module, patches: npt.NDArray[np.uint8], form: str
) -> None:
    state = whole.state_dict()
    small = patches[:2, :64, :64].copy()
    expected = encoder_of(weights_of(saved(state)), size_px=64).encode(small)
    found = encoder_of(FORMS[form](state), size_px=64).encode(small)
    np.testing.assert_array_equal(found, expected)


def test_files_that_do_not_fit_are_refused(whole: nn.Module) -> None:
    state = whole.state_dict()
    without = {key: value for key, value in state.items() if not key.startswith("layer3.5")}
    with pytest.raises(ConfigError, match=r"file: do not fit.* 18 of 258 tensors missing"):
        encoder_of(weights_of(saved(without)))
    reshaped = {**state, "conv1.weight": torch.zeros(64, 3, 3, 3)}
    with pytest.raises(ConfigError, match=r"1 of another shape \(\['conv1.weight'\]\)"):
        encoder_of(weights_of(saved(reshaped)))


def random_weights(seed: int) -> Weights:
    return Weights(f"random seed {seed}", "0", None, seed=seed)


def test_random_weights_are_seeded_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, same, other = (load_network(resnet50_trunc, random_weights(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    states = [network.state_dict() for network in (one, same, other)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["conv1.weight"], states[2]["conv1.weight"])


def test_a_file_leaves_torchs_generator_alone(whole: nn.Module) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load_network(resnet50_trunc, weights_of(saved(whole.state_dict())))
    assert torch.equal(torch.get_rng_state(), before)
