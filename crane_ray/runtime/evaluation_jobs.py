"""The config of the judgement of trained networks.

Imports no ray, so that ``crane-ray evaluate --help`` answers at once.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.runtime.study_jobs import BagsConfig, FoldNumbers, fold_numbers


class EvaluateJob(Config):
    """Judge trained networks on a part of their cohort, or on another one."""

    model: Annotated[str, Flag("--model", metavar="RUN")]
    """Folder of a run (RESULTS/EXP_CODE_sSEED, also one of CLAM's or CRANE's), or a checkpoint."""
    bags: BagsConfig
    """Labels and features."""
    task: Annotated[str | None, Flag("--task", metavar="NAME")] = None
    """Task set of the labels; what the checkpoints say where not given."""
    split: Annotated[Literal["train", "val", "test", "all", "external"], Flag("--split")] = "test"
    """Part of the splits to judge on; all of a cohort's slides with external."""
    splits: Annotated[str | None, Flag("--splits", metavar="FOLDER")] = None
    """Folder with splits_0.csv, ...; those in the run's folder where not given."""
    folds: FoldNumbers = None
    """Just these folds (0-4, or 0,3,7); all of the run where not given."""
    ensemble: Annotated[bool, Flag("--ensemble")] = False
    """Judge the mean of the folds' probabilities, too; for a part that is the same in all."""
    by: Annotated[tuple[str, ...], Flag("--by", metavar="COLUMN", repeated=True)] = ()
    """Columns of the label table to give metrics by (site, scanner)."""
    thresholds: dict[str, float] = Field(default_factory=dict)
    """By task of two classes: report sensitivity and specificity at this probability, too."""
    num_replicates: int = Field(1000, ge=0)
    """Bootstrap replicates of the intervals; 0 for none."""
    results: Annotated[str, Flag("--results", metavar="FOLDER")] = "eval_results"
    """Folder (or URI) for results; each is a folder EVAL_CODE in it."""
    eval_code: Annotated[str | None, Flag("--eval-code")] = Field(None, pattern=r"^[\w.-]+$")
    """Name of the evaluation; the run's and the split's where not given."""
    overwrite: Annotated[bool, Flag("--overwrite")] = False
    """Write in place of an evaluation of that name."""
    report: Annotated[bool, Flag("--report")] = True
    """Write report.html, a page with all of the results, beside them."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the job runs."""

    @field_validator("task")
    @classmethod
    def _absolute_task(cls, value: str | None) -> str | None:
        is_file = value is not None and value.endswith((".yaml", ".yml"))
        return storage.absolute(value) if value is not None and is_file else value

    @field_validator("model", "results", "splits")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)

    def fold_numbers(self) -> list[int] | None:
        """The folds asked for; None for all."""
        return fold_numbers(self.folds)
