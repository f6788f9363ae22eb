"""What follows from an encoder's card: input size, precision, warnings, the list of encoders."""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

from crane_ray.errors import ConfigError
from crane_ray.features.encoder import EncoderCard, EncoderConfig, EncoderInfo, Precision
from crane_ray.plugins import plugin_names
from crane_ray.slides.patches import PatchSpec

ENCODERS = "crane_ray.features.encoders"
SCALE_TOLERANCE = 0.1
"""A resolution this far (relative) from the one of training is still called the same; scanners'
nominal 20x spans 0.46 to 0.51 um/px."""
FIELD_TOLERANCE = 1.5
"""Patches shrunk or enlarged by up to this factor beyond the authors' own pass without a word."""


def describe_encoders() -> Iterator[tuple[str, EncoderCard | None]]:
    """Name and card of each built-in encoder; None for families, which have a card a member."""
    for name in plugin_names(ENCODERS):
        module = import_module(f"{ENCODERS}.{name}")
        if hasattr(module, "plugin"):
            yield f"{name}:NAME", None
        else:
            yield name, module.CARD


def check_requirements(name: str, card: EncoderCard) -> None:
    """Refuses an encoder whose packages are not installed here.

    Raises:
        ConfigError: names them, and how to install them.
    """
    missing = [package for package in card.requires if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"encoder {name}: needs the package {', '.join(missing)}, which is not installed "
            "here; pip install 'crane-ray[encoders]' on every node"
        )


def encoder_info(
    config: EncoderConfig,
    card: EncoderCard,
    *,
    patch_px: int,
    precision: Precision,
    label: str,
    sha256: str,
    compiled: bool = False,
) -> EncoderInfo:
    """The exact encoder behind a config.

    Args:
        config: what is asked for.
        card: of that encoder.
        patch_px: width of the patches, for ``input_size: patch``.
        precision: what ``auto`` came to.
        label: where the weights came from.
        sha256: of the weights.
        compiled: what ``compile`` came to.

    Raises:
        ConfigError: the network cannot take inputs of that size.
    """
    asked = patch_px if config.input_size == "patch" else config.input_size
    size_px = asked or card.input_size_px
    if card.token_px and size_px % card.token_px:
        low = size_px // card.token_px * card.token_px
        near = " or ".join(str(size) for size in (low, low + card.token_px) if size)
        raise ConfigError(
            f"encoder {config.name}: an input of {size_px} px cannot be cut into its tokens of "
            f"{card.token_px} px; take --input-size {near}, or leave it out for "
            f"{card.input_size_px}"
        )
    return EncoderInfo(
        name=config.name,
        dim=card.dim,
        input_size_px=size_px,
        mean=card.mean,
        std=card.std,
        precision=precision,
        weights=label,
        weights_sha256=sha256,
        interpolation=card.interpolation,
        resize_px=card.resize_px if asked is None else None,
        compiled=compiled,
    )


def auto_precision(card: EncoderCard, native: Precision, *, on_gpu: bool) -> Precision:
    """What ``precision: auto`` means: what the authors ask for on a GPU, else the hardware's best.

    Args:
        card: of the encoder.
        native: bf16 where the hardware has it, else fp32.
        on_gpu: whether a GPU will encode.
    """
    return card.precision if on_gpu and card.precision is not None else native


def scale_warning(info: EncoderInfo, card: EncoderCard, spec: PatchSpec) -> str | None:
    """What to tell a user whose patches have another scale than the encoder was trained at."""
    if not card.recommended_mpp:
        return None
    trained = " or ".join(f"{mpp:g}" for mpp in card.recommended_mpp)
    usual = card.recommended_mpp[0]
    advice = f"--mpp {usual:g}"
    if card.recommended_patch_px:
        advice += f" --patch-size {card.recommended_patch_px[0]}"
    was = f"{info.name} was trained at {trained} um/px"
    if spec.mpp is None:
        return (
            f"{was}; these patches are of pyramid level {spec.level}, whose resolution differs "
            f"from slide to slide; crane-ray patch {advice} gives all of them that scale"
        )
    if not any(abs(spec.mpp / mpp - 1) <= SCALE_TOLERANCE for mpp in card.recommended_mpp):
        return f"{was}; these patches are {spec.mpp:g} um/px; crane-ray patch {advice}"
    sizes = card.recommended_patch_px
    if not sizes:
        return None
    scale = spec.size_px / (info.resize_px or info.input_size_px)
    own = card.resize_px or card.input_size_px
    if min(sizes) / own / FIELD_TOLERANCE <= scale <= max(sizes) / own * FIELD_TOLERANCE:
        return None
    change = "shrunk" if scale > 1 else "enlarged"
    return (
        f"{was} on patches of {' or '.join(map(str, sizes))} px; these have {spec.size_px} px and "
        f"are {change} {max(scale, 1 / scale):.1f} times for the network; crane-ray patch {advice}"
    )
