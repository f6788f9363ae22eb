"""What imported features are: a look at each slide's files, and the recipe that comes of all.

Plain Python without Ray.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from crane_ray.errors import ConfigError, CraneError, SlideError
from crane_ray.features.encoder import EncoderInfo
from crane_ray.features.feature_files import FeatureFiles, open_features
from crane_ray.features.recipe import FeatureType, Recipe
from crane_ray.slides.planning import failure_reason
from crane_ray.slides.scale import GivenScale

log = logging.getLogger(__name__)

Value = TypeVar("Value")
IMPORTED = "imported"
"""As an encoder's weights and their hash: the files do not say which."""


@dataclass(frozen=True)
class Look:
    """What a slide's files say of it; plain values, since looks travel through Ray."""

    slide_id: str
    num_patches: int = 0
    dim: int = 0
    dtype: str = ""
    identity: str = ""
    """See `OpenFeatures.identity`."""
    size_px: int | None = None
    level: int | None = None
    step_px: int | None = None
    magnification: str = ""
    encoder: str = ""
    recipe: str = ""
    """Of crane-ray's own exports: the recipe in full."""
    mpp: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Asked:
    """What the user says of the features."""

    encoder: str
    scale: GivenScale
    dtype: FeatureType | None = None


def look(files: FeatureFiles) -> Look:
    """What a slide's files say, without reading all of them; never raises for what is in them."""
    try:
        with open_features(files) as found:
            said = found.attributes
            size = _number(said, "patch_size")
            overlap = _number(said, "overlap")
            return Look(
                files.slide_id,
                num_patches=found.num_patches,
                dim=found.dim,
                dtype=found.dtype,
                identity=found.identity(),
                size_px=size,
                level=_number(said, "patch_level"),
                step_px=size - overlap if size and overlap else None,
                magnification=str(said.get("target_magnification", "")),
                encoder=str(said.get("encoder", "")),
                recipe=str(said.get("recipe", "")),
                mpp=float(said["mpp"]) if "mpp" in said else None,
            )
    except Exception as error:
        if not isinstance(error, CraneError):
            log.exception("slide %s", files.slide_id)
        return Look(files.slide_id, problem=failure_reason(files.slide_id, error))


def decide_recipe(
    looks: Iterable[Look], asked: Asked, folder: str, settled: Recipe | None = None
) -> Recipe:
    """The recipe of imported features: what is asked for, what the files say, what is unknown.

    Where files differ among themselves, most of them decide, and `conflict` refuses the rest.

    Args:
        looks: of all slides.
        asked: what the user says; it wins over the files where they are silent.
        folder: where the files are, for messages.
        settled: the recipe of the store, where there is one; it settles what is left open.

    Raises:
        ConfigError: no slide can be used, or the scale of the patches is not known.
    """
    usable = [item for item in looks if not item.problem and item.num_patches]
    if not usable:
        raise ConfigError(f"--from {folder}: none of its slides has features that can be used")
    ours = _own_recipe(usable, asked)
    base = settled or ours
    dim = settled.encoder.dim if settled else most(item.dim for item in usable)
    assert dim is not None
    if base is not None and asked.scale == GivenScale():
        patch = base.patch
    else:
        magnification = most(item.magnification for item in usable)
        says = f" (they say {float(magnification):g}x)" if magnification else ""
        patch = asked.scale.spec(
            size_px=most(item.size_px for item in usable),
            level=most(item.level for item in usable),
            step_px=most(item.step_px for item in usable),
            what=f"--from {folder}{says}",
        )
    exact = all(item.dtype == "float16" for item in usable)
    dtype = asked.dtype or (settled.dtype if settled else "float16" if exact else "float32")
    encoder = ours.encoder if ours is not None else imported_encoder(asked.encoder, dim)
    return Recipe(patch=patch, encoder=encoder, dtype=dtype)


def imported_encoder(name: str, dim: int) -> EncoderInfo:
    """An encoder of which nothing but name and dimension is known.

    Zero pixels, a mean and a standard deviation of zero are what no encoder has: unknown.
    """
    unknown = (0.0, 0.0, 0.0)
    return EncoderInfo(
        name=name,
        dim=dim,
        input_size_px=0,
        mean=unknown,
        std=unknown,
        precision="unknown",
        weights=IMPORTED,
        weights_sha256=IMPORTED,
    )


def conflict(found: Look, recipe: Recipe, encoder: str = "") -> str:
    """Why a slide's features are not of a recipe; empty where nothing speaks against it.

    Args:
        found: what the slide's files say.
        recipe: the store's.
        encoder: the name that most files give their encoder.
    """
    if found.problem:
        return found.problem
    spec = recipe.patch
    pairs = [
        ("features of length", found.dim, recipe.encoder.dim),
        ("a patch size in pixels of", found.size_px, spec.size_px),
        ("a pyramid level of", found.level if spec.level is not None else None, spec.level),
        ("an encoder named", found.encoder or None, encoder or None),
    ]
    for what, here, there in pairs:
        if here is not None and there is not None and here != there:
            return (
                f"its file says {what} {here}, the store has {there}; features of different kinds "
                "are never mixed: import it into another --store"
            )
    return ""


def _own_recipe(usable: Sequence[Look], asked: Asked) -> Recipe | None:
    """The recipe that crane-ray's own exports carry, where they all have the same one."""
    texts = {item.recipe for item in usable}
    text = texts.pop()
    if texts or not text:
        return None
    try:
        recipe = Recipe.model_validate_json(text)
    except ValueError:
        return None
    return recipe if recipe.encoder.name == asked.encoder else None


def most(values: Iterable[Value | None]) -> Value | None:
    """The most common of the values that say something; the first one of equally common ones."""
    counts = Counter(value for value in values if value not in (None, ""))
    return counts.most_common(1)[0][0] if counts else None


def _number(said: dict[str, Any], key: str) -> int | None:
    """A whole number among attributes; None where it is not there."""
    value = said.get(key)
    if value is None:
        return None
    if isinstance(value, str) or float(value) != int(value):
        raise SlideError(f"its attribute {key} is {value!r}, no whole number")
    return int(value)
