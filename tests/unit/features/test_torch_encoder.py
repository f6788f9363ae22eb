"""Networks on a device: PIL's resize, torchvision's arithmetic, nothing waited for on a GPU."""

import shutil
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms import functional as tv

from crane_ray.errors import EncoderError
from crane_ray.features import torch_encoder
from crane_ray.features.encoder import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EncoderInfo,
    Features,
    Interpolation,
)
from crane_ray.features.encoding import AsyncPatchEncoder, Pending, Ready, fixed_size
from crane_ray.features.freezing import freeze_convolutions
from crane_ray.features.torch_encoder import TorchEncoder, default_precision

Pixels = npt.NDArray[np.uint8]

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def info_of(dim: int, **more: object) -> EncoderInfo:
    facts = {
        "name": "net",
        "dim": dim,
        "input_size_px": 48,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "precision": "fp32",
        "weights": "random seed 0",
        "weights_sha256": "0",
    }
    return EncoderInfo.model_validate({**facts, **more})


def residual() -> nn.Module:
    """ResNet18 without its head, with statistics as uneven as trained ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network: nn.Module = resnet18(weights=None)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                nn.init.uniform_(module.running_mean, -0.2, 0.2)
                nn.init.uniform_(module.running_var, 0.5, 1.5)
        network.fc = nn.Identity()
    return network.eval()


class Tiny(nn.Module):
    """A network that cannot be frozen."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            self.patches = nn.Conv2d(3, 16, 8, stride=8)
            self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 12)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.patches(images).flatten(2).transpose(1, 2))
        features: torch.Tensor = self.head(nn.functional.gelu(tokens)).mean(dim=1)
        return features


NETWORKS = pytest.mark.parametrize(("network", "dim"), [(residual(), 512), (Tiny(), 12)])


@pytest.fixture(scope="module")
def patches() -> Pixels:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (5, 8, 8, 3)).repeat(8, axis=1).repeat(8, axis=2)
    noisy = np.clip(coarse + rng.integers(-20, 21, coarse.shape), 0, 255)
    return np.asarray(noisy, dtype=np.uint8)


def by_hand(
    network: nn.Module,
    patches: Pixels,
    size_px: int = 48,
    interpolation: Interpolation = "bilinear",
) -> Features:
    """torchvision's transforms on PIL's images, and the network as it is."""
    resampling = getattr(Image.Resampling, interpolation.upper())
    tensors = []
    for patch in patches:
        image = Image.fromarray(patch).resize((size_px, size_px), resampling)
        tensors.append(tv.normalize(tv.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD)))
    with torch.inference_mode():
        features: Features = network(torch.stack(tensors)).numpy()
    return features


def cosines(one: Features, other: Features) -> npt.NDArray[np.float64]:
    first, second = one.astype(np.float64), other.astype(np.float64)
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray((first * second).sum(axis=1) / norms)


def assert_close(found: Features, expected: Features) -> None:
    assert found.dtype == np.float32
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# CPUs.


@NETWORKS
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_fp32_features_are_torchvisions(
    network: nn.Module, dim: int, interpolation: Interpolation, patches: Pixels
) -> None:
    encoder = TorchEncoder(info_of(dim, interpolation=interpolation), network, "cpu")
    expected = by_hand(network, patches, interpolation=interpolation)
    assert_close(encoder.encode(patches), expected)
    other: Interpolation = "bicubic" if interpolation == "bilinear" else "bilinear"
    assert cosines(by_hand(network, patches, interpolation=other), expected).min() < 0.9999999


@NETWORKS
def test_bf16_features_point_the_same_way(network: nn.Module, dim: int, patches: Pixels) -> None:
    expected = by_hand(network, patches)
    found = TorchEncoder(info_of(dim, precision="bf16"), network, "cpu").encode(patches)
    assert found.dtype == np.float32
    assert cosines(found, expected).min() >= 0.9999
    assert np.abs(found - expected).max() > 0, "another arithmetic"


def test_the_network_is_frozen_where_that_pays(patches: Pixels) -> None:
    network = residual()
    encoder = TorchEncoder(info_of(512), network, "cpu")
    left = [one for one in encoder._network.modules() if isinstance(one, nn.BatchNorm2d)]
    assert bool(left) == (freeze_convolutions(network, torch.float32) is None)
    assert any(isinstance(one, nn.BatchNorm2d) for one in network.modules())


def test_only_the_middle_of_a_larger_resize_is_encoded(patches: Pixels) -> None:
    network = Tiny()
    encoder = TorchEncoder(info_of(12, input_size_px=32, resize_px=48), network, "cpu")
    resized = np.stack([np.asarray(Image.fromarray(one).resize((48, 48), 2)) for one in patches])
    assert_close(encoder.encode(patches), by_hand(network, resized[:, 8:40, 8:40], 32))


def test_patches_of_the_input_size_are_taken_as_they_are(patches: Pixels) -> None:
    encoder = TorchEncoder(info_of(12, input_size_px=64), Tiny(), "cpu")
    kept = patches.copy()
    assert_close(encoder.encode(patches), by_hand(Tiny(), patches, 64))
    np.testing.assert_array_equal(patches, kept)


@NETWORKS
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_padding_changes_no_feature(
    network: nn.Module, dim: int, precision: str, patches: Pixels
) -> None:
    """A shard's last batch is padded to a fixed size; what lies in the padding is nobody's."""
    encoder = TorchEncoder(info_of(dim, precision=precision), network, "cpu")
    size = fixed_size(3, 16)
    assert size == 4
    padded = np.zeros((size, *patches.shape[1:]), dtype=np.uint8)
    padded[:3] = patches[:3]
    features = encoder.encode(padded)[:3]
    padded[3:] = 255
    np.testing.assert_array_equal(encoder.encode(padded)[:3], features)
    whole = encoder.encode(np.concatenate([patches, patches, patches, patches[:1]]))
    tolerance = 1e-5 if precision == "fp32" else 0.02
    np.testing.assert_allclose(
        whole[:3], features, rtol=tolerance, atol=tolerance * np.abs(features).max()
    )


def test_features_are_ready_at_once_and_their_own(patches: Pixels) -> None:
    encoder = TorchEncoder(info_of(12), Tiny(), "cpu")
    assert isinstance(encoder, AsyncPatchEncoder)
    buffer = encoder.buffer((5, 64, 64, 3))
    assert buffer.dtype == np.uint8
    assert not buffer.any()
    buffer[:] = patches
    first = encoder.start(buffer)
    assert isinstance(first, Ready)
    buffer[:] = 0
    second = encoder.start(buffer).result()
    np.testing.assert_array_equal(first.result(), encoder.encode(patches))
    assert np.abs(second - first.result()).max() > 0


def test_parts_of_a_buffer_are_encoded_alone(patches: Pixels) -> None:
    encoder = TorchEncoder(info_of(12), Tiny(), "cpu")
    buffer = encoder.buffer((8, 64, 64, 3))
    buffer[:5], buffer[5:] = patches, 99
    np.testing.assert_array_equal(encoder.encode(buffer[:5]), encoder.encode(patches))


def test_too_little_memory_is_an_error_of_the_encoder(
    monkeypatch: pytest.MonkeyPatch, patches: Pixels
) -> None:
    encoder = TorchEncoder(info_of(12), Tiny(), "cpu")

    def full(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(encoder, "_network", full)
    with pytest.raises(EncoderError, match="batches of 5 patches with net; use a smaller --batch"):
        encoder.encode(patches)


@needs_compiler
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_networks_give_the_same_features(patches: Pixels) -> None:
    class Thin(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.relu(images).mean(dim=(2, 3))

    plain = TorchEncoder(info_of(3), Thin(), "cpu")
    compiled = TorchEncoder(info_of(3, compiled=True), Thin(), "cpu")
    assert compiled._network is not plain._network
    np.testing.assert_allclose(compiled.encode(patches), plain.encode(patches), rtol=1e-5)


def test_each_batch_size_is_compiled_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[dict[str, object]]()

    def compile(network: nn.Module, **options: object) -> nn.Module:
        asked.append(options)
        return network

    monkeypatch.setattr(torch, "compile", compile)
    TorchEncoder(info_of(12), Tiny(), "cpu")
    assert not asked
    TorchEncoder(info_of(12, compiled=True), Tiny(), "cpu")
    assert asked == [{"dynamic": False}]


def test_compiling_is_part_of_a_store_only_where_it_is_done() -> None:
    """Stores from before have no such field and keep their fingerprint."""
    info = info_of(12)
    assert "compiled" not in info.canonical_json()
    assert info.fingerprint() == info_of(12, compiled=False).fingerprint()
    assert info.fingerprint() != info_of(12, compiled=True).fingerprint()
    assert EncoderInfo.model_validate_json(info_of(12, compiled=True).model_dump_json()).compiled


def test_bf16_is_the_default_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch_encoder, "_cpu_has_bf16", lambda has=has: has)
        assert default_precision(on_gpu=False) == precision


# GPUs.


@needs_cuda
@NETWORKS
@pytest.mark.parametrize("size_px", [48, 64])
def test_a_gpu_gives_the_features_of_the_cpu(
    network: nn.Module, dim: int, size_px: int, patches: Pixels
) -> None:
    expected = TorchEncoder(info_of(dim, input_size_px=size_px), network, "cpu").encode(patches)
    for precision, least in (("fp32", 0.999999), ("bf16", 0.9995)):
        info = info_of(dim, input_size_px=size_px, precision=precision)
        built = residual() if dim == 512 else Tiny()
        found = TorchEncoder(info, built, "cuda").encode(patches)
        assert cosines(found, expected).min() >= least


@needs_cuda
def test_buffers_for_a_gpu_are_pinned(patches: Pixels) -> None:
    encoder = TorchEncoder(info_of(12), Tiny(), "cuda")
    buffer = encoder.buffer((8, 64, 64, 3))
    assert torch.from_numpy(buffer).is_pinned()
    assert torch.from_numpy(buffer[:4]).is_pinned()


@needs_cuda
@pytest.mark.parametrize("size_px", [48, 64])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_is_waited_for_on_a_gpu(size_px: int, precision: str, patches: Pixels) -> None:
    info = info_of(512, input_size_px=size_px, precision=precision)
    encoder = TorchEncoder(info, residual(), "cuda")
    buffer = encoder.buffer(patches.shape)
    buffer[:] = patches
    expected = encoder.encode(buffer)  # what is set up once may be waited for
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        pending = [encoder.start(buffer) for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one in pending:
        np.testing.assert_array_equal(one.result(), expected)


@needs_cuda
def test_a_gpu_reads_a_buffer_until_the_result_is_there(patches: Pixels) -> None:
    """Two buffers, each filled again as soon as its result was taken."""
    encoder = TorchEncoder(info_of(512), residual(), "cuda")
    buffers = [encoder.buffer(patches.shape) for _ in range(2)]
    images = [np.roll(patches, shift, axis=1) for shift in range(12)]
    expected = [encoder.encode(image) for image in images]
    pending: list[Pending] = []
    for place, image in enumerate(images):
        if place >= 2:
            np.testing.assert_array_equal(pending[place - 2].result(), expected[place - 2])
        buffers[place % 2][:] = image
        pending.append(encoder.start(buffers[place % 2]))
    np.testing.assert_array_equal(pending[-1].result(), expected[-1])
