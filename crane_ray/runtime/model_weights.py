"""The weights of a model's encoder, found on this machine and known by their hash.

Looked for before any slide is: patches of a thousand slides are of no use without them. Imports no
ray.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from crane_ray import storage
from crane_ray.errors import ConfigError, CraneError
from crane_ray.features.cards import ENCODERS, check_requirements, encoder_info
from crane_ray.features.encoder import EncoderCard, EncoderConfig, EncoderInfo, Precision
from crane_ray.features.recipe import Recipe
from crane_ray.features.weights import (
    RANDOM,
    Weights,
    find_weights,
    read_weights,
    variable_names,
)
from crane_ray.plugins import load_plugin
from crane_ray.runtime.assessment_jobs import AskedEncoder
from crane_ray.runtime.jobs import ExtractJob
from crane_ray.runtime.model_recipes import ModelFeatures, recipe_differences, table_of
from crane_ray.slides.patches import PatchSpec

RANDOM_LABEL = re.compile(r"random seed (-?\d+)")
HUB_LABEL = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<commit>[\w.-]+)/(?P<file>[\w./-]+)")


@dataclass(frozen=True)
class FoundEncoder:
    """An encoder whose weights are here."""

    config: EncoderConfig
    card: EncoderCard
    weights: Weights

    def info(self, spec: PatchSpec, *, precision: Precision, compiled: bool) -> EncoderInfo:
        """The exact encoder, with what the config leaves open."""
        return encoder_info(
            self.config,
            self.card,
            patch_px=spec.size_px,
            precision=precision,
            label=self.weights.label,
            sha256=self.weights.sha256,
            compiled=compiled,
        )


def own_encoder(
    own: ModelFeatures, asked: AskedEncoder, environment: Mapping[str, str] = os.environ
) -> FoundEncoder:
    """The encoder of a model's recipe, with weights that are here and are the very same.

    They are looked for where the user says, else where environment variables say, where they lay
    when the model's features were made, and where they are published.

    Raises:
        ConfigError: they are not to be had, or are other ones; both hashes are named. Or this
            version of crane-ray would use them in another way.
    """
    recipe = own.recipe
    assert recipe is not None
    card = _card(recipe.encoder.name)
    found = _find(own, recipe.encoder, card, asked, environment)
    info = found.info(
        recipe.patch, precision=recipe.encoder.precision, compiled=recipe.encoder.compiled
    )
    here = Recipe(patch=recipe.patch, encoder=info, dtype=recipe.dtype)
    if here.fingerprint() != recipe.fingerprint():
        raise ConfigError(
            f"--model {own.model}: this crane-ray's encoder {info.name} is not the one that the "
            f"model was trained with\n{table_of(recipe_differences(recipe, here), 'model', 'here')}"
            "\nUse the version of crane-ray (or of your own encoder) that made its features"
        )
    return found


def asked_encoder(own: ModelFeatures, asked: AskedEncoder) -> FoundEncoder:
    """The encoder that is asked for, for a model that does not tell its own.

    Raises:
        ConfigError: there is no such encoder, its weights are not to be had, or its features have
            another length than the model takes.
    """
    assert asked.name is not None
    given = asked.model_dump(exclude={"dtype"}, exclude_none=True)
    config = EncoderConfig.model_validate(given)
    card = _card(config.name)
    if card.dim != own.dim:
        raise ConfigError(
            f"--encoder {config.name}: makes vectors of {card.dim} numbers, --model {own.model} "
            f"takes {own.dim}; give the encoder that it was trained with"
        )
    weights = read_weights(config, card, find_weights(config, card), by_path=True)
    return FoundEncoder(config, card, weights)


def _card(name: str) -> EncoderCard:
    card: EncoderCard = load_plugin(ENCODERS, name).CARD
    check_requirements(name, card)
    return card


def _find(
    own: ModelFeatures,
    info: EncoderInfo,
    card: EncoderCard,
    asked: AskedEncoder,
    environment: Mapping[str, str],
) -> FoundEncoder:
    """The weights with the hash that is needed."""
    needed = f"weights {info.weights} with SHA-256 {info.weights_sha256}"
    variables = variable_names(info.name, card)
    set_variable = next((name for name in variables if environment.get(name)), "")
    weights, seed = asked.weights, 0
    if weights in {None, RANDOM}:
        weights, seed = _usual(own, info, card, set_variable, asked.weights)
    if weights is None and not set_variable:
        raise ConfigError(
            f"--model {own.model}: its encoder {info.name} needs {needed}, which are not known "
            f"here; give that file with --weights FILE, or name it in {variables[0]}"
        )
    config = EncoderConfig(
        name=info.name,
        weights=weights,
        seed=seed,
        input_size=info.input_size_px if info.resize_px is None else None,
        precision="auto" if info.precision == "unknown" else info.precision,
        compile=info.compiled,
        batch_size=asked.batch_size,
    )
    try:
        found = read_weights(config, card, find_weights(config, card, environment), by_path=True)
    except CraneError as error:
        raise ConfigError(
            f"--model {own.model}: its encoder {info.name} needs {needed}: {error}"
        ) from error
    if found.sha256 != info.weights_sha256:
        random = RANDOM_LABEL.fullmatch(info.weights)
        origin = "--weights" if asked.weights else set_variable or "found"
        raise ConfigError(
            f"--model {own.model}: its encoder {info.name} has other weights than these\n"
            f"  model: {info.weights}, SHA-256 {info.weights_sha256}\n"
            f"  here ({origin}): {found.label}, SHA-256 {found.sha256}\n"
            f"{'Leave --weights out' if random else 'Give the file of the model with --weights'}"
        )
    return FoundEncoder(config, card, found)


def _usual(
    own: ModelFeatures,
    info: EncoderInfo,
    card: EncoderCard,
    set_variable: str,
    asked: str | None,
) -> tuple[str | None, int]:
    """Where a model's weights are likely to be, and the seed of random ones."""
    if random := RANDOM_LABEL.fullmatch(info.weights):
        return RANDOM, int(random[1])
    if asked == RANDOM:
        return RANDOM, 0
    if set_variable:
        return None, 0
    if info.weights in card.downloads:
        return info.weights, 0
    if hub := HUB_LABEL.fullmatch(info.weights):
        return f"hf-hub:{hub['repo']}/{hub['file']}@{hub['commit']}", 0
    return _recorded(own, info), 0


def _recorded(own: ModelFeatures, info: EncoderInfo) -> str | None:
    """The file that the model's features were made with, if it is still where it was."""
    path = storage.join(own.root, "config.yaml")
    if not own.root or not storage.exists(path):
        return None
    try:
        job = ExtractJob.model_validate(yaml.safe_load(storage.read_bytes(path)))
    except (ValueError, yaml.YAMLError):
        return None
    named = [one.weights for one in job.encoder_configs if one.name == info.name and one.weights]
    return next((one for one in named if storage.kind_of(one) == "file"), None)
