"""The config of the job that makes attention maps.

Imports no ray, so that ``crane-ray heatmap --help`` answers at once.
"""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.features.encoder import EncoderConfig
from crane_ray.maps.folder import FOLDER_NAME
from crane_ray.maps.settings import MapSettings
from crane_ray.runtime.jobs import ActorConfig, JobConfig
from crane_ray.runtime.study_jobs import FoldNumbers, fold_numbers

DENSE = "-dense"
"""What the name of a folder of dense maps ends in."""


class DenseConfig(Config):
    """Maps finer than the patches that the diagnosis was made of."""

    overlap: Annotated[float, Flag("--overlap", metavar="SHARE")] = Field(0, ge=0, le=0.95)
    """Extract patches anew that overlap their neighbours by this share (0.5 is four times as many
    patches, 0.9 a hundred times), on the stored tissue, with the features' own encoder; 0 takes
    the stored features."""
    weights: Annotated[str | None, Flag("--weights")] = None
    """Weights of the encoder for overlapping patches: those that made the features; looked for
    where the extraction found them if not given."""
    batch_size: Annotated[int | None, Flag("--batch-size")] = Field(None, ge=1, le=65536)
    """Overlapping patches that are encoded at a time."""
    actors: ActorConfig = ActorConfig()
    """How encoder actors share the cluster."""

    @field_validator("weights")
    @classmethod
    def _absolute_file(cls, value: str | None) -> str | None:
        return EncoderConfig(weights=value).weights


class HeatmapJob(JobConfig):
    """Show what trained networks look at on slides."""

    model: Annotated[str, Flag("--model", metavar="RUN")]
    """Folder of a run (RESULTS/EXP_CODE_sSEED, also one of CLAM's or CRANE's), or a checkpoint."""
    folds: FoldNumbers = None
    """Networks of just these folds (0-4, or 0,3,7); of several a map shows the mean. All of the
    run where not given."""
    held_out: Annotated[bool, Flag("--held-out")] = False
    """Map each slide with the networks alone that did not learn from it: those of the folds whose
    test part it is in."""
    features: Annotated[str | None, Flag("--features", metavar="FOLDER")] = None
    """Feature store, or folder with CLAM's h5_files; where not given, the store of the workspace
    that the networks were trained on."""
    slides_of: Annotated[str | None, Flag("--slides-of", metavar="TABLE")] = None
    """Just the slides that a CSV or Parquet table lists in its column slide_id; all that have
    features where not given."""
    slides: Annotated[tuple[str, ...], Flag("--slide", metavar="ID", repeated=True)] = ()
    """Just this slide; may be repeated."""
    out: Annotated[str | None, Flag("--out", metavar="FOLDER")] = None
    """Folder (or URI) for the maps; WORK/heatmaps/RUN where not given, RUN-dense for dense ones."""
    overwrite: Annotated[bool, Flag("--overwrite")] = False
    """Make maps again that are there, also in place of those of other networks."""
    maps: MapSettings = MapSettings()
    """How maps look, and which files there are of each."""
    dense: DenseConfig = DenseConfig()
    """Maps of overlapping patches."""

    @field_validator("model", "features", "slides_of", "out")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("a path is needed")
        return None if value is None else storage.absolute(value)

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        if self.maps.scale == "reference" and not self.dense.overlap:
            raise ValueError(
                "maps.scale (--scale) reference ranks the patches of a dense map among those of "
                "the coarse one: give --overlap, e.g. 0.5, or take percentile"
            )
        return self

    @property
    def run_name(self) -> str:
        """What the networks are called: the run's folder, and of a checkpoint its own name."""
        name = storage.name_of(self.model)
        stem, dot, suffix = name.rpartition(".")
        if not dot or suffix not in {"pt", "pth", "safetensors"}:
            return name
        return f"{storage.name_of(self.model.rpartition('/')[0])}-{stem}"

    @property
    def folder(self) -> str:
        """Where the maps go."""
        name = self.run_name + (DENSE if self.dense.overlap else "")
        return self.out or storage.join(self.work, FOLDER_NAME, name)

    def fold_numbers(self) -> list[int] | None:
        """The folds asked for; None for all."""
        return fold_numbers(self.folds)
