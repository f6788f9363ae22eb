"""Images a second of encoders on a GPU, bf16; skipped without one.

Random weights, batches of 256 from pinned memory: copies, resizing and normalisation included.
"""

import time
from collections import deque
from typing import Any, cast

import numpy as np
import torch

from crane_ray.features.cards import ENCODERS
from crane_ray.features.encoder import EncoderCard, EncoderInfo
from crane_ray.features.encoding import Pending
from crane_ray.features.torch_encoder import TorchEncoder, load_network
from crane_ray.features.weights import Weights
from crane_ray.plugins import load_plugin
from tests.benchmarks.table import Options, Row

TARGETS = {"resnet50_trunc": 15_000, "uni_v1": 3_800}
"""Images a second on an H200."""
BATCH, PATCH_PX = 256, 256


def measure(options: Options) -> list[Row]:
    """A row an encoder."""
    if not torch.cuda.is_available():
        return [Row("encoders on a GPU", None, "images/s", note="no GPU that torch can use here")]
    seconds = 2.0 if options.quick else 15.0
    name = torch.cuda.get_device_name()
    rows = []
    for encoder, target in TARGETS.items():
        rate = _rate(_encoder(encoder), seconds)
        met = rate >= target if "H200" in name else None
        gate = f">= {target:,} on an H200"
        rows.append(Row(f"{encoder}, bf16, compiled", rate, "images/s", gate, met, note=name))
    return rows


def _encoder(name: str) -> TorchEncoder:
    plugin = cast(Any, load_plugin(ENCODERS, name))
    card: EncoderCard = plugin.CARD
    info = EncoderInfo(
        name=name,
        dim=card.dim,
        input_size_px=card.input_size_px,
        mean=card.mean,
        std=card.std,
        precision="bf16",
        weights="random seed 0",
        weights_sha256="0",
        compiled=True,
    )
    return TorchEncoder(info, load_network(plugin, Weights(info.weights, "0", None)), "cuda")


def _rate(encoder: TorchEncoder, seconds: float) -> float:
    """Images a second with two batches in flight, after compilation."""
    rng = np.random.default_rng(0)
    buffers = [encoder.buffer((BATCH, PATCH_PX, PATCH_PX, 3)) for _ in range(3)]
    for buffer in buffers:
        buffer[:] = rng.integers(0, 256, buffer.shape, np.uint8)
    for _ in range(5):
        encoder.encode(buffers[0])
    flying: deque[Pending] = deque()
    batches, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        flying.append(encoder.start(buffers[batches % len(buffers)]))
        if len(flying) == len(buffers):
            flying.popleft().result()
        batches += 1
    for pending in flying:
        pending.result()
    return batches * BATCH / (time.perf_counter() - began)
