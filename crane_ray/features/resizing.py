"""Pillow's antialiased bilinear and bicubic resize, bit for bit, on any device.

Published encoders saw patches resized by Pillow, which works in fixed point and rounds to
8 bits after each of its two passes. torch's own kernels come close (a level or two off in up to
a fifth of the pixels); here the same integers come out, so features do not depend on where a
patch was resized. Shape suffixes: B batch, 3 channels, H and W pixels.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from crane_ray.features.encoder import Interpolation

FRACTION_BITS = 22
"""Pillow's fixed point for 8-bit channels."""


RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}
"""How far a filter reaches, in pixels of the smaller of both images."""


def resize_on_cpu(
    pixels_BHW3: npt.NDArray[np.uint8], size_px: int, interpolation: Interpolation = "bilinear"
) -> npt.NDArray[np.uint8]:
    """Images (B, S, S, 3) uint8 by Pillow itself."""
    if pixels_BHW3.shape[1:3] == (size_px, size_px):
        return pixels_BHW3
    resized = np.empty((len(pixels_BHW3), size_px, size_px, 3), dtype=np.uint8)
    for place, image in enumerate(pixels_BHW3):
        small = Image.fromarray(image).resize((size_px, size_px), RESAMPLING[interpolation])
        resized[place] = np.asarray(small)
    return resized


def middle(images_B3HW: torch.Tensor, size_px: int) -> torch.Tensor:
    """The square of that width in the middle of square images, rounded as torchvision does it."""
    first = round((images_B3HW.shape[-1] - size_px) / 2)
    kept = slice(first, first + size_px)
    return images_B3HW[..., kept, kept]


def resize_on_device(
    images_B3HW: torch.Tensor, size_px: int, interpolation: Interpolation = "bilinear"
) -> torch.Tensor:
    """Images (B, 3, S, S) uint8 by Pillow's arithmetic in int32 on their device.

    Square ones: for others, Pillow's version and their sides decide which pass comes first.
    """
    assert images_B3HW.shape[-2] == images_B3HW.shape[-1]
    if images_B3HW.shape[-2:] == (size_px, size_px):
        return images_B3HW
    across = _weigh(images_B3HW, size_px, 3, interpolation)
    return _weigh(across, size_px, 2, interpolation)


def _weigh(
    images_B3HW: torch.Tensor, size_px: int, dim: int, interpolation: Interpolation
) -> torch.Tensor:
    shape = [1, 1, 1, 1]
    shape[dim] = size_px
    total: torch.Tensor | int = 1 << (FRACTION_BITS - 1)
    steps = _taps_on(images_B3HW.device, images_B3HW.shape[dim], size_px, interpolation)
    for place, weight in steps:
        total = images_B3HW.index_select(dim, place).to(torch.int32) * weight.view(shape) + total
    assert isinstance(total, torch.Tensor)
    return (total >> FRACTION_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=32)
def _taps_on(
    device: torch.device, source_px: int, target_px: int, interpolation: Interpolation
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Source pixel and weight of each tap, copied to the device once: that is waited for."""
    first, weights = taps(source_px, target_px, interpolation)
    return [
        (
            torch.from_numpy(np.minimum(first + tap, source_px - 1)).to(device),
            torch.from_numpy(weights[:, tap].copy()).to(device),
        )
        for tap in range(weights.shape[1])
    ]


@lru_cache(maxsize=32)
def taps(
    source_px: int, target_px: int, interpolation: Interpolation = "bilinear"
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """First source pixel (target,) and fixed-point weights (target, taps) of each pixel."""
    scale = source_px / target_px
    stretch = max(scale, 1.0)
    reach = SUPPORT[interpolation] * stretch
    centres = (np.arange(target_px) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    after = np.minimum((centres + reach + 0.5).astype(np.int64), source_px)
    width = int((after - first).max())
    places = first[:, None] + np.arange(width)
    distance = np.abs((places - centres[:, None] + 0.5) * (1 / stretch))
    kernel = _triangle if interpolation == "bilinear" else _keys
    weights = np.where(places < after[:, None], kernel(distance), 0)
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # in Pillow's order: the last bit counts
    half = np.where(weights < 0, -0.5, 0.5)
    return first, (half + weights * (1 << FRACTION_BITS)).astype(np.int32)


def _triangle(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(1 - distance, 0)


def _keys(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic with a = -1/2 (IEEE ASSP 1981), in the order of Pillow's terms."""
    a = -0.5
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = (((distance - 5) * distance + 8) * distance - 4) * a
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))
