"""A cohort of random bags for the benchmarks of training: packed, and as files of a bag each."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import torch

from crane_ray.cohort.tasks import load_task_set
from crane_ray.mil.bags import Bag, BagReader
from crane_ray.mil.configs import ExperimentConfig, PackConfig
from crane_ray.mil.pack import Pack, build_pack
from crane_ray.mil.pack_writing import Wanted
from crane_ray.mil.prediction import Study
from crane_ray.mil.run import FoldBags, FoldRun, start_run

TASKS = load_task_set("cardiac-mtl").tasks


@dataclass(frozen=True)
class Size:
    """What a cohort is like."""

    name: str
    patches: int
    """Of a bag."""
    dim: int
    gates: Mapping[str, float]
    """How many times the published loop's speed is demanded, by precision."""


BIOPSIES = Size("2,000 x 1024", 2000, 1024, {"fp32": 1.0, "bf16": 2.3})
"""CRANE's bags."""
REGIONS = Size("50 x 192", 50, 192, {"fp32": 1.0, "bf16": 1.0})
"""Few and short features: as much time goes into Adam, in fp32, as into products."""


@dataclass(frozen=True)
class TrainingCohort:
    """Bags with labels of three tasks."""

    size: Size
    bags: tuple[Bag, ...]
    pack: Pack
    """float16, as feature stores keep them."""
    folder: Path
    """``ID.pt`` and ``ID.h5`` of each bag, float32 as published; the same numbers."""

    @property
    def labels(self) -> dict[str, tuple[int, ...]]:
        """Class indices by bag id."""
        return {bag.bag_id: bag.labels_T for bag in self.bags}

    def study(
        self, *, precision: str = "fp32", dropout: float = 0.25, **reader_options: Any
    ) -> Study:
        """CRANE's published recipe on these bags."""
        tree = {"model": {"dropout": dropout}, "training": {"precision": precision}}
        config = ExperimentConfig.model_validate(tree)
        return Study(config, tuple(TASKS), BagReader(self.pack, **reader_options))

    def start(self, study: Study) -> FoldRun:
        """One network that trains on all bags."""
        return self._started(FoldBags(0, self.bags), study)

    def start_folds(self, study: Study, num_folds: int) -> list[FoldRun]:
        """A network a fold, each of which trains without its share of the bags."""
        return [
            self._started(
                FoldBags(
                    fold,
                    tuple(bag for place, bag in enumerate(self.bags) if place % num_folds != fold),
                ),
                study,
            )
            for fold in range(num_folds)
        ]

    def _started(self, bags: FoldBags, study: Study) -> FoldRun:
        dim, device = self.size.dim, study.reader.device
        return start_run(bags, study.config, study.tasks, dim=dim, device=device)


@contextmanager
def cohort(size: Size, num_bags: int) -> Iterator[TrainingCohort]:
    """A cohort in a temporary folder."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory() as name:
        folder = Path(name)
        features, bags = {}, []
        for number in range(num_bags):
            bag_id = f"bag_{number:03}"
            labels = tuple(rng.integers(0, 2, len(TASKS)).tolist())
            bags.append(Bag(bag_id, bag_id, (bag_id,), labels))
            shape = (size.patches, size.dim)
            features[bag_id] = rng.standard_normal(shape, np.float32).astype(np.float16)
            wide = features[bag_id].astype(np.float32)
            torch.save(torch.from_numpy(wide), folder / f"{bag_id}.pt")
            with h5py.File(folder / f"{bag_id}.h5", "w") as file:
                file.create_dataset("features", data=wide)  # contiguous: what reads fastest
        source = _Source(features)
        wanted = [Wanted(bag_id, source, bag_id) for bag_id in features]
        pack = build_pack(wanted, PackConfig(folder=str(folder / "packs")))
        yield TrainingCohort(size, tuple(bags), pack, folder)


class _Source:
    """Features in memory."""

    root = "memory"

    def __init__(self, features: dict[str, npt.NDArray[np.float16]]) -> None:
        self._features = features

    def slide_ids(self) -> list[str]:
        return sorted(self._features)

    def read(self, slide_id: str) -> npt.NDArray[np.float16]:
        return self._features[slide_id]

    def identity(self) -> str:
        return "0" * 16

    def provenance(self) -> dict[str, Any]:
        return {"root": self.root}
