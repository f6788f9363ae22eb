"""The configs of the jobs that exchange data with CLAM and TRIDENT.

Imports no ray, so that ``crane-ray export --help`` answers at once.
"""

from typing import Annotated, Any

from pydantic import Field, field_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.features.clam_files import ClamFormat
from crane_ray.features.recipe import FeatureType
from crane_ray.runtime.jobs import ClusterConfig, JobConfig, SlidesConfig
from crane_ray.slides.scale import GivenScale


def _words(value: Any) -> Any:
    """A list, as the command line writes it: words between commas."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


class ExportJob(Config):
    """Write a feature store as CLAM's files."""

    store: Annotated[str, Flag("--store", metavar="FOLDER")]
    """Folder of the feature store."""
    to: Annotated[str, Flag("--to", metavar="FOLDER")]
    """Folder (or URI) for h5_files/ and pt_files/."""
    formats: Annotated[tuple[ClamFormat, ...], Flag("--formats", metavar="h5,pt")] = ()
    """Which files: h5 (features and coordinates) or pt (features); both where not given."""
    slides: Annotated[tuple[str, ...], Flag("--slides", metavar="ID,ID,...")] = ()
    """Just these slides; all of the store where not given."""
    max_failures: Annotated[int, Flag("--max-failures")] = Field(0, ge=0)
    """Slides that may fail before the exit status says so."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the job runs."""

    _lists = field_validator("formats", "slides", mode="before")(_words)

    @field_validator("store", "to")
    @classmethod
    def _absolute_paths(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a folder is needed")
        return storage.absolute(value)


class ImportFeaturesJob(Config):
    """Take features that CLAM or TRIDENT made into a feature store."""

    source: Annotated[str, Flag("--from", metavar="FOLDER")]
    """Folder with h5_files/ or pt_files/ (CLAM), or of .h5 or .pt files (TRIDENT:
    .../features_ENCODER)."""
    store: Annotated[str, Flag("--store", metavar="FOLDER")]
    """Folder (or URI) of the feature store; made if need be."""
    encoder: Annotated[str, Flag("--encoder", metavar="NAME")] = Field(min_length=1)
    """Name of the encoder that made them, as you know it (uni_v1)."""
    scale: GivenScale = GivenScale()
    """What a patch was, where the files do not say it."""
    layout: Annotated[str, Flag("--layout", metavar="NAME")] = "zarr"
    """Layout of a new store's arrays: zarr, parquet, or the dotted path of a module of your
    own."""
    dtype: Annotated[FeatureType | None, Flag("--dtype")] = None
    """Type of stored features; what the files have where not given. Values are rounded to it only
    if it is given, and beyond its range they are an error."""
    replace_stale: Annotated[bool, Flag("--replace-stale")] = False
    """Import slides again whose files changed since; else they are recorded failures."""
    max_failures: Annotated[int, Flag("--max-failures")] = Field(0, ge=0)
    """Slides that may fail before the exit status says so."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the job runs."""

    @field_validator("source", "store")
    @classmethod
    def _absolute_paths(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a folder is needed")
        return storage.absolute(value)


class ImportCoordsJob(JobConfig):
    """Take coordinates that CLAM or TRIDENT made into a workspace."""

    source: Annotated[str, Flag("--from", metavar="FOLDER")]
    """Folder with patches/ (CLAM's results, TRIDENT's JOB_DIR/20x_256px_0px_overlap), or of .h5
    files."""
    slides: SlidesConfig
    """Which slides."""
    scale: GivenScale = GivenScale()
    """What a patch is, where the files do not say it."""

    @field_validator("source")
    @classmethod
    def _absolute_from(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a folder is needed")
        return storage.absolute(value)
