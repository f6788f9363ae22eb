"""Trained networks found again, and what they say of bags. Imports no ray."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from crane_ray import storage
from crane_ray.cohort.findings import Finding, counted, some
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.cohort.splits import SPLIT_FILE, read_splits
from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.evaluation.averaging import by_case
from crane_ray.evaluation.predictions import Predictions
from crane_ray.mil.bags import Bag, BagReader
from crane_ray.mil.checkpoints import Checkpoint
from crane_ray.mil.configs import ExperimentConfig, TrainingConfig
from crane_ray.mil.pack import Pack
from crane_ray.mil.prediction import Study, predict

CHECKPOINT = re.compile(r"s_(\d+)_checkpoint\.(safetensors|pt)")
FOLD_FILE = re.compile(r"folds/(\d+)/(begun|outcome)\.json")


def find_checkpoints(model: str, folds: Sequence[int] | None = None) -> dict[int, str]:
    """The checkpoint of each fold of a run, our own format before the published one.

    Args:
        model: folder of a run, or one checkpoint. That is of the fold which its name says
            (s_3_checkpoint.pt), else of the one asked for, else of fold 0.
        folds: just these; all there are where not given.

    Raises:
        ConfigError: there are none, or one of the folds has none.
    """
    if storage.kind_of(model) == "file":
        return {_fold_of(model, folds): model}
    found: dict[int, str] = {}
    for path in sorted(storage.list_files(model), key=lambda path: path.endswith(".safetensors")):
        match = CHECKPOINT.fullmatch(storage.name_of(path))
        if match:
            found[int(match[1])] = path
    if not found:
        raise ConfigError(
            f"--model {model}: no s_0_checkpoint.safetensors or s_0_checkpoint.pt there; give the "
            "folder of a run (RESULTS/EXP_CODE_sSEED), or a checkpoint"
        )
    missing = [str(fold) for fold in folds or () if fold not in found]
    if missing:
        raise ConfigError(
            f"--folds: {model} has no checkpoint of fold {', '.join(missing)}; it has "
            f"{', '.join(map(str, sorted(found)))}"
        )
    return {fold: found[fold] for fold in sorted(folds or found)}


def _fold_of(path: str, folds: Sequence[int] | None) -> int:
    match = CHECKPOINT.fullmatch(storage.name_of(path))
    if match and (folds is None or list(folds) == [int(match[1])]):
        return int(match[1])
    if match or (folds is not None and len(folds) != 1):
        whose = f"of fold {match[1]}" if match else "one checkpoint"
        raise ConfigError(
            f"--folds {', '.join(map(str, folds or ()))}: {storage.name_of(path)} is {whose}; give "
            "that fold, or the folder of the run"
        )
    return folds[0] if folds else 0


def folds_without_network(model: str, folds: Collection[int]) -> tuple[Finding, ...]:
    """A warning where a run has folds that left no checkpoint: its mean is of fewer networks.

    Args:
        model: folder of a run; of a checkpoint alone nothing is known.
        folds: those that have a checkpoint.
    """
    if storage.kind_of(model) != "folder":
        return ()
    begun: dict[int, str] = {}
    for path in storage.list_files(model, recursive=True):
        within = path.removeprefix(model).lstrip("/")
        if match := FOLD_FILE.fullmatch(within):
            begun[int(match[1])] = path if match[2] == "outcome" else begun.get(int(match[1]), "")
        elif "/" not in within and (match := SPLIT_FILE.search(path)):
            begun.setdefault(int(match[1]), "")
    missing = {fold: path for fold, path in sorted(begun.items()) if fold not in folds}
    if not missing:
        return ()
    reasons = "; ".join(f"fold {fold}: {_why(path)}" for fold, path in missing.items())
    message = (
        f"{model}: {counted(len(missing), 'fold')} of {len(begun)} without a network ({reasons}); "
        f"what is said is the mean of the other {len(folds)}. Train them again with --resume"
    )
    return (Finding("warning", "folds_without_network", message, tuple(map(str, missing))),)


def seen_in_training(model: str, slide_ids: Collection[str]) -> tuple[Finding, ...]:
    """A warning where slides have the names of such that a run learned from, or was stopped on.

    Args:
        model: folder of a run with its splits; of others nothing is known.
        slide_ids: without a file's extension.
    """
    files = storage.list_files(model, ".csv") if storage.kind_of(model) == "folder" else []
    if not any(SPLIT_FILE.fullmatch(storage.name_of(path)) for path in files):
        return ()
    used = {
        bare_slide_id(slide)
        for split in read_splits(model).values()
        for slide in (*split.train, *split.val)
    }
    names = tuple(slide for slide in slide_ids if slide in used)
    if not names:
        return ()
    message = (
        f"{counted(len(names), 'slide')} of {len(slide_ids):,} named like slides that {model} was "
        f"trained on ({some(names)}); if they are the same, what is said of them tells nothing of "
        "new ones"
    )
    return (Finding("warning", "seen_in_training", message, names),)


def _why(outcome: str) -> str:
    """Why a fold has no network."""
    if not outcome:
        return "it did not end"
    try:
        failure = json.loads(storage.read_bytes(outcome)).get("failure")
    except (ValueError, AttributeError):
        failure = None
    return str(failure) if failure else "its checkpoint is gone"


def require_features(checkpoint: Checkpoint, path: str, provenance: Mapping[str, Any]) -> None:
    """Refuses features that were made in another way than those a network was trained on.

    Args:
        checkpoint: with the provenance it was saved with; a published one has none.
        path: of it.
        provenance: of the features, by source (`studies.study_provenance`).

    Raises:
        ConfigError: the recipes differ; both are named.
    """
    trained = _recipes(checkpoint.provenance.get("features_of", {}))
    for name, recipe in _recipes(provenance).items():
        if trained and recipe["fingerprint"] not in {
            one["fingerprint"] for one in trained.values()
        }:
            one = next(iter(trained.values()))
            raise ConfigError(
                f"checkpoint {path}: trained on features of {_words(one)}, those of {name} are "
                f"{_words(recipe)}; extract them with the same encoder, weights and patch scale"
            )


def trained_recipes(checkpoint: Checkpoint) -> set[str]:
    """Fingerprints of the recipes of the features that a network was trained on.

    None of a published checkpoint, which does not say.
    """
    found = _recipes(checkpoint.provenance.get("features_of", {}))
    return {str(recipe["fingerprint"]) for recipe in found.values()}


def _recipes(provenance: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {"fingerprint": found["recipe_fingerprint"], **found["recipe"]}
        for name, found in provenance.items()
        if isinstance(found, Mapping) and "recipe_fingerprint" in found
    }


def _words(recipe: Mapping[str, Any]) -> str:
    encoder = recipe.get("encoder")
    name = encoder.get("name") if isinstance(encoder, Mapping) else encoder
    return f"{name or 'an encoder'} (recipe {recipe['fingerprint']})"


def val_predictions(model: str, level: str) -> Predictions:
    """What a run kept of its val parts, to fit temperatures and thresholds to.

    Args:
        model: folder of a run. One of CLAM's or CRANE's, and a checkpoint alone, have nothing.
        level: of the bags that are judged. For ``case``, rows of slides become the mean over their
            case: logits of slides alone would give the temperature of other bags.
    """
    path = storage.join(model, "predictions.parquet")
    if storage.kind_of(model) != "folder" or not storage.exists(path):
        return Predictions.concat([])
    kept = Predictions.from_parquet(path).select(split="val")
    return by_case(kept) if level == "case" else kept


def predict_bags(
    checkpoint: Checkpoint,
    bags: Sequence[Bag],
    pack: Pack,
    *,
    tasks: Sequence[TaskSpec],
    fold: int,
    split: str,
    level: str,
) -> list[Predictions]:
    """What a network says of bags, a table a task.

    Raises:
        ConfigError: the features have another length than the network takes.
    """
    if pack.dim != checkpoint.dim:
        raise ConfigError(
            f"features: vectors of {pack.dim} numbers, the network takes {checkpoint.dim}; give "
            "the features of the encoder that it was trained with"
        )
    # In the precision that it was trained with, in which the run itself predicted.
    training = TrainingConfig(precision=checkpoint.provenance.get("precision", "fp32"))
    config = ExperimentConfig(model=checkpoint.config, training=training)
    study = Study(config, tuple(tasks), BagReader(pack))
    logits = predict(checkpoint.network.float(), bags, study)
    return bag_predictions(logits, bags, tasks, fold=fold, split=split, level=level)


def bag_predictions(
    logits: Mapping[str, Any],
    bags: Sequence[Bag],
    tasks: Sequence[TaskSpec],
    *,
    fold: int,
    split: str,
    level: str,
) -> list[Predictions]:
    """What a network says of bags, a table a task; none of no bags."""
    if not bags:
        return []
    return [
        Predictions.from_logits(
            logits[task.name],
            [bag.labels_T[place] for bag in bags],
            fold=fold,
            split=split,
            task=task.name,
            slide_ids=[bag.bag_id if level == "slide" else "" for bag in bags],
            case_ids=[bag.case_id for bag in bags],
        )
        for place, task in enumerate(tasks)
    ]
