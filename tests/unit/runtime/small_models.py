"""Untrained networks in files, as a training on slides' features leaves them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.features.cards import encoder_info
from crane_ray.features.encoder import EncoderConfig
from crane_ray.features.encoders.resnet50_trunc import CARD
from crane_ray.features.recipe import Recipe
from crane_ray.features.weights import find_weights, read_weights
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.mil.checkpoints import save_checkpoint, save_published
from crane_ray.mil.configs import ModelConfig
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.slides.patches import PatchSpec

CELL = TaskSpec(name="cell", column="c", classes=("no_cell", "cell"))
AMR = TaskSpec(name="amr", column="a", classes=("no_amr", "amr"))
GRADE = TaskSpec(name="grade", column="g", classes=("low", "high"))


def make_recipe(weights: str = "random", seed: int = 0, **patch: Any) -> Recipe:
    """Features of resnet50_trunc with the weights of a file, or with random ones."""
    config = EncoderConfig(weights=weights, seed=seed)
    known = read_weights(config, CARD, find_weights(config, CARD, {}))
    spec = PatchSpec.model_validate(patch)
    info = encoder_info(
        config,
        CARD,
        patch_px=spec.size_px,
        precision="fp32",
        label=known.label,
        sha256=known.sha256,
    )
    return Recipe(patch=spec, encoder=info, dtype="float32")


def make_model(
    folder: Path,
    recipe: Recipe | None,
    *,
    tasks: Sequence[TaskSpec] = (CELL, AMR),
    folds: int = 2,
    dim: int = CARD.dim,
    root: str = "",
) -> Path:
    """A run's folder with a checkpoint a fold; without a recipe it is a published one."""
    config = ModelConfig(hidden_dim=4, attention_dim=2)
    for fold in range(folds):
        network = build_aggregator(config, dim, tuple(tasks))
        stem = str(folder / f"s_{fold}_checkpoint")
        if recipe is None:
            save_published(f"{stem}.pt", network)
            continue
        source = {
            "root": root,
            "recipe": recipe.model_dump(mode="json"),
            "recipe_fingerprint": recipe.fingerprint(),
        }
        facts = {"features_of": {"features": source}, "fingerprint": f"{fold:016}"}
        save_checkpoint(stem, network, config, dim=dim, tasks=tasks, provenance=facts)
    return folder


def make_slides(folder: Path, *names: str) -> Path:
    """Files that are listed as slides; nothing can be read of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("S1.tif", "S2.tif"):
        (folder / name).write_bytes(b"no pixels")
    return folder


def job_of(model: Path, slides: Path, work: Path, **settings: Any) -> AssessJob:
    """An assessment of slides."""
    return AssessJob.load(
        overrides=[
            ("model", str(model)),
            ("slides.source", str(slides)),
            ("work", str(work)),
            *((key.replace("__", "."), value) for key, value in settings.items()),
        ]
    )
