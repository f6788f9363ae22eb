"""The config of a search: that of a training, and what varies in it.

Imports no ray, so that ``crane-ray tune --help`` answers at once.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.search.space import Space, value_at

SEARCHABLE = ("model.", "training.", "bags.features", "bags.level")
"""Beginnings of the settings that a search may vary."""
LIVE = (
    "training.optim.lr", "training.optim.weight_decay", "training.optim.momentum",
    "training.bag_loss", "training.class_weights", "training.max_patches", "model.dropout",
    "model.instances.num_patches", "model.instances.loss", "model.instances.weight",
)  # fmt: skip
"""Settings that a network in training can change, as population based training does."""


class SearchConfig(Config):
    """Which settings are tried."""

    searcher: Annotated[Literal["optuna", "random", "grid"] | None, Flag("--searcher")] = None
    """optuna (tree-structured Parzen estimator), random, or grid (every combination of choices);
    optuna where not given, random with pbt."""
    trials: Annotated[int | None, Flag("--trials")] = Field(None, ge=1)
    """Trials; 20 where not given, and all combinations of a grid."""
    seed: int = Field(1, ge=0)
    """Seed of the searcher; training has its own."""
    baseline: bool = True
    """Begin with the config as it is, where the space holds it."""
    max_concurrent: Annotated[int | None, Flag("--max-concurrent")] = Field(None, ge=1)
    """Trials at a time; as many as the cluster has room for where not given."""


class SchedulerConfig(Config):
    """Which trials go on."""

    name: Annotated[Literal["none", "asha", "pbt"], Flag("--scheduler")] = "none"
    """none; asha (stops those that are behind); pbt (those behind go on with the weights of those
    ahead, and other settings)."""
    grace_epochs: int = Field(5, ge=1)
    """Epochs that asha gives each trial."""
    reduction_factor: float = Field(3.0, gt=1)
    """Of the trials that reach a rung, asha lets one in so many go on."""
    interval_epochs: int = Field(5, ge=1)
    """Epochs between the exchanges of pbt."""


class ObjectiveConfig(Config):
    """What a trial is judged by. Test parts are never read."""

    metric: Annotated[str, Flag("--metric")] = "auc"
    """Of the val part, by the network that training would keep: loss, auc, balanced_accuracy,
    accuracy, f1_macro, kappa, average_precision, brier, log_loss or ece."""
    task: str | None = None
    """Task to judge by; the mean over tasks where not given."""
    inner_folds: Annotated[int | None, Flag("--inner-folds", metavar="K")] = Field(None, ge=2)
    """Judge by the mean over so many folds, drawn by patient from train and val of the fold; by
    its own val part where not given."""


class TuneJob(TrainJob):
    """Search the settings of a training."""

    space: Annotated[str | dict[str, Any], Flag("--space", metavar="NAME")]
    """Search space: cardiac-mtl, cardiac-grade, your own YAML file, or the mapping itself."""
    search: SearchConfig = SearchConfig()
    """Which settings are tried."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """Which trials go on."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """What a trial is judged by."""
    nested: Annotated[bool, Flag("--nested")] = False
    """Search in each fold by inner folds, train the best settings on the fold, and report its
    test part."""
    keep: Annotated[int, Flag("--keep")] = Field(5, ge=1)
    """How many of the best configs are written."""

    @field_validator("space")
    @classmethod
    def _absolute_space(cls, value: str | dict[str, Any]) -> str | dict[str, Any]:
        if isinstance(value, str) and value.endswith((".yaml", ".yml")):
            return storage.absolute(value)
        return value

    @model_validator(mode="after")
    def _search_fits(self) -> Self:
        if self.scheduler.name == "pbt" and self.workers.count > 1:
            raise ValueError(
                f"--scheduler pbt with --workers {self.workers.count}: a trial of several workers "
                "cannot take over another one's weights; give --workers 1, or --scheduler asha"
            )
        if self.scheduler.name == "pbt" and self.searcher != "random":
            raise ValueError(
                f"--scheduler pbt with --searcher {self.searcher}: it changes settings as trials "
                "go, from random ones on; leave --searcher out"
            )
        if self.nested and self.objective.inner_folds is None:
            raise ValueError("--nested searches by inner folds; give --inner-folds K, such as 3")
        if self.grouped_folds:
            raise ValueError("--grouped-folds: a search trains each trial by itself; leave it out")
        if self.seeds > 1:
            raise ValueError(
                f"--seeds {self.seeds}: a search trains with one seed; leave it out, or put "
                "training.seed into the space"
            )
        return self

    @property
    def searcher(self) -> str:
        """Which one looks for settings."""
        return self.search.searcher or ("random" if self.scheduler.name == "pbt" else "optuna")

    @property
    def num_trials(self) -> int:
        """Of a search that is no grid."""
        return self.search.trials or 20

    def baseline(self, space: Space) -> dict[str, Any] | None:
        """The settings that the config has itself; None where the space does not hold them."""
        tree = self.training_tree()
        values = {path: value_at(tree, path) for path in space.domains}
        return values if space.holds(values) else None

    def training_tree(self) -> dict[str, Any]:
        """The settings of the training alone."""
        own = set(TuneJob.model_fields) - set(TrainJob.model_fields)
        return self.model_dump(mode="json", exclude=own)
