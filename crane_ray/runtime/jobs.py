"""The configs of the jobs: what a command line, a YAML file or a submitted job may say.

Imports no ray, so that ``crane-ray VERB --help`` answers at once.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.features.encoder import EncoderConfig
from crane_ray.features.recipe import FeatureType
from crane_ray.logs import LogLevel
from crane_ray.plugins import file_name
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patches import PatchSpec
from crane_ray.slides.staging import StagingConfig


class ClusterConfig(Config):
    """Where a job runs."""

    address: Annotated[str | None, Flag("--address", metavar="HOST:PORT")] = None
    """Ray cluster to use (HOST:6379, auto); without it a local Ray starts and stops with the
    command."""
    num_cpus: Annotated[int | None, Flag("--cpus")] = Field(None, ge=1)
    """CPUs of the local Ray; all of this machine where not given."""
    num_gpus: int | None = Field(None, ge=0)
    """GPUs of the local Ray; all of this machine where not given."""
    object_store_mb: int = Field(256, ge=80)
    """Shared memory of the local Ray's object store; weights and small tables pass through it."""
    log_format: Annotated[Literal["text", "json"], Flag("--log-format")] = "text"
    """What the command says, and its workers' logs: text, or json: a line a record, each with the
    run and the slide that it is about."""
    log_level: LogLevel = "info"
    """Records below it are left out of the logs in json: debug, info, warning, error."""


class JobConfig(Config):
    """What every job has that opens the slides of a cohort."""

    work: Annotated[str, Flag("--work", metavar="FOLDER")]
    """Folder (or URI) of the cohort's workspace; results are written there."""
    max_failures: Annotated[int, Flag("--max-failures")] = Field(0, ge=0)
    """Slides that may fail before the exit status says so."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the job runs."""
    reader: Annotated[str, Flag("--reader")] = "auto"
    """Reader of slides: auto (tiff where it gives OpenSlide's pixels, else openslide), openslide,
    tiff, or the dotted path of a module of your own."""
    staging: StagingConfig = StagingConfig()
    """How slides of object storage or slow mounts are brought to the nodes."""

    @field_validator("work")
    @classmethod
    def _absolute_work(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a folder is needed")
        return storage.absolute(value)


class SlidesConfig(Config):
    """Which slides a cohort has."""

    source: Annotated[str, Flag("--slides", metavar="WHERE")]
    """Folder of slides, glob in quotes, or CSV/Parquet table (uri, slide_id, case_id, mpp)."""
    recursive: Annotated[bool, Flag("--recursive")] = False
    """Look into sub-folders, too."""

    @field_validator("source")
    @classmethod
    def _absolute_source(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a folder, glob or table is needed")
        return storage.absolute(value)


class PatchJob(JobConfig):
    """Find tissue on slides and place patches on it."""

    slides: SlidesConfig
    """Which slides."""
    patch: PatchSpec = PatchSpec()
    """What a patch is."""
    tissue: TissueParams = TissueParams()
    """How tissue is found, and which patches belong to it."""
    segmenter: str = "saturation"
    """Segmenter: saturation (CLAM's), or the dotted path of a module of your own."""
    contours: Annotated[str | None, Flag("--contours", metavar="FOLDER")] = None
    """Folder of edited {slide_id}.geojson files to use in place of the segmentation."""
    process_list: Annotated[str | None, Flag("--process-list", metavar="CSV")] = None
    """CLAM's process list: only its slides, each with the parameters of its row."""
    seg_only: Annotated[bool, Flag("--seg-only")] = False
    """A first look: contours, mask pictures and table, no patches."""
    pictures: Annotated[bool, Flag("--pictures")] = True
    """Draw mask and stitch pictures."""
    overwrite: Annotated[bool, Flag("--overwrite")] = False
    """Do slides again that are done with the same parameters."""

    @field_validator("contours", "process_list")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)


class ActorConfig(Config):
    """How encoder actors share a cluster; each opens slides, decodes, encodes and writes."""

    count: Annotated[int | None, Flag("--actors")] = Field(None, ge=1)
    """Number of actors; one a GPU, or as many as the CPUs carry, where not given."""
    gpus: float | None = Field(None, ge=0, le=1)
    """GPUs an actor; 1 where the cluster has GPUs, else 0."""
    cpus: int | None = Field(None, ge=1)
    """CPUs an actor, for decoding (and encoding, without GPU); shared out where not given."""
    memory_gb: float | None = Field(None, gt=0)
    """Memory that Ray reserves for an actor."""


class ExtractJob(JobConfig):
    """Turn the patches of a workspace into features."""

    encoder: EncoderConfig = EncoderConfig()
    """The encoder, or what several of them share."""
    encoders: Annotated[
        tuple[str | EncoderConfig, ...], Flag("--encoder", metavar="NAME", repeated=True)
    ] = ()
    """Encoder: resnet50_trunc (the default), uni_v1, uni2_h, conch_v1, conch_v1_5, virchow2,
    gigapath, h_optimus_0, phikon_v2, timm:NAME, or the dotted path of a module of your own; given
    several times, slides are read once for all of them."""
    store: Annotated[str | None, Flag("--store", metavar="FOLDER")] = None
    """Folder of the feature store; WORK/features/ENCODER where not given."""
    layout: Annotated[str, Flag("--layout")] = "zarr"
    """Layout of a new store's arrays: zarr, parquet, or the dotted path of a module of your own."""
    dtype: Annotated[FeatureType | None, Flag("--dtype")] = None
    """Type of stored features: float16, or float32 (the default with fp32 precision)."""
    clam: Annotated[str | None, Flag("--clam", metavar="FOLDER")] = None
    """Folder (or URI) for CLAM's h5_files/ and pt_files/ of each slide as soon as it is whole; of
    several encoders, a folder each below it."""
    replace_stale: Annotated[bool, Flag("--replace-stale")] = False
    """Extract slides again whose patches changed since; else they are recorded failures."""
    actors: ActorConfig = ActorConfig()
    """How actors share the cluster."""

    @field_validator("store", "clam")
    @classmethod
    def _absolute_folders(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)

    @property
    def clam_folders(self) -> tuple[str, ...]:
        """Where CLAM's files of each encoder go; none where they are not asked for."""
        if self.clam is None:
            return ()
        if len(self.encoder_configs) == 1:
            return (self.clam,)
        return tuple(storage.join(self.clam, file_name(one.name)) for one in self.encoder_configs)

    @model_validator(mode="before")
    @classmethod
    def _share_settings(cls, data: Any) -> Any:
        """Fills in what encoders share; before anything is written, so that it reads back alike."""
        if not isinstance(data, dict) or not isinstance(data.get("encoder"), dict):
            return data
        encoders = [
            {**data["encoder"], **one} if isinstance(one, dict) else one
            for one in data.get("encoders") or ()
        ]
        return {**data, "encoders": encoders} if encoders else data

    @property
    def encoder_configs(self) -> tuple[EncoderConfig, ...]:
        """Each encoder of the run: those named, with what they share filled in."""
        return tuple(
            self.encoder.model_copy(update={"name": one}) if isinstance(one, str) else one
            for one in self.encoders or (self.encoder,)
        )

    @property
    def store_roots(self) -> tuple[str, ...]:
        """Where the store of each encoder is."""
        folder = storage.join(self.work, "features")
        names = (storage.join(folder, file_name(one.name)) for one in self.encoder_configs)
        return (self.store,) if self.store else tuple(names)

    @model_validator(mode="after")
    def _fits_several(self) -> "ExtractJob":
        roots = self.store_roots
        if len(self.encoders) > 1 and self.store:
            raise ValueError(
                "store (--store) names one store; the features of several encoders go to "
                "WORK/features/ENCODER each: leave it out, or run once an encoder"
            )
        if len(set(roots)) < len(roots):
            raise ValueError(f"encoders: two of them share a store: {', '.join(roots)}")
        if any(one.batch_size != self.encoder.batch_size for one in self.encoder_configs):
            raise ValueError(
                "encoders: one batch of patches is encoded by all of them; give encoder.batch_size "
                "(--batch-size) in place of their own"
            )
        shared = self.encoder.weights
        if len(self.encoders) > 1 and shared not in {None, "random"}:
            raise ValueError(
                f"encoder.weights (--weights) {shared!r} cannot fit several encoders; give each "
                "its own in the config: encoders: [{name: uni_v1, weights: FILE}, ...]"
            )
        return self


class VerifyJob(Config):
    """Read a feature store back against its checksums."""

    store: Annotated[str, Flag("--store", metavar="FOLDER")]
    """Folder of the feature store."""
    repair: Annotated[bool, Flag("--repair")] = False
    """Take damaged slides out of the store, so that the next extract makes them again."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the job runs."""

    @field_validator("store")
    @classmethod
    def _absolute_store(cls, value: str) -> str:
        return storage.absolute(value)
