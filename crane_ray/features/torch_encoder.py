"""PatchEncoder over a torch network: resize, normalise and encode on the device.

On a GPU everything is queued and nothing waited for: pixels come from pinned memory on a stream of
their own, while the batch before is still being computed; features go back the same way. On CPUs
convolutional networks are frozen (`crane_ray.features.freezing`).

Shape suffixes: B batch, 3 channels, S pixels, D features.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crane_ray.errors import ConfigError, EncoderError
from crane_ray.features.encoder import EncoderInfo, EncoderPlugin, Features, Precision
from crane_ray.features.encoding import Pending, Ready
from crane_ray.features.freezing import freeze_convolutions
from crane_ray.features.resizing import middle, resize_on_cpu, resize_on_device
from crane_ray.features.transformers import to_be_loaded
from crane_ray.features.weights import Weights, read_state

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEncoder:
    """Encodes uint8 patches with a network held in inference mode on one device."""

    def __init__(self, info: EncoderInfo, network: nn.Module, device: str) -> None:
        self.info = info
        self._device = torch.device(device)
        self._on_gpu = self._device.type == "cuda"
        self._dtype = DTYPES[info.precision]
        self._copies: torch.cuda.Stream | None = None
        if self._on_gpu:
            self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._mean = torch.tensor(info.mean, device=self._device).mul(255).view(1, 3, 1, 1)
        self._std = torch.tensor(info.std, device=self._device).mul(255).view(1, 3, 1, 1)
        network = network.eval().requires_grad_(requires_grad=False)
        frozen = None if self._on_gpu else freeze_convolutions(network, self._dtype)
        self._is_frozen = frozen is not None
        self._network = network if frozen is None else frozen
        self._network.to(self._device).to(memory_format=torch.channels_last)
        if self._on_gpu and self._dtype != torch.float32:
            _halve_weights(self._network, self._dtype)
        if info.compiled:
            compiled = torch.compile(self._network, dynamic=False)
            assert isinstance(compiled, nn.Module)
            self._network = compiled

    def buffer(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """Memory for pixels; pinned for a GPU, which then copies without the CPU's help."""
        pixels: npt.NDArray[np.uint8]
        pixels = torch.zeros(shape, dtype=torch.uint8, pin_memory=self._on_gpu).numpy()
        return pixels

    def start(self, pixels: npt.NDArray[np.uint8]) -> Pending:
        """Begins to encode patches (B, S, S, 3) RGB uint8; on CPUs that is all of it.

        On a GPU the pixels must stay as they are until the result is there.

        Raises:
            EncoderError: the device's memory is too small for the batch.
        """
        try:
            with torch.inference_mode():
                if not self._on_gpu:
                    return Ready(self._features(self._on_cpu(pixels)).numpy())
                images_B3SS, copied = self._on_its_way(pixels)
                features_BD = self._features(images_B3SS)
                home = torch.empty(features_BD.shape, dtype=torch.float32, pin_memory=True)
                home.copy_(features_BD, non_blocking=True)
                done = torch.cuda.Event()  # type: ignore[no-untyped-call]
                done.record()
                return OnGpu(home, done, copied, self._out_of_memory(len(pixels)))
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(len(pixels)) from error

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Features (B, D) float32 of patches (B, S, S, 3) RGB uint8.

        Raises:
            EncoderError: the device's memory is too small for the batch.
        """
        return self.start(pixels).result()

    def _on_cpu(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """(B, 3, S, S) uint8 in channels_last order, resized."""
        size = self.info.resize_px or self.info.input_size_px
        resized = torch.from_numpy(resize_on_cpu(pixels, size, self.info.interpolation))
        return middle(resized.permute(0, 3, 1, 2), self.info.input_size_px)

    def _on_its_way(self, pixels: npt.NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, S, S) uint8 resized, and the copy on the GPU it is made from."""
        assert self._copies is not None
        with torch.cuda.stream(self._copies):
            copied = torch.from_numpy(pixels).to(self._device, non_blocking=True)
        now = torch.cuda.current_stream(self._device)
        now.wait_stream(self._copies)
        copied.record_stream(now)
        size = self.info.resize_px or self.info.input_size_px
        resized = resize_on_device(copied.permute(0, 3, 1, 2), size, self.info.interpolation)
        return middle(resized, self.info.input_size_px), copied

    def _features(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """(B, D) float32 of uint8 images on the device."""
        normalised = (images_B3SS.float() - self._mean) / self._std
        with self._arithmetic():
            if self._is_frozen:
                normalised = normalised.to(self._dtype)
            features_BD: torch.Tensor = self._network(normalised).float()
        return features_BD

    def _arithmetic(self) -> AbstractContextManager[object]:
        if self._is_frozen or self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _out_of_memory(self, patches: int) -> EncoderError:
        return EncoderError(
            f"the GPU's memory is too small for batches of {patches} patches with "
            f"{self.info.name}; use a smaller --batch-size"
        )


@dataclass(frozen=True)
class OnGpu:
    """Features on their way from a GPU."""

    home: torch.Tensor
    """(B, D) float32 in pinned memory, filled once ``done`` has happened."""
    done: torch.cuda.Event
    source: torch.Tensor
    """The pixels' copy on the GPU, kept until then."""
    too_small: EncoderError

    def result(self) -> Features:
        """See `Pending`."""
        try:
            self.done.synchronize()
        except torch.OutOfMemoryError as error:
            raise self.too_small from error
        except torch.AcceleratorError as error:  # no later batch would do better
            raise EncoderError(f"the GPU failed: {error}; check the node's GPU") from error
        features: Features = self.home.numpy()
        return features


def _halve_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Holds the matrices that autocast would cast for every batch in the precision it casts to."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.to(dtype)


def load_network(plugin: EncoderPlugin, weights: Weights) -> nn.Module:
    """A plug-in's network with the weights in it.

    Raises:
        ConfigError: the weight file does not fit the network.
    """
    values = nullcontext() if weights.are_random else to_be_loaded()
    with torch.random.fork_rng(devices=[]), values:
        torch.manual_seed(weights.seed)
        network: nn.Module = plugin.build(**weights.build_arguments)
    if weights.are_random:
        return network
    state = read_state(weights)
    prepare = getattr(plugin, "prepare_state", None)
    if prepare is not None:
        state = prepare(state)
    wanted = network.state_dict()
    missing = sorted(set(wanted) - set(state))
    wrong = [key for key in wanted if key in state and wanted[key].shape != state[key].shape]
    if missing or wrong:
        raise ConfigError(
            f"weights {weights.label}: do not fit the encoder: {len(missing)} of {len(wanted)} "
            f"tensors missing (e.g. {missing[:3]}), {len(wrong)} of another shape ({wrong[:3]}); "
            "give the weights of this architecture with --weights FILE"
        )
    network.load_state_dict({key: state[key] for key in wanted})
    return network


def default_precision(*, on_gpu: bool) -> Precision:
    """bf16 where this machine's GPU or CPU computes in it natively, else fp32."""
    if on_gpu:
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(
            including_emulation=False
        )
        return "bf16" if native else "fp32"
    return "bf16" if _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags.split()))
