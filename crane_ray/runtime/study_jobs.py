"""The configs of the jobs that train and judge networks.

Imports no ray, so that ``crane-ray train --help`` answers at once.
"""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.mil.configs import ExperimentConfig, ModelConfig, PackConfig, TrainingConfig
from crane_ray.runtime.jobs import ClusterConfig

FOLDS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*")


def fold_numbers(text: str | None) -> list[int] | None:
    """The folds of ``0-4`` or ``0,3,7``; None of None.

    Raises:
        ValueError: it is no such text, or a range runs backwards.
    """
    if text is None:
        return None
    if not FOLDS.fullmatch(text):
        raise ValueError("write folds as 0-4 or 0,3,7")
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        own = range(int(first), int(last or first) + 1)
        if not own:
            raise ValueError(f"{part} runs backwards; write {last}-{first}")
        numbers.update(own)
    return sorted(numbers)


def _as_text(value: object) -> object:
    """One fold is a number to YAML."""
    return str(value) if isinstance(value, int) else value


def _checked(text: str | None) -> str | None:
    fold_numbers(text)
    return text


FoldNumbers = Annotated[
    str | None,
    BeforeValidator(_as_text),
    AfterValidator(_checked),
    Flag("--folds", metavar="0-9"),
]
"""``0-4``, ``0,3,7``."""


class BagsConfig(Config):
    """What a study's bags are, and where their features and labels lie."""

    labels: Annotated[str, Flag("--labels", metavar="TABLE")]
    """CSV or Parquet table of diagnoses: case_id, slide_id, and the tasks' columns."""
    features: Annotated[str | None, Flag("--features", metavar="FOLDER")] = None
    """Feature store (WORK/features/ENCODER), or folder with CLAM's h5_files or pt_files."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Features by the table's source column, where a study has several folders."""
    level: Annotated[Literal["slide", "case"], Flag("--bag-level")] = "slide"
    """A bag is a slide, or all slides of a case together."""
    normalise_labels: Annotated[bool, Flag("--normalise-labels")] = False
    """Accept labels that differ in case, spaces, dashes or underscores only, and say which."""
    pack: PackConfig = PackConfig()
    """Where each node keeps the features while it trains."""

    @field_validator("labels", "features")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("a path is needed")
        return None if value is None else storage.absolute(value)

    @field_validator("sources")
    @classmethod
    def _absolute_sources(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: storage.absolute(path) for name, path in value.items()}

    @model_validator(mode="after")
    def _features_are_given(self) -> Self:
        if (self.features is None) == (not self.sources):
            raise ValueError(
                "give --features FOLDER, or bags.sources with a folder for each value of the "
                "table's source column; one of the two"
            )
        return self


class WorkersConfig(Config):
    """How the training of a fold shares a cluster."""

    count: Annotated[int, Flag("--workers")] = Field(1, ge=1)
    """Workers that train a fold together, data parallel over the bags of a step."""
    min_count: int | None = Field(None, ge=1)
    """Workers to go on with when nodes are lost (elastic); all of them where not given."""
    cpus: int | None = Field(None, ge=1)
    """CPUs of a worker; shared out where not given."""
    gpus: Annotated[float | None, Flag("--gpus-per-fold")] = Field(None, ge=0)
    """GPUs of a worker, a fraction for several folds on one; where not given a quarter (one, of
    several workers) if the cluster has GPUs, else none."""
    max_failures: int = Field(3, ge=0)
    """Times that a fold goes on from its last checkpoint after its worker died."""

    @model_validator(mode="after")
    def _range_fits(self) -> Self:
        if self.min_count is not None and self.min_count > self.count:
            raise ValueError(f"min_count {self.min_count} is more than count {self.count}")
        return self


class TrackingConfig(Config):
    """Where the course of a training is written besides the run's folder."""

    tensorboard: Annotated[bool, Flag("--tensorboard")] = True
    """TensorBoard events below the run's folder, one folder a fold."""
    wandb: str | None = None
    """Weights & Biases project; its package must be installed."""
    mlflow: str | None = None
    """MLflow tracking URI; its package must be installed."""


class TrainJob(Config):
    """Train networks on the folds of a cohort."""

    task: Annotated[str, Flag("--task", metavar="NAME")]
    """Task set: cardiac-mtl, cardiac-grade, task_1_tumor_vs_normal, task_2_tumor_subtyping, or
    your own YAML file."""
    bags: BagsConfig
    """Labels and features."""
    splits: Annotated[str, Flag("--splits", metavar="FOLDER")]
    """Folder with splits_0.csv, splits_1.csv, ... (crane-ray splits makes them)."""
    results: Annotated[str, Flag("--results", metavar="FOLDER")] = "results"
    """Folder (or URI) for runs; each is a folder EXP_CODE_sSEED in it."""
    exp_code: Annotated[str | None, Flag("--exp-code")] = Field(None, pattern=r"^[\w.-]+$")
    """Name of the run; the task set's where not given."""
    folds: FoldNumbers = None
    """Just these folds (0-4, or 0,3,7); all that have a split file where not given."""
    seeds: Annotated[int, Flag("--seeds")] = Field(1, ge=1)
    """Runs with so many seeds, from training.seed on: other weights, the same order of bags."""
    model: ModelConfig = ModelConfig()
    """The network."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained."""
    grouped_folds: Annotated[bool, Flag("--grouped-folds")] = False
    """Train all folds and seeds together on one device; pays on GPUs."""
    predict_train: bool = False
    """Keep predictions of the training parts, too."""
    resume: Annotated[bool, Flag("--resume")] = False
    """Go on with a run that was interrupted; finished folds are not repeated."""
    overwrite: Annotated[bool, Flag("--overwrite")] = False
    """Begin a run anew that is there already."""
    checkpoint_every_s: float = Field(20.0, ge=0)
    """Seconds between a fold's checkpoints; an interrupted fold repeats so much at most."""
    by: Annotated[tuple[str, ...], Flag("--by", metavar="COLUMN", repeated=True)] = ()
    """Columns of the label table to give metrics by (site, scanner)."""
    report: Annotated[bool, Flag("--report")] = True
    """Write report.html, a page with all of a run's results, into its folder."""
    workers: WorkersConfig = WorkersConfig()
    """How a fold shares the cluster."""
    tracking: TrackingConfig = TrackingConfig()
    """Where the course of the training is written."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the job runs."""

    @field_validator("splits", "results")
    @classmethod
    def _absolute_paths(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a folder is needed")
        return storage.absolute(value)

    @field_validator("task")
    @classmethod
    def _absolute_task(cls, value: str) -> str:
        return storage.absolute(value) if value.endswith((".yaml", ".yml")) else value

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with a run, --overwrite begins it anew: give one")
        if self.grouped_folds and self.workers.count > 1:
            raise ValueError(
                f"--grouped-folds trains on one device, --workers {self.workers.count} on several: "
                "give one"
            )
        bags = self.training.bags_per_step or 1
        if self.grouped_folds and bags > 1:
            raise ValueError(
                f"--grouped-folds takes one bag a step, --bags-per-step {bags} several: give one"
            )
        if self.training.bags_per_step and bags < self.workers.count:
            raise ValueError(
                f"--bags-per-step {bags}: {self.workers.count} workers need at least one bag each "
                "in a step; raise it, or lower --workers"
            )
        return self

    @property
    def experiment(self) -> ExperimentConfig:
        """What weights are a function of, besides the data."""
        bags = self.training.bags_per_step or self.workers.count
        training = self.training.model_copy(update={"bags_per_step": bags})
        return ExperimentConfig(model=self.model, training=training)

    def fold_numbers(self) -> list[int] | None:
        """The folds asked for; None for all."""
        return fold_numbers(self.folds)
