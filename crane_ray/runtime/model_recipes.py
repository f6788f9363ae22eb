"""Which features a model needs: the recipe of those that it was trained on. Imports no ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from crane_ray.config import Config
from crane_ray.errors import ConfigError
from crane_ray.features.import_recipe import IMPORTED
from crane_ray.features.recipe import Recipe
from crane_ray.mil.checkpoints import load_checkpoint
from crane_ray.runtime.assessment_jobs import AskedEncoder, AskedPatch
from crane_ray.slides.patches import PatchSpec

Difference = tuple[str, str, str]
"""What differs, as it is at the one, and as at the other."""


@dataclass(frozen=True)
class ModelFeatures:
    """What is known of the features that a model was trained on."""

    model: str
    """Folder of the run, or the checkpoint."""
    dim: int
    """Length of a patch's features."""
    recipe: Recipe | None
    """None where the checkpoints do not say: published ones, or those trained on files of CLAM."""
    root: str = ""
    """Where the features lay."""


def model_features(model: str, paths: Mapping[int, str]) -> ModelFeatures:
    """What the checkpoints of a model say of the features that they were trained on.

    Args:
        model: folder of a run, or a checkpoint.
        paths: the checkpoint of each fold.

    Raises:
        ConfigError: a checkpoint cannot be read, they were trained on features of several kinds,
            or on imported ones, which nobody can make again.
    """
    checkpoints = [load_checkpoint(path) for path in paths.values()]
    dims = sorted({checkpoint.dim for checkpoint in checkpoints})
    if len(dims) > 1:
        raise ConfigError(
            f"--model {model}: its checkpoints take features of different lengths "
            f"({', '.join(map(str, dims))}); give one of them"
        )
    found: dict[str, tuple[Recipe, str]] = {}
    for checkpoint in checkpoints:
        for source in checkpoint.provenance.get("features_of", {}).values():
            if isinstance(source, Mapping) and "recipe" in source:
                recipe = _recipe(model, source["recipe"])
                found[recipe.fingerprint()] = recipe, str(source.get("root", ""))
    if not found:
        return ModelFeatures(model, dims[0], None)
    if len(found) > 1:
        told = "; ".join(recipe_words(recipe) for recipe, _ in found.values())
        raise ConfigError(
            f"--model {model}: trained on features of {len(found)} recipes ({told}), so that it is "
            "not known which to make of new slides; extract them, and give --features and --cases"
        )
    recipe, root = next(iter(found.values()))
    if recipe.encoder.weights_sha256 == IMPORTED:
        raise ConfigError(
            f"--model {model}: trained on imported features ({recipe.encoder.name}), of which no "
            "weights are recorded: features that are certainly alike cannot be made of slides; "
            "import those of the new slides, too, and give --features and --cases"
        )
    return ModelFeatures(model, dims[0], recipe, root)


def _recipe(model: str, tree: Any) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(
            f"--model {model}: the recipe of its features is of another crane-ray "
            f"({error.error_count()} fields do not fit); use the version that trained it"
        ) from None


def require_asked(own: ModelFeatures, patch: AskedPatch, encoder: AskedEncoder) -> None:
    """Refuses another kind of features than a model was trained on.

    Weights are no matter of this: their hash tells, see `model_weights`.

    Raises:
        ConfigError: something else is asked for; each difference is named with both values.
    """
    recipe = own.recipe
    assert recipe is not None
    spec, info = recipe.patch, recipe.encoder
    asked_px = spec.size_px if encoder.input_size == "patch" else encoder.input_size
    downsample = patch.custom_downsample
    facts: list[tuple[str, object, object]] = [
        ("encoder (--encoder)", info.name, encoder.name),
        ("input size in px (--input-size)", info.input_size_px, asked_px),
        ("precision (--precision)", info.precision, encoder.precision),
        ("type of features (encoder.dtype)", recipe.dtype, encoder.dtype),
        ("patch size in px (--patch-size)", spec.size_px, patch.size_px),
        ("scale", scale_words(spec.mpp, spec.level), scale_words(patch.mpp, patch.level)),
        ("step in px (--step-size)", spec.step, patch.step_px),
        ("custom_downsample", spec.custom_downsample, downsample),
    ]
    differing = [
        (what, str(here), str(there))
        for what, here, there in facts
        if there not in (None, "") and there != here
    ]
    if differing:
        raise ConfigError(
            f"--model {own.model}: trained on other features than what is asked for\n"
            f"{table_of(differing, 'model', 'asked for')}\n"
            "Leave these options out: the model's own values are taken from its checkpoints. Or "
            "give a model that was trained on what is asked for"
        )


def require_alike(first: ModelFeatures, second: ModelFeatures) -> None:
    """Refuses two models that cannot be shown the same features.

    Raises:
        ConfigError: they were trained on different ones; both recipes are shown.
    """
    one, two = first.recipe, second.recipe
    if one is not None and two is not None and one.fingerprint() != two.fingerprint():
        raise ConfigError(
            f"--grade-model {second.model}: trained on other features than --model {first.model}\n"
            f"{table_of(recipe_differences(one, two), '--model', '--grade-model')}\n"
            "Give two models that were trained on the same features, or assess without "
            "--grade-model"
        )
    if first.dim != second.dim:
        raise ConfigError(
            f"--grade-model {second.model}: takes features of {second.dim} numbers, --model "
            f"{first.model} takes {first.dim}; give two models that were trained on the same "
            "features, or assess without --grade-model"
        )


def spec_as_asked(own: ModelFeatures, patch: AskedPatch, encoder: AskedEncoder) -> PatchSpec:
    """The patches for a model whose checkpoints do not tell: those that are asked for.

    Raises:
        ConfigError: encoder or scale are not said.
    """
    missing = [] if encoder.name else ["the encoder (--encoder NAME)"]
    if patch.mpp is None and patch.level is None:
        missing.append("the scale of patches (--mpp X, or --patch-level 0 as in CLAM)")
    if missing:
        raise ConfigError(
            f"--model {own.model}: does not record which features it was trained on (vectors of "
            f"{own.dim} numbers); say what they were: {' and '.join(missing)}"
        )
    given = {name: value for name, value in patch.model_dump().items() if value is not None}
    return PatchSpec.model_validate(given)


def recipe_differences(one: Config, two: Config) -> list[Difference]:
    """In what two recipes (or parts of them) differ, but for where weights lay."""
    here, there = _flat(one), _flat(two)
    return [
        (name, here.get(name, "-"), there.get(name, "-"))
        for name in {**here, **there}
        if here.get(name) != there.get(name) and name != "encoder.weights"
    ]


def _flat(config: Config) -> dict[str, str]:
    flat: dict[str, str] = {}
    todo: list[tuple[str, Any]] = [("", config.model_dump(mode="json"))]
    while todo:
        name, value = todo.pop(0)
        if isinstance(value, dict):
            todo[:0] = [(f"{name}.{key}".lstrip("."), below) for key, below in value.items()]
        else:
            flat[name] = str(value)
    return flat


def table_of(differences: Sequence[Difference], one: str, two: str) -> str:
    """The differences, a line each."""
    return "\n".join(f"  {what}: {one} {here}, {two} {there}" for what, here, there in differences)


def recipe_words(recipe: Recipe) -> str:
    """A recipe in a line."""
    info = recipe.encoder
    return (
        f"{info.name} (weights {info.weights}, {info.precision}) on {spec_words(recipe.patch)}, "
        f"recipe {recipe.fingerprint()}"
    )


def spec_words(spec: PatchSpec) -> str:
    """A kind of patch in a few words."""
    step = "" if spec.step == spec.size_px else f", step {spec.step} px"
    shrunk = f", shrunk {spec.custom_downsample} times" if spec.custom_downsample > 1 else ""
    return f"patches of {spec.size_px} px at {scale_words(spec.mpp, spec.level)}{shrunk}{step}"


def scale_words(mpp: float | None, level: int | None) -> str:
    """A scale; '' of none."""
    if level is not None:
        return f"level {level}"
    return "" if mpp is None else f"{mpp:g} um/px"
