"""A small study on disk: slides of two classes that a network tells apart in a few epochs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.tasks import load_task_set
from crane_ray.runtime.folds import FoldWork
from crane_ray.runtime.search_jobs import TuneJob
from crane_ray.runtime.studies import attach_features, load_labels, study_provenance
from crane_ray.runtime.study_jobs import TrainJob

DIM = 6
QUICK: dict[str, Any] = {
    "model.hidden_dim": 8,
    "model.attention_dim": 4,
    "model.dropout": 0.0,
    "training.epochs": 4,
    "training.optim.lr": 0.01,
    "tracking.tensorboard": False,
}
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SmallStudy:
    """Its files; each case has one slide but for case C0, which has two."""

    root: Path
    slide_ids: tuple[str, ...]

    @property
    def labels(self) -> Path:
        return self.root / "labels.csv"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def splits(self) -> Path:
        return self.root / "splits"

    @property
    def task(self) -> Path:
        return self.root / "task.yaml"

    def put_features(self, slide_id: str, features: Features) -> None:
        path = self.features / "pt_files" / f"{slide_id}.pt"
        torch.save(torch.from_numpy(features), path)

    def put_split(self, fold: int, **parts: Sequence[str]) -> None:
        """Writes a fold's split; parts that are not given are empty."""
        columns = [list(parts.get(part, ())) for part in ("train", "val", "test")]
        rows = [",train,val,test"]
        for row in range(max(map(len, columns))):
            cells = [column[row] if row < len(column) else "" for column in columns]
            rows.append(",".join([str(row), *cells]))
        (self.splits / f"splits_{fold}.csv").write_text("\n".join(rows) + "\n")

    def job(self, results: Path, **settings: Any) -> TrainJob:
        """A training of it; keys of settings have a double underscore for a dot."""
        return TrainJob.load(overrides=self._overrides(results, settings))

    def search(self, results: Path, space: Mapping[str, Any], **settings: Any) -> TuneJob:
        """A search in it, with settings as in `job`."""
        overrides = [*self._overrides(results, settings), ("space", dict(space))]
        return TuneJob.load(overrides=overrides)

    def _overrides(self, results: Path, settings: Mapping[str, Any]) -> list[tuple[str, Any]]:
        given = {key.replace("__", "."): value for key, value in settings.items()}
        return [
            ("task", str(self.task)),
            ("bags.labels", str(self.labels)),
            ("bags.features", str(self.features)),
            ("bags.pack.folder", str(self.root / "packs")),
            ("splits", str(self.splits)),
            ("results", str(results)),
            *QUICK.items(),
            *given.items(),
        ]

    def words(self, results: Path, *words: str, verb: str = "train") -> list[str]:
        """A command line of a verb that takes the same."""
        settings = [f"--set={key}={value}" for key, value in QUICK.items()]
        return [
            verb, "--task", str(self.task), "--labels", str(self.labels),
            "--features", str(self.features), "--pack-folder", str(self.root / "packs"),
            "--splits", str(self.splits), "--results", str(results), *settings, *words,
        ]  # fmt: skip


def make_study(root: Path, num_slides: int = 16, num_folds: int = 3) -> SmallStudy:
    """Slides S0, S1, ... of classes a and b in turn, with 3 to 9 patches each."""
    study = SmallStudy(root, tuple(f"S{number}" for number in range(num_slides)))
    for folder in (study.features / "pt_files", study.splits):
        folder.mkdir(parents=True)
    rows = ["case_id,slide_id,label,site"]
    for number, slide_id in enumerate(study.slide_ids):
        case = max(number - 1, 0) if number < 2 else number
        label = "a" if case % 2 == 0 else "b"
        rows.append(f"C{case},{slide_id}.svs,{label},{'north' if number < 8 else 'south'}")
        generator = np.random.default_rng(number)
        features = generator.normal(size=(3 + number % 7, DIM)).astype(np.float32)
        features[:, 0] += 2.0 * (label == "b")
        study.put_features(slide_id, features)
    study.labels.write_text("\n".join(rows) + "\n")
    study.task.write_text("name: own\ntasks: [{name: kind, column: label, classes: [a, b]}]\n")
    for fold in range(num_folds):
        test = study.slide_ids[2 + 4 * fold : 6 + 4 * fold]
        rest = [slide_id for slide_id in study.slide_ids if slide_id not in test]
        study.put_split(fold, train=rest[:-4], val=rest[-4:], test=test)
    return study


def work_of(job: TrainJob, *, splits: Mapping[int, Split] | None = None) -> FoldWork:
    """What workers get of a job, without a driver."""
    data = attach_features(load_labels(job.bags, load_task_set(job.task)), job.bags)
    seeds = range(job.training.seed, job.training.seed + job.seeds)
    return FoldWork(
        data=data,
        experiment=job.experiment,
        splits=splits or read_splits(job.splits),
        folders={seed: f"{job.results}/own_s{seed}" for seed in seeds},
        provenance=study_provenance(data),
        predict_train=job.predict_train,
        checkpoint_every_s=0.0,
    )
