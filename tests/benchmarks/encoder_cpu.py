"""ResNet50 to its third stage on one CPU core, beside an eager fp32 network of torchvision.

Random weights: speed does not depend on them, nor does the cosine between precisions much.
"""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crane_ray.features.cards import ENCODERS
from crane_ray.features.encoder import IMAGENET_MEAN, IMAGENET_STD, EncoderInfo, Precision
from crane_ray.features.torch_encoder import TorchEncoder, default_precision, load_network
from crane_ray.features.weights import Weights
from crane_ray.plugins import load_plugin
from tests.benchmarks.table import Options, Row, interleaved, pinned

SIZE_PX = 224
GATES: dict[Precision, float] = {"fp32": 2.3, "bf16": 4.5}
MIN_COSINE = 0.9999
Pixels = npt.NDArray[np.uint8]


def measure(options: Options) -> list[Row]:
    """A row a precision."""
    batch, rounds = (32, 2) if options.quick else (32, 5)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, SIZE_PX, SIZE_PX, 3), np.uint8)
    threads = torch.get_num_threads()
    with pinned(options.core):
        torch.set_num_threads(1)
        try:
            encoders = {precision: _ours(precision) for precision in GATES}
            plain = _plain()
            features = {name: encoder.encode(pixels) for name, encoder in encoders.items()}
            reference = _encode_plain(plain, pixels)
            ways: dict[str, Any] = {
                name: partial(encoder.encode, pixels) for name, encoder in encoders.items()
            }
            ways["plain"] = partial(_encode_plain, plain, pixels)
            times = interleaved(ways, rounds)
        finally:
            torch.set_num_threads(threads)
    rows = []
    for precision, gate in GATES.items():
        cosine = _least_cosine(features[precision], reference)
        ratio = times["plain"].best_s / times[precision].best_s
        rows.append(
            Row(
                f"ResNet50 to its third stage, CPU, {precision}",
                batch / times[precision].best_s,
                "images/CPU-s",
                f">= {gate:g}x, cosine >= {MIN_COSINE}",
                ratio >= gate and cosine >= MIN_COSINE,
                comparator=batch / times["plain"].best_s,
                ratio=ratio,
                note=f"least cosine {cosine:.6f}; median {batch / times[precision].median_s:.1f}"
                + ("" if default_precision(on_gpu=False) == "bf16" else "; no bf16 units here"),
            )
        )
    return rows


def _network() -> nn.Module:
    plugin: Any = load_plugin(ENCODERS, "resnet50_trunc")
    return load_network(plugin, Weights("random seed 0", "0", None, seed=0))


def _ours(precision: Precision) -> TorchEncoder:
    info = EncoderInfo(
        name="resnet50_trunc",
        dim=1024,
        input_size_px=SIZE_PX,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        precision=precision,
        weights="random seed 0",
        weights_sha256="0",
    )
    return TorchEncoder(info, _network(), "cpu")


def _plain() -> nn.Module:
    """The same weights as they come: eager, fp32, NCHW memory."""
    return _network().eval().to(memory_format=torch.contiguous_format)


def _encode_plain(network: nn.Module, pixels: Pixels) -> npt.NDArray[np.float32]:
    with torch.inference_mode():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div(255)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        features: npt.NDArray[np.float32] = network((images - mean) / std).numpy()
    return features


def _least_cosine(ours: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> float:
    dot = (ours * reference).sum(axis=1)
    return float((dot / np.linalg.norm(ours, axis=1) / np.linalg.norm(reference, axis=1)).min())
