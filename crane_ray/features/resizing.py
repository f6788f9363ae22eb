"""Pillow's antialiased bilinear resize, bit for bit, on any device.

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

FRACTION_BITS = 22
"""Pillow's fixed point for 8-bit channels."""


def resize_on_cpu(pixels_BHW3: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """Images (B, S, S, 3) uint8 by Pillow itself."""
    if pixels_BHW3.shape[1:3] == (size_px, size_px):
        return pixels_BHW3
    resized = np.empty((len(pixels_BHW3), size_px, size_px, 3), dtype=np.uint8)
    for place, image in enumerate(pixels_BHW3):
        small = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
        resized[place] = np.asarray(small)
    return resized


def resize_on_device(images_B3HW: torch.Tensor, size_px: int) -> torch.Tensor:
    """Images (B, 3, S, S) uint8 by Pillow's arithmetic in int32 on their device.

    Square ones: for others, Pillow's version and their sides decide which pass comes first.
    """
    assert images_B3HW.shape[-2] == images_B3HW.shape[-1]
    if images_B3HW.shape[-2:] == (size_px, size_px):
        return images_B3HW
    across = _weigh(images_B3HW, size_px, dim=3)
    return _weigh(across, size_px, dim=2)


def _weigh(images_B3HW: torch.Tensor, size_px: int, dim: int) -> torch.Tensor:
    first, weights = taps(images_B3HW.shape[dim], size_px)
    device = images_B3HW.device
    last = images_B3HW.shape[dim] - 1
    shape = [1, 1, 1, 1]
    shape[dim] = size_px
    total: torch.Tensor | int = 1 << (FRACTION_BITS - 1)
    for tap in range(weights.shape[1]):
        place = torch.from_numpy(np.minimum(first + tap, last)).to(device)
        weight = torch.from_numpy(weights[:, tap].copy()).to(device).view(shape)
        total = images_B3HW.index_select(dim, place).to(torch.int32) * weight + total
    assert isinstance(total, torch.Tensor)
    return (total >> FRACTION_BITS).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=32)
def taps(source_px: int, target_px: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """First source pixel (target,) and fixed-point weights (target, taps) of each pixel."""
    scale = source_px / target_px
    reach = max(scale, 1.0)
    centres = (np.arange(target_px) + 0.5) * scale
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    after = np.minimum((centres + reach + 0.5).astype(np.int64), source_px)
    width = int((after - first).max())
    places = first[:, None] + np.arange(width)
    distance = np.abs((places - centres[:, None] + 0.5) / reach)
    weights = np.where(places < after[:, None], np.maximum(1 - distance, 0), 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return first, (0.5 + weights * (1 << FRACTION_BITS)).astype(np.int32)
