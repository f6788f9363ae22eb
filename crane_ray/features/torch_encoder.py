"""PatchEncoder over a torch network: resize, normalise and encode on the device.

Shape suffixes: B batch, 3 channels, S pixels, D features.
"""

from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crane_ray.errors import ConfigError, EncoderError
from crane_ray.features.encoder import EncoderInfo, Features, Precision
from crane_ray.features.resizing import resize_on_cpu, resize_on_device
from crane_ray.features.weights import Weights, read_state

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEncoder:
    """Encodes uint8 patches with a network held in inference mode on one device."""

    def __init__(self, info: EncoderInfo, network: nn.Module, device: str) -> None:
        self.info = info
        self._device = torch.device(device)
        self._network = network.eval().to(self._device).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(info.mean, device=self._device).mul(255).view(1, 3, 1, 1)
        self._std = torch.tensor(info.std, device=self._device).mul(255).view(1, 3, 1, 1)

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Features (B, D) float32 of patches (B, S, S, 3) RGB uint8.

        Raises:
            EncoderError: the device's memory is too small for the batch.
        """
        try:
            with torch.inference_mode(), self._arithmetic():
                images_B3SS = (self._resized(pixels).float() - self._mean) / self._std
                features_BD: Features = self._network(images_B3SS).float().cpu().numpy()
                return features_BD
        except torch.OutOfMemoryError as error:
            raise EncoderError(
                f"the GPU's memory is too small for batches of {len(pixels)} patches with "
                f"{self.info.name}; use a smaller --batch-size"
            ) from error

    def _resized(self, pixels: npt.NDArray[np.uint8]) -> torch.Tensor:
        """(B, 3, S, S) uint8 on the device, in channels_last order."""
        size = self.info.input_size_px
        if self._device.type == "cpu":
            return torch.from_numpy(resize_on_cpu(pixels, size)).permute(0, 3, 1, 2)
        images_B3SS = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
        return resize_on_device(images_B3SS, size)

    def _arithmetic(self) -> AbstractContextManager[object]:
        if self.info.precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=DTYPES[self.info.precision])


def load_network(plugin: ModuleType, weights: Weights) -> nn.Module:
    """A plug-in's network with the weights in it.

    Raises:
        ConfigError: the weight file does not fit the network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed)
        network: nn.Module = plugin.build()
    if weights.data is None:
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
