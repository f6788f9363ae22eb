"""What an encoder must hold to. Shape suffixes: B patches, S pixels, D features."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from crane_ray.features.cards import encoder_info
from crane_ray.features.encoder import EncoderConfig, EncoderPlugin, Features, PatchEncoder
from crane_ray.features.torch_encoder import TorchEncoder, load_network
from crane_ray.features.weights import Weights
from crane_ray.plugins import Plugin

TOLERANCES = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3}
"""Largest difference that other patches of a batch may make, relative to the largest feature."""


def check_encoder(
    encoder: PatchEncoder, *, patch_sizes_px: Sequence[int] = (), batch_size: int = 5
) -> None:
    """Holds an encoder to `PatchEncoder`.

    Args:
        encoder: on the device that it is to be tested on.
        patch_sizes_px: sizes of patches to give it; its own input size and twice that by default.
        batch_size: patches a batch, at least 2.

    Raises:
        AssertionError: features of another shape or type, not finite, not the same for the same
            batch, the same for every patch, or dependent on the other patches of the batch.
    """
    own_px = encoder.info.input_size_px
    for size_px in patch_sizes_px or (own_px, 2 * own_px):
        pixels_BSS3 = _patches(batch_size, size_px)
        given = pixels_BSS3.copy()
        features_BD = encoder.encode(pixels_BSS3)
        _check_features(features_BD, (batch_size, encoder.info.dim))
        assert (pixels_BSS3 == given).all(), "the encoder changed the patches it was given"
        assert (encoder.encode(pixels_BSS3) == features_BD).all(), (
            "the same batch gave other features the second time"
        )
        assert len(np.unique(features_BD, axis=0)) == batch_size, (
            "different patches gave the same features"
        )
        _check_independence(encoder, pixels_BSS3, features_BD)
        _check_features(encoder.encode(pixels_BSS3[:1]), (1, encoder.info.dim))


def check_encoder_plugin(
    module: Plugin, *, patch_sizes_px: Sequence[int] = (), batch_size: int = 5
) -> None:
    """Holds a plug-in, a module with ``CARD`` and ``build``, to what makes it a `PatchEncoder`.

    Its network has seeded random weights and computes in fp32 on the CPU.

    Args:
        module: the plug-in.
        patch_sizes_px: see `check_encoder`.
        batch_size: see `check_encoder`.

    Raises:
        AssertionError: see `check_encoder`.
    """
    weights = Weights("random seed 0", "0", None)
    info = encoder_info(
        EncoderConfig(name=getattr(module, "__name__", "plugin")),
        module.CARD,
        patch_px=module.CARD.input_size_px,
        precision="fp32",
        label=weights.label,
        sha256=weights.sha256,
    )
    network = load_network(cast(EncoderPlugin, module), weights)
    encoder = TorchEncoder(info, network, "cpu")
    check_encoder(encoder, patch_sizes_px=patch_sizes_px, batch_size=batch_size)


def _check_features(features_BD: Features, shape: tuple[int, int]) -> None:
    assert features_BD.shape == shape, f"features {features_BD.shape}, {shape} expected"
    assert features_BD.dtype == np.float32, f"features are {features_BD.dtype}, not float32"
    assert np.isfinite(features_BD).all(), "features are not finite"


def _check_independence(
    encoder: PatchEncoder, pixels_BSS3: npt.NDArray[np.uint8], features_BD: Features
) -> None:
    tolerance = TOLERANCES[encoder.info.precision] * np.abs(features_BD).max()
    others = 255 - pixels_BSS3
    others[0] = pixels_BSS3[0]
    apart = np.abs(encoder.encode(others)[0] - features_BD[0]).max()
    assert apart <= tolerance, (
        f"a patch's features depend on the other patches of its batch: {apart:.3g} apart"
    )
    turned = np.ascontiguousarray(pixels_BSS3[::-1])
    apart = np.abs(encoder.encode(turned)[::-1] - features_BD).max()
    assert apart <= tolerance, f"features depend on the place in the batch: {apart:.3g} apart"


def _patches(batch_size: int, size_px: int) -> npt.NDArray[np.uint8]:
    """(B, S, S, 3): black, white, then noise of several grains."""
    rng = np.random.default_rng(0)
    pixels_BSS3 = np.zeros((batch_size, size_px, size_px, 3), dtype=np.uint8)
    pixels_BSS3[1] = 255
    for place in range(2, batch_size):
        coarse = rng.integers(0, 256, (place * 3, place * 3, 3), dtype=np.uint8)
        rows = np.arange(size_px) * len(coarse) // size_px
        pixels_BSS3[place] = coarse[rows][:, rows]
    return pixels_BSS3
