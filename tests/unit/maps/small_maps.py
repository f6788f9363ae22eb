"""A workspace of two slides with features, and a run of two networks that take them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.features.ledger import IndexRow
from crane_ray.features.store import FeatureStore, SlideHeader, checksum_of
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.mil.checkpoints import save_checkpoint
from crane_ray.mil.configs import ModelConfig
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.workspace import Workspace
from tests.unit.features.small_store import (
    CHUNK_ROWS,
    NUM_PATCHES,
    SIDE_PX,
    make_cohort,
    make_store,
)

DIM = 12
TASKS = (
    TaskSpec(name="cell", column="label_cell", classes=("no", "yes")),
    TaskSpec(name="amr", column="label_amr", classes=("no", "yes")),
)
MODEL = ModelConfig(hidden_dim=8, attention_dim=4, dropout=0)
Features = npt.NDArray[np.float32]


@dataclass(frozen=True)
class SmallMaps:
    """Where everything lies."""

    work: Path
    run: Path
    features: dict[str, Features]

    @property
    def workspace(self) -> Workspace:
        return Workspace(str(self.work))

    @property
    def store(self) -> Path:
        return self.work / "features" / "quadrants"

    def job(self, **settings: Any) -> HeatmapJob:
        """A job on it; keys of settings have a double underscore for a dot."""
        given = {key.replace("__", "."): value for key, value in settings.items()}
        return HeatmapJob.load(
            None, {"work": str(self.work), "model": str(self.run), **given}.items()
        )


def make_small_maps(root: Path, num_slides: int = 2) -> SmallMaps:
    """Slides a, b, ... of 512 px with 21 patches each, of which none but the last row is equal."""
    cohort = make_cohort(root / "work", num_slides)
    for slide_id, row in cohort.rows.items():
        cohort.rows[slide_id] = replace(row, width_px=SIDE_PX, height_px=SIDE_PX)
    cohort.workspace.write_slides(cohort.rows.values())
    features = {
        slide_id: np.random.default_rng(ord(slide_id)).normal(size=(NUM_PATCHES, DIM))
        for slide_id in cohort.rows
    }
    made = SmallMaps(
        root / "work", root / "run_s1", {one: x.astype(np.float32) for one, x in features.items()}
    )
    store = make_store(made.store)
    put_features(store, made.workspace, made.features)
    for fold in range(2):
        put_network(made.run, fold, recipe=store.header.recipe_fingerprint)
        test = "ab"[fold]
        text = f",train,val,test\n0,z,,{test}\n"
        (made.run / f"splits_{fold}.csv").write_text(text)
    return made


def put_features(
    store: FeatureStore, workspace: Workspace, features: Mapping[str, Features]
) -> None:
    """Commits slides to a store, their patches being those of the workspace."""
    rows = []
    for slide_id, values in features.items():
        xy = read_patches(workspace.patches(slide_id), slide_id).xy.astype(np.int32)
        header = SlideHeader(slide_id, len(values), DIM, "float32", CHUNK_ROWS, {})
        store.format.write(store.slide_path(slide_id), header, 0, values, xy)
        checksums = (checksum_of(values, xy),)
        rows.append(IndexRow(slide_id, "", len(values), DIM, 0.5, "coords", checksums))
    store.index.write(rows)


def put_network(run: Path, fold: int, *, recipe: str = "", dim: int = DIM, seed: int = 0) -> None:
    """A checkpoint of a fold; with a recipe it says that it was trained on it."""
    torch.manual_seed(10 * seed + fold)
    known = {"recipe_fingerprint": recipe, "recipe": {"encoder": {"name": "quadrants"}}}
    save_checkpoint(
        str(run / f"s_{fold}_checkpoint"),
        build_aggregator(MODEL, dim, TASKS),
        MODEL,
        dim=dim,
        tasks=TASKS,
        provenance={
            "fingerprint": f"network {seed} {fold}",
            "features_of": {"features": known} if recipe else {},
        },
    )
