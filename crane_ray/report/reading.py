"""A run's folder read for its report; runs of earlier versions, too, as far as they tell."""

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from crane_ray import storage
from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError, StoreError
from crane_ray.evaluation.measurements import Evaluation
from crane_ray.evaluation.predictions import Predictions
from crane_ray.manifest import RunManifest
from crane_ray.mil.history import Epoch, read_history
from crane_ray.report.event_files import read_events
from crane_ray.report.results import FoldCourse, RunResults

OUTCOME = re.compile(r"/(\d+)/outcome\.json$")
CHECKPOINT = re.compile(r"s_(\d+)_checkpoint\.json$")


def read_run(folder: str) -> RunResults:
    """The results of a training or an evaluation.

    Raises:
        ConfigError: the folder holds neither.
        StoreError: one of its files cannot be read.
    """
    config, manifest = _config(folder), _manifest(folder)
    if config is None and manifest is None:
        raise ConfigError(
            f"run {folder}: no config.yaml and no manifest.json there; give the folder of a run "
            "(RESULTS/EXP_CODE_sSEED) or of an evaluation (eval_results/EVAL_CODE)"
        )
    path = storage.join(folder, "predictions.parquet")
    predictions = Predictions.from_parquet(path) if storage.exists(path) else None
    headers = _checkpoint_headers(folder)
    named = _tasks(manifest, headers)
    evaluated = (manifest.verb if manifest else "") == "evaluate" or "split" in (config or {})
    return RunResults(
        folder=folder,
        kind="evaluation" if evaluated else "training",
        name=storage.name_of(folder),
        tasks=named or _numbered(predictions),
        named_classes=bool(named),
        config=config,
        manifest=manifest,
        predictions=predictions if predictions is not None and len(predictions) else None,
        evaluation=Evaluation.read(folder),
        courses=_courses(folder),
        checkpoints=_fingerprints(manifest, headers),
    )


def _config(folder: str) -> Mapping[str, Any] | None:
    path = storage.join(folder, "config.yaml")
    if not storage.exists(path):
        return None
    try:
        tree = yaml.safe_load(storage.read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not valid YAML: {error}; move it away") from error
    return tree if isinstance(tree, dict) else None


def _manifest(folder: str) -> RunManifest | None:
    path = storage.join(folder, "manifest.json")
    if not storage.exists(path):
        return None
    try:
        return RunManifest.model_validate_json(storage.read_bytes(path))
    except ValidationError as error:
        raise StoreError(f"{path}: no manifest of a run: {error}; move it away") from error


def _checkpoint_headers(folder: str) -> dict[str, Mapping[str, Any]]:
    """What the run's own checkpoints say of themselves, by fold."""
    found = {}
    for path in storage.list_files(folder, ".json"):
        match = CHECKPOINT.search(path)
        if match:
            found[match[1]] = _json(path)
    return found


def _tasks(
    manifest: RunManifest | None, headers: Mapping[str, Mapping[str, Any]]
) -> tuple[TaskSpec, ...]:
    """The tasks that the manifest names, else those of a checkpoint; none where neither does."""
    held = manifest.facts.get("tasks") if manifest else None
    if not held and headers:
        held = next(iter(headers.values())).get("tasks")
    if not held and manifest:
        held = _tasks_of_judged(manifest)
    try:
        return tuple(TaskSpec.model_validate(task) for task in held or ())
    except ValidationError:
        return ()


def _tasks_of_judged(manifest: RunManifest) -> Any:
    """The tasks of the networks that an evaluation judged, where they are still there."""
    for facts in manifest.facts.get("checkpoints", {}).values():
        path = str(facts.get("path", "")).removesuffix(".safetensors") + ".json"
        if path.endswith("_checkpoint.json") and storage.exists(path):
            return _json(path).get("tasks")
    return None


def _numbered(predictions: Predictions | None) -> tuple[TaskSpec, ...]:
    """Tasks whose classes are called by their indices."""
    if predictions is None:
        return ()
    sizes = {
        name: predictions.arrays(name).probabilities_NC.shape[1] for name in predictions.tasks()
    }
    return tuple(
        TaskSpec(name=name, column=name, classes=tuple(f"class {index}" for index in range(size)))
        for name, size in sizes.items()
    )


def _courses(folder: str) -> tuple[FoldCourse, ...]:
    """The folds of a training, in order; the epochs of older runs from TensorBoard's events."""
    outcomes = storage.list_files(storage.join(folder, "folds"), "outcome.json", recursive=True)
    found = []
    for path in outcomes:
        match = OUTCOME.search(path)
        if match:
            fold = int(match[1])
            history = read_history(path.rpartition("/")[0]) or _from_events(folder, fold)
            found.append(FoldCourse(fold, _json(path), history))
    return tuple(sorted(found, key=lambda course: course.fold))


def _from_events(folder: str, fold: int) -> tuple[Epoch, ...]:
    return read_events(storage.join(folder, str(fold)))


def _fingerprints(
    manifest: RunManifest | None, headers: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    judged = manifest.facts.get("checkpoints", {}) if manifest else {}
    found = {fold: str(facts.get("fingerprint", "")) for fold, facts in judged.items()}
    own = {
        fold: str(header.get("provenance", {}).get("fingerprint", ""))
        for fold, header in headers.items()
    }
    return found or own


def _json(path: str) -> Mapping[str, Any]:
    try:
        tree = json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise StoreError(f"{path}: not valid JSON: {error}; move it away") from error
    return tree if isinstance(tree, dict) else {}
