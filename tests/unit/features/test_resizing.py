import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crane_ray.features.encoder import Interpolation
from crane_ray.features.resizing import RESAMPLING, middle, resize_on_cpu, resize_on_device

SIDES = st.integers(1, 130)
FILTERS: st.SearchStrategy[Interpolation] = st.sampled_from(("bilinear", "bicubic"))


def images(seed: int, size: tuple[int, int], kind: str) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, 256, (2, *size, 3), dtype=np.uint8)
    return (rng.integers(0, 2, (2, *size, 3)) * 255).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 99), SIDES, SIDES, st.sampled_from(["noise", "extremes"]), FILTERS)
def test_the_device_resizes_as_pillow_does(
    seed: int, side: int, target: int, kind: str, filter: Interpolation
) -> None:
    pixels = images(seed, (side, side), kind)
    expected = [
        np.asarray(Image.fromarray(one).resize((target, target), RESAMPLING[filter]))
        for one in pixels
    ]
    on_device = resize_on_device(torch.from_numpy(pixels).permute(0, 3, 1, 2), target, filter)
    assert on_device.dtype == torch.uint8
    np.testing.assert_array_equal(on_device.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    np.testing.assert_array_equal(resize_on_cpu(pixels, target, filter), np.stack(expected))


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), [(256, 224), (512, 224), (224, 256), (1024, 224)])
def test_the_sizes_of_real_patches(source: int, target: int, filter: Interpolation) -> None:
    pixels = images(0, (source, source), "noise")
    on_device = resize_on_device(torch.from_numpy(pixels).permute(0, 3, 1, 2), target, filter)
    expected = resize_on_cpu(pixels, target, filter)
    np.testing.assert_array_equal(on_device.permute(0, 2, 3, 1).numpy(), expected)


def test_the_same_size_is_left_alone() -> None:
    pixels = images(0, (32, 32), "noise")
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    assert resize_on_cpu(pixels, 32) is pixels
    assert resize_on_device(tensor, 32) is tensor


@pytest.mark.parametrize(("side", "size"), [(256, 224), (9, 4), (8, 5), (7, 7), (5, 1)])
def test_the_middle_is_torchvisions_centre_crop(side: int, size: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms.functional")
    tensor = torch.from_numpy(images(0, (side, side), "noise")).permute(0, 3, 1, 2)
    assert torch.equal(middle(tensor, size), transforms.center_crop(tensor, [size, size]))
