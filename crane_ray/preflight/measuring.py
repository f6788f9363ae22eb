"""How fast this machine decodes and encodes, on a small slide made for it."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from crane_ray.features.cards import ENCODERS
from crane_ray.features.encoder import EncoderCard, EncoderConfig, EncoderInfo, PatchEncoder
from crane_ray.plugins import load_plugin
from crane_ray.preflight.report import Rates
from crane_ray.slides.batches import fill_patches, reading_order
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import Slide

PATCH_PX = 256
SIZE_PX = (4096, 2048)
"""Of the slide: 128 patches, so that opening it is little of the time."""
MEASURE_S = 1.5
CPU_BATCH, GPU_BATCH = 4, 256


def measure(encoder: str, *, on_gpu: bool) -> Rates:
    """The rates of this machine.

    Args:
        encoder: whose network encodes, with random weights: their values cost nothing.
        on_gpu: whether a GPU encodes, as a run would; else one core does.

    Raises:
        ConfigError: no such encoder, or a package that it needs is missing.
    """
    encode, info = measure_encoding(encoder, on_gpu=on_gpu)
    return Rates(measure_decoding(), encode, on_gpu, encoder, info.dim, info.precision)


def measure_decoding(seconds: float = MEASURE_S) -> float:
    """Patches that one core decodes in a second of its time, files warm, the middle round.

    CPU time, not wall time: a neighbour on the machine costs less truth.
    """
    with tempfile.TemporaryDirectory(prefix="crane-doctor-") as folder:
        path = _write_slide(Path(folder) / "slide.tif")
        rounds, until = [_decode_once(path)], time.monotonic() + seconds
        while time.monotonic() < until:
            rounds.append(_decode_once(path))
    return statistics.median(rounds)


def measure_encoding(
    encoder: str, *, on_gpu: bool, seconds: float = MEASURE_S
) -> tuple[float, EncoderInfo]:
    """Patches a second, and the exact encoder; the first batch does not count."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = _make_encoder(encoder, on_gpu=on_gpu)
        batch = GPU_BATCH if on_gpu else CPU_BATCH
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (batch, PATCH_PX, PATCH_PX, 3), dtype=np.uint8)
        network.encode(pixels)
        clock = time.perf_counter if on_gpu else time.process_time
        rounds: list[float] = []
        until = time.monotonic() + seconds
        while not rounds or time.monotonic() < until:
            begun = clock()
            network.encode(pixels)
            rounds.append(batch / max(clock() - begun, 1e-9))
    finally:
        torch.set_num_threads(threads)
    return statistics.median(rounds), network.info


def _make_encoder(name: str, *, on_gpu: bool) -> PatchEncoder:
    from crane_ray.features.cards import auto_precision, check_requirements, encoder_info
    from crane_ray.features.torch_encoder import TorchEncoder, default_precision, load_network
    from crane_ray.features.weights import find_weights, read_weights

    plugin: Any = load_plugin(ENCODERS, name)
    card: EncoderCard = plugin.CARD
    check_requirements(name, card)
    config = EncoderConfig(name=name, weights="random")
    weights = read_weights(config, card, find_weights(config, card, {}))
    precision = auto_precision(card, default_precision(on_gpu=on_gpu), on_gpu=on_gpu)
    info = encoder_info(
        config,
        card,
        patch_px=PATCH_PX,
        precision=precision,
        label=weights.label,
        sha256=weights.sha256,
    )
    device = "cuda" if on_gpu else "cpu"
    return TorchEncoder(info, load_network(plugin, weights), device)


def _write_slide(path: Path) -> Path:
    """Noise of the coarseness of stained tissue: plain tiles would decode too fast."""
    width, height = SIZE_PX
    rng = np.random.default_rng(0)
    coarse = rng.integers(60, 230, (height // 16, width // 16, 3), dtype=np.uint8)
    image = cv2.resize(coarse, SIZE_PX, interpolation=cv2.INTER_CUBIC)
    image = cv2.add(image, rng.integers(0, 16, image.shape, dtype=np.uint8))
    tifffile.imwrite(
        path,
        image,
        tile=(PATCH_PX, PATCH_PX),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": 80},
        subsampling=(2, 2),
        metadata=None,
    )
    return path


def _decode_once(path: Path) -> float:
    """All patches of the slide, once: the reader's own cache never has them already."""
    xs, ys = np.meshgrid(*(np.arange(0, size, PATCH_PX) for size in SIZE_PX), indexing="ij")
    xy = np.stack([xs.ravel(), ys.ravel()], axis=1).astype(np.int64)
    spec = PatchSpec(size_px=PATCH_PX, level=0)
    pixels = np.empty((len(xy), PATCH_PX, PATCH_PX, 3), dtype=np.uint8)
    begun = time.process_time()
    with open_slide(Slide("doctor", str(path))) as reader:
        grid = PatchGrid("doctor", spec, patch_geometry(spec, reader.info, None), xy)
        fill_patches(reader, grid, reading_order(grid, range(len(xy))), pixels)
    return len(xy) / max(time.process_time() - begun, 1e-9)
