"""Encoders that run behind the caller's back, and the batch sizes that they meet."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from crane_ray.features.encoder import Features, PatchEncoder

Pixels = npt.NDArray[np.uint8]


class Pending(Protocol):
    """Features that are being made."""

    def result(self) -> Features:
        """Features (B, D) float32, once they are there.

        Raises:
            EncoderError: the device cannot do it, for this batch or any other.
        """
        ...


@runtime_checkable
class AsyncPatchEncoder(Protocol):
    """A `PatchEncoder` on a device that copies and computes while the caller goes on."""

    info: Any

    def buffer(self, shape: tuple[int, ...]) -> Pixels:
        """Memory for a batch of pixels from which the device copies fastest."""
        ...

    def start(self, pixels: Pixels) -> Pending:
        """Begins to encode (B, S, S, 3); the pixels stay as they are until the result is there."""
        ...


@dataclass(frozen=True)
class Ready:
    """Features that were made at once."""

    features: Features

    def result(self) -> Features:
        """See `Pending`."""
        return self.features


def start(encoder: PatchEncoder, pixels: Pixels) -> Pending:
    """Begins to encode a batch; with a plain encoder that is all of it."""
    if isinstance(encoder, AsyncPatchEncoder):
        return encoder.start(pixels)
    return Ready(encoder.encode(pixels))


def new_buffer(encoder: PatchEncoder, shape: tuple[int, ...]) -> Pixels:
    """Memory for a batch of pixels, where the encoder wants it."""
    if isinstance(encoder, AsyncPatchEncoder):
        return encoder.buffer(shape)
    return np.zeros(shape, dtype=np.uint8)


def fixed_size(patches: int, batch_size: int) -> int:
    """The size that a batch of so many patches is padded to: the whole, a half, a 4th or an 8th.

    A few sizes let a device reuse its compiled graphs, and make a patch's features the same
    however the run was cut.
    """
    size = batch_size
    for _ in range(3):
        if patches <= size // 2:
            size //= 2
    return size
