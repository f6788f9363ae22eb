"""The config of an assessment: cases of features, or slides from which features are yet to be made.

Imports no ray, so that ``crane-ray assess --help`` answers at once.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.features.encoder import absolute_weights
from crane_ray.mil.configs import PackConfig
from crane_ray.runtime.jobs import ActorConfig, ClusterConfig, SlidesConfig
from crane_ray.slides.params import TissueParams
from crane_ray.slides.staging import StagingConfig


class AskedPatch(Config):
    """A kind of patch that is asked for by name; what is left out is as the model has it."""

    size_px: Annotated[int | None, Flag("--patch-size")] = Field(None, ge=8, le=8192)
    """With --slides: width and height of a patch in pixels; the model's own where not given."""
    mpp: Annotated[float | None, Flag("--mpp")] = Field(None, ge=0.05, le=20)
    """With --slides: resolution of a patch, um/px; the model's own where not given."""
    level: Annotated[int | None, Flag("--patch-level")] = Field(None, ge=0)
    """With --slides: pyramid level of a patch; the model's own where not given."""
    step_px: Annotated[int | None, Flag("--step-size")] = Field(None, ge=1)
    """With --slides: distance of neighbouring patches in patch pixels; the model's own where not
    given."""
    custom_downsample: int | None = Field(None, ge=1, le=16)
    """Factor by which larger patches are shrunk; the model's own where not given."""

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if self.mpp is not None and self.level is not None:
            raise ValueError(
                f"--mpp {self.mpp:g} and --patch-level {self.level} are two scales; give one"
            )
        return self


class AskedEncoder(Config):
    """An encoder that is asked for by name; what is left out is as the model has it."""

    name: Annotated[str | None, Flag("--encoder", metavar="NAME")] = None
    """With --slides: the encoder; the model's own where not given. A published checkpoint needs
    it, for it does not say."""
    weights: Annotated[str | None, Flag("--weights")] = None
    """With --slides: where the encoder's weights are (see extract); they must be the ones that the
    model was trained with, by their SHA-256."""
    input_size: Annotated[int | Literal["patch"] | None, Flag("--input-size")] = None
    """With --slides: pixels that patches are resized to; the model's own where not given."""
    precision: Annotated[Literal["fp32", "bf16", "fp16"] | None, Flag("--precision")] = None
    """With --slides: arithmetic of the encoder; the model's own where not given."""
    dtype: Literal["float16", "float32"] | None = None
    """Type of stored features; the model's own where not given."""
    batch_size: Annotated[int | None, Flag("--batch-size")] = Field(None, ge=1, le=65536)
    """With --slides: patches a batch; 256 on a GPU and 32 on CPUs where not given."""

    @field_validator("weights")
    @classmethod
    def _absolute_file(cls, value: str | None) -> str | None:
        return None if value is None else absolute_weights(value)


class AssessJob(Config):
    """Diagnose the cases of a cohort with trained networks."""

    model: Annotated[str, Flag("--model", metavar="RUN")]
    """Folder of a run whose networks assess (cardiac-mtl), or a checkpoint."""
    grade_model: Annotated[str | None, Flag("--grade-model", metavar="RUN")] = None
    """Folder of a run whose networks grade the cases that have a finding, or a checkpoint."""
    slides: SlidesConfig | None = None
    """Slides to patch, extract and assess; or else cases and features."""
    work: Annotated[str | None, Flag("--work", metavar="FOLDER")] = None
    """With --slides: folder (or URI) of their workspace; what is there of the same kind is used."""
    cases: Annotated[str | None, Flag("--cases", metavar="TABLE")] = None
    """With --features: CSV or Parquet table with case_id and slide_id; labels are not needed."""
    features: Annotated[str | None, Flag("--features", metavar="FOLDER")] = None
    """Feature store, or folder with CLAM's h5_files or pt_files, in place of --slides."""
    level: Annotated[Literal["slide", "case"], Flag("--bag-level")] = "case"
    """A case's slides as one bag (case), or each by itself and the mean of them (slide)."""
    pack: PackConfig = PackConfig()
    """Where each node keeps the features while it predicts."""
    thresholds: dict[str, float] = Field(default_factory=dict)
    """By task of two classes: the probability from which the second is decided; the more probable
    class is where not given."""
    out: Annotated[str | None, Flag("--out", metavar="FOLDER")] = None
    """Folder (or URI) for assessment.parquet and assessment.csv; WORK/assessment with --slides,
    else assessment, where not given."""
    graded_findings: tuple[str, ...] = ("cell", "amr")
    """Tasks whose finding calls for a grade."""
    overwrite: Annotated[bool, Flag("--overwrite")] = False
    """Write in place of an assessment that is there."""
    patch: AskedPatch = AskedPatch()
    """With slides: what a patch is."""
    encoder: AskedEncoder = AskedEncoder()
    """With slides: what turns patches into features."""
    tissue: TissueParams | None = None
    """With slides: how tissue is found; where not given as in WORK's last patching, else as for
    the slides that the model was trained on if their workspace is still there, else default."""
    segmenter: str | None = None
    """With slides: the segmenter; where not given as the tissue's parameters are."""
    pictures: Annotated[bool, Flag("--pictures")] = True
    """With --slides: draw mask and stitch pictures."""
    maps: Annotated[bool, Flag("--maps")] = True
    """With --slides: make attention maps of every head."""
    replace_stale: Annotated[bool, Flag("--replace-stale")] = False
    """With --slides: extract slides again whose patches changed since; else they are left out."""
    reader: Annotated[str, Flag("--reader")] = "auto"
    """With --slides: reader of slides: auto, openslide, tiff, or a module of your own."""
    staging: StagingConfig = StagingConfig()
    """How slides of object storage or slow mounts are brought to the nodes."""
    actors: ActorConfig = ActorConfig()
    """How encoder actors share the cluster."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the job runs."""

    @field_validator("model", "grade_model", "cases", "features", "work", "out")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("a path is needed")
        return None if value is None else storage.absolute(value)

    @field_validator("out")
    @classmethod
    def _usual_folder(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Said here, where the command was typed: a submitted job has another directory."""
        beside = info.data.get("work") is not None
        return value if value is not None or beside else storage.absolute("assessment")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        """Features of cases, or slides: what belongs to the other way would be of no effect."""
        if self.slides is not None:
            given = [name for name in ("cases", "features") if getattr(self, name) is not None]
            if given:
                raise ValueError(
                    f"--slides and --{given[0]} are two ways: --slides and --work make features of "
                    "slides (whose each is stands in the column case_id of a slide table), "
                    "--features and --cases take those that are there; give one of the two"
                )
            if self.work is None:
                raise ValueError(
                    "--slides needs --work FOLDER, for their patches, features and results"
                )
            return self
        if self.features is None or self.cases is None:
            raise ValueError(
                "give --slides WHERE and --work FOLDER to begin with slides, or --features FOLDER "
                "and --cases TABLE to begin with features that are there"
            )
        idle = self._of_no_effect()
        if idle:
            raise ValueError(
                f"{', '.join(idle)}: of no effect with --features, which are made already; leave "
                "it out, or give --slides"
            )
        return self

    def _of_no_effect(self) -> list[str]:
        """The options for slides that are given without any."""
        given = ["--work"] if self.work is not None else []
        for name in ("patch", "encoder"):
            group = getattr(self, name)
            given += [f"{name}.{key}" for key, value in group if value is not None]
        return given + [name for name in ("tissue", "segmenter") if getattr(self, name) is not None]

    @property
    def folder(self) -> str:
        """Where the results go."""
        if self.out is not None:
            return self.out
        assert self.work is not None
        return storage.join(self.work, "assessment")
