"""What a fold of an experiment is, how far it has come, and what came of it. Imports no ray.

::

    RUN/folds/{fold}/begun.json           what its weights are a function of
    RUN/folds/{fold}/state.pt             to go on from, until it is done
    RUN/folds/{fold}/predictions.parquet
    RUN/folds/{fold}/history.json         each epoch's losses and AUCs of val
    RUN/folds/{fold}/outcome.json         the last file; with it, the fold is done
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from crane_ray import storage
from crane_ray.cohort.splits import Split
from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import StoreError
from crane_ray.manifest import LeftOut
from crane_ray.mil.configs import ExperimentConfig
from crane_ray.runtime.studies import StudyData

OUTCOME = re.compile(r"/(\d+)/outcome\.json$")


@dataclass(frozen=True)
class FoldKey:
    """One network of an experiment."""

    seed: int
    fold: int

    def name(self, *, several_seeds: bool = False) -> str:
        """For people."""
        return f"fold {self.fold}" + (f" of seed {self.seed}" if several_seeds else "")


@dataclass(frozen=True)
class FoldOutcome:
    """What came of a fold."""

    seed: int
    fold: int
    fingerprint: str
    failure: str = ""
    epochs: int = 0
    best_epoch: int = -1
    """Counted from 0; -1 where there is none."""
    best_loss: float | None = None
    """Of the val part, with the weights that are kept; None without a val part."""
    stopped_early: bool = False
    num_train: int = 0
    """Bags."""
    num_val: int = 0
    num_test: int = 0
    seconds: float = 0.0
    left_out: tuple[LeftOut, ...] = ()
    """Slides of the cohort whose features cannot be used."""

    @property
    def key(self) -> FoldKey:
        """Of which fold."""
        return FoldKey(self.seed, self.fold)


@dataclass(frozen=True)
class FoldWork:
    """All that a worker needs to train folds; small, since features come from the pack."""

    data: StudyData
    experiment: ExperimentConfig
    splits: Mapping[int, Split]
    folders: Mapping[int, str]
    """Folder of the run, by seed."""
    provenance: Mapping[str, Any]
    """Of the features, by source."""
    predict_train: bool = False
    checkpoint_every_s: float = 20.0
    gpu_share: float = 0.0
    """Of the device a worker has; 0 trains on CPUs."""

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        """The heads."""
        return self.data.cohort.task_set.tasks

    def folder(self, key: FoldKey) -> str:
        """Where a fold keeps its own files."""
        return storage.join(self.folders[key.seed], "folds", str(key.fold))

    def state_path(self, key: FoldKey) -> str:
        """What a fold that was interrupted goes on from."""
        return storage.join(self.folder(key), "state.pt")

    def parts(self, key: FoldKey) -> dict[str, str]:
        """What a fold's weights are a function of, each as 16 hex digits."""
        split = self.splits[key.fold]
        return {
            **self._shared_parts,
            "seed": _digest(str(key.seed)),
            "split": _digest(repr((split.train, split.val, split.test))),
        }

    def fingerprint(self, key: FoldKey) -> str:
        """16 hex digits of all that a fold's weights are a function of."""
        return _digest(json.dumps(self.parts(key), sort_keys=True))

    @cached_property
    def _shared_parts(self) -> dict[str, str]:
        cohort, config = self.data.cohort, self.data.config
        labels = (cohort.slide_ids, cohort.case_ids, cohort.labels_ST.tolist())
        return {
            "config": _digest(self.experiment.canonical_json()),
            "tasks": _digest(cohort.task_set.canonical_json()),
            "bag level": _digest(config.level),
            "features": _digest(json.dumps(self.provenance, sort_keys=True)),
            "labels": _digest(repr(labels)),
        }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def begin_fold(work: FoldWork, key: FoldKey) -> None:
    """Notes what a fold's weights are a function of, before it trains."""
    facts = {"parts": work.parts(key), "config": work.experiment.model_dump(mode="json")}
    path = storage.join(work.folder(key), "begun.json")
    storage.put_bytes(path, json.dumps(facts, indent=1).encode())


def require_same_fold(work: FoldWork, key: FoldKey) -> None:
    """Refuses to go on with a fold that began as another one.

    Raises:
        StoreError: it did; what differs is named.
    """
    path = storage.join(work.folder(key), "begun.json")
    if not storage.exists(path):
        return
    begun = json.loads(storage.read_bytes(path))
    now = work.parts(key)
    differing = [name for name, value in begun["parts"].items() if now.get(name) != value]
    if not differing:
        return
    told = [name for name in differing if name != "config"]
    if "config" in differing:
        config = work.experiment.model_dump(mode="json")
        told = [*_differences(begun["config"], config), *told]
    raise StoreError(
        f"results {work.folders[key.seed]}: fold {key.fold} began with another {', '.join(told)}; "
        "--resume goes on with equal ones alone: give another --exp-code, or --overwrite to begin "
        "anew"
    )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """The settings of two configs that differ, and how."""
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{at}{name}.")
        elif old != new:
            yield f"{at}{name} ({old}, now {new})"


def write_outcome(work: FoldWork, outcome: FoldOutcome) -> None:
    """The last file of a fold: it is done once this is there."""
    facts = asdict(outcome) | {"left_out": [slide.model_dump() for slide in outcome.left_out]}
    path = storage.join(work.folder(outcome.key), "outcome.json")
    storage.put_bytes(path, json.dumps(facts, indent=1).encode(), durable=True)


def read_outcome(work: FoldWork, key: FoldKey) -> FoldOutcome | None:
    """What came of a fold; None where it did not end, or ended as another one."""
    path = storage.join(work.folder(key), "outcome.json")
    if not storage.exists(path):
        return None
    facts = json.loads(storage.read_bytes(path))
    facts["left_out"] = tuple(LeftOut(**slide) for slide in facts["left_out"])
    known = {field.name for field in fields(FoldOutcome)}
    outcome = FoldOutcome(**{name: value for name, value in facts.items() if name in known})
    return outcome if outcome.fingerprint == work.fingerprint(key) else None


def ended_folds(folder: str) -> set[int]:
    """The folds of a run that ended, well or not, whatever job trained them."""
    files = storage.list_files(storage.join(folder, "folds"), "outcome.json", recursive=True)
    return {int(match[1]) for path in files if (match := OUTCOME.search(path))}
