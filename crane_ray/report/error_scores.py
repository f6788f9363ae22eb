"""The attention of the networks that erred: computed anew from features, or from maps made before.

Shapes: N patches, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from crane_ray import storage
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.errors import ConfigError, SlideError, StoreError
from crane_ray.features.store import FeatureStore, StoreReader
from crane_ray.maps.attending import attend
from crane_ray.maps.folder import MapsFolder
from crane_ray.maps.percentiles import percentiles
from crane_ray.maps.scores import SlideScores, read_scores
from crane_ray.mil.checkpoints import Checkpoint, load_checkpoint
from crane_ray.report.mistakes import Mistake
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.workspace import Workspace

TOLERANCE = 0.02
"""Between a probability now and that of the run: bf16 on another device, not another network."""


@dataclass(frozen=True, eq=False)
class Scored:
    """The attention on a slide with an error."""

    scores: SlideScores
    head: str
    """That decided, or would have."""
    whose: str
    """Which networks'."""


@dataclass(frozen=True)
class SlideFacts:
    """What is known of an error's slide."""

    dimensions: tuple[int, int]
    """Width and height at level 0, px."""
    mpp: float | None
    """um/px at level 0."""


class ScoreSource(Protocol):
    """Where attention comes from."""

    def scores(self, error: Mistake, work: Workspace, slide: SlideFacts) -> Scored:
        """The attention on an error's slide.

        Raises:
            CraneError: there is none.
        """
        ...


def head_for(heads: Sequence[str], error: Mistake) -> str:
    """The head of an error's task: of the class that was predicted, where each has its own.

    Raises:
        SlideError: no head is the task's.
    """
    for name in (error.task, f"{error.task}:{error.predicted}"):
        if name in heads:
            return name
    if len(heads) == 1:
        return heads[0]
    raise SlideError(f"the network has no head for task {error.task}: {', '.join(heads)}")


@dataclass
class StoreScores:
    """Attention of the very network that erred, from a feature store."""

    root: str
    """Of the store."""
    checkpoints: Mapping[int, str]
    """Of each fold."""
    _networks: dict[int, Checkpoint] = field(default_factory=dict)

    @cached_property
    def _opened(self) -> tuple[StoreReader, dict[str, str]]:
        reader = FeatureStore.open(self.root).reader()
        return reader, {bare_slide_id(name): name for name in reader.slide_ids()}

    def scores(self, error: Mistake, work: Workspace, slide: SlideFacts) -> Scored:
        """See `ScoreSource`; the network must say what it said in the run."""
        reader, names = self._opened
        if error.slide_id not in names:
            raise StoreError(f"store {self.root}: slide {error.slide_id} is not there any more")
        features = reader.read(names[error.slide_id])
        network = self._network(error.fold)
        found = attend([network], features.features)
        self._require_same(error, network, found.probabilities)
        grid = read_patches(work.patches(error.slide_id), error.slide_id)
        ranked_HN = np.stack([percentiles(raw_N) for raw_N in found.raw_HN])
        scores = SlideScores(
            slide_id=error.slide_id,
            heads=found.heads,
            xy=features.xy,
            raw_HN=found.raw_HN,
            percentile_HN=ranked_HN.astype(np.float32),
            footprint_px=float(grid.geometry.footprint_xy[0]),
            dimensions=slide.dimensions,
            mpp=slide.mpp,
        )
        return Scored(scores, head_for(found.heads, error), f"network of fold {error.fold}")

    def _network(self, fold: int) -> Checkpoint:
        if fold not in self._networks:
            path = self.checkpoints.get(fold)
            if path is None or not storage.exists(path):
                raise ConfigError(f"the network of fold {fold} is not there: {path or 'unknown'}")
            self._networks[fold] = load_checkpoint(path)
        return self._networks[fold]

    def _require_same(self, error: Mistake, network: Checkpoint, found: Mapping[str, Any]) -> None:
        """Refuses to show what another network, or other features, would have looked at."""
        task = next((one for one in network.tasks if one.name == error.task), None)
        if task is None or error.predicted not in task.classes:
            return  # a published state dict, whose heads and classes have no names
        now = float(found[error.task][task.classes.index(error.predicted)])
        if abs(now - error.probability) > TOLERANCE:
            raise SlideError(
                f"its network gives {now:.3f} for {error.predicted} now, and gave "
                f"{error.probability:.3f} in the run: features or checkpoint have changed since"
            )


@dataclass(frozen=True)
class MapScores:
    """Attention in a folder that crane-ray heatmap made."""

    folder: MapsFolder

    def scores(self, error: Mistake, work: Workspace, slide: SlideFacts) -> Scored:
        """See `ScoreSource`; mostly of several folds' networks together."""
        path = self.folder.scores(error.slide_id)
        if not storage.exists(path):
            raise StoreError(f"maps {self.folder.root} have none of it")
        scores = read_scores(path)
        folds = list(self.folder.read_header().checkpoints)
        # The folder does not say of each slide whether it was mapped by --held-out.
        several = f"folds {', '.join(folds)} together, or those that the slide was held out of"
        whose = several if len(folds) > 1 else f"network of fold {', '.join(folds)}"
        return Scored(scores, head_for(scores.heads, error), whose)
