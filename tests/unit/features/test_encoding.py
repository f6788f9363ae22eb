"""The batch sizes that encoders meet, and encoders behind the caller's back."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.features.encoder import Features
from crane_ray.features.encoding import (
    AsyncPatchEncoder,
    Pending,
    Pixels,
    Ready,
    fixed_size,
    new_buffer,
    start,
)
from tests.unit.features.small_store import INFO, Quadrants


class Behind:
    """An encoder with a device."""

    info = INFO

    def __init__(self) -> None:
        self.made: list[Pixels] = []

    def encode(self, pixels: Pixels) -> Features:
        raise AssertionError("start is what is called")

    def buffer(self, shape: tuple[int, ...]) -> Pixels:
        self.made.append(np.full(shape, 7, dtype=np.uint8))
        return self.made[-1]

    def start(self, pixels: Pixels) -> Pending:
        return Ready(Quadrants().encode(pixels))


@settings(deadline=None)
@given(data=st.data(), batch_size=st.integers(1, 5000))
def test_a_batch_is_padded_to_one_of_four_sizes(data: st.DataObject, batch_size: int) -> None:
    patches = data.draw(st.integers(1, batch_size))
    size = fixed_size(patches, batch_size)
    assert patches <= size <= batch_size
    assert size in {batch_size, batch_size // 2, batch_size // 2 // 2, batch_size // 2 // 2 // 2}
    smaller = {batch_size // 2, batch_size // 4, batch_size // 8} - {0}
    assert not any(patches <= other < size for other in smaller)


def test_sizes_of_the_usual_batch() -> None:
    assert fixed_size(256, 256) == 256
    assert fixed_size(129, 256) == 256
    assert fixed_size(128, 256) == 128
    assert fixed_size(33, 256) == 64
    assert fixed_size(32, 256) == 32
    assert fixed_size(1, 256) == 32
    assert fixed_size(1, 1) == 1


def test_a_plain_encoder_is_done_at_once() -> None:
    pixels = new_buffer(Quadrants(), (2, 8, 8, 3))
    assert pixels.shape == (2, 8, 8, 3)
    assert pixels.dtype == np.uint8
    pixels[1] = 255
    pending = start(Quadrants(), pixels)
    pixels[:] = 9
    np.testing.assert_array_equal(pending.result(), [[0] * 12, [1] * 12])


def test_an_encoder_with_a_device_is_asked_for_memory_and_told_to_start() -> None:
    encoder = Behind()
    assert isinstance(encoder, AsyncPatchEncoder)
    assert not isinstance(Quadrants(), AsyncPatchEncoder)
    pixels = new_buffer(encoder, (1, 8, 8, 3))
    assert encoder.made[0] is pixels
    np.testing.assert_allclose(start(encoder, pixels).result(), 7 / 255, rtol=1e-6)
