"""The config of the viewer.

Imports no ray, so that ``crane-ray view --help`` answers at once.
"""

import secrets
from typing import Annotated

from pydantic import Field, field_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.slides.staging import StagingConfig
from crane_ray.viewer.settings import ViewSettings

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RANDOM = "random"
MIN_TOKEN = 16


class ViewJob(Config):
    """Show a workspace's slides and their attention maps in a browser."""

    work: Annotated[str, Flag("--work", metavar="FOLDER")]
    """Folder (or URI) of the cohort's workspace."""
    host: Annotated[str, Flag("--host")] = "127.0.0.1"
    """Address to listen on; with any but this machine's own a token is asked for."""
    port: Annotated[int, Flag("--port")] = Field(8501, ge=1, le=65535)
    """Port to listen on."""
    token: Annotated[str | None, Flag("--token", metavar="random|TEXT")] = None
    """Token that browsers must bring; random draws one, which is what happens with another --host.
    Other users of this machine see what a command line says, so that random is safer."""
    assessment: Annotated[str | None, Flag("--assessment", metavar="FILE")] = None
    """assessment.parquet of crane-ray assess, for diagnoses beside the slides; that in
    WORK/assessment where not given."""
    replicas: Annotated[int, Flag("--replicas")] = Field(1, ge=1)
    """Processes that answer; more of them for many people at once."""
    tile_cache_mb: int = Field(192, ge=1)
    """Memory of each for encoded tiles, MB."""
    max_open_slides: int = Field(12, ge=1)
    """Slides that each holds open."""
    threads: int = Field(4, ge=1, le=64)
    """Threads of each that decode."""
    reader: Annotated[str, Flag("--reader")] = "auto"
    """Reader of slides: auto, openslide, tiff, or the dotted path of a module of your own."""
    staging: StagingConfig = StagingConfig()
    """How slides of object storage or slow mounts are brought to the nodes."""
    cluster: ClusterConfig = ClusterConfig()
    """Where it runs."""

    @field_validator("work", "assessment")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("a path is needed")
        return None if value is None else storage.absolute(value)

    @field_validator("host")
    @classmethod
    def _plain_host(cls, value: str) -> str:
        host = value.strip().strip("[]").casefold()
        if not host or "/" in host:
            raise ValueError("a name or address of this machine is needed, e.g. 0.0.0.0")
        # A proxy bound to the name may listen on one of its two addresses only.
        return "127.0.0.1" if host == "localhost" else host

    @field_validator("token")
    @classmethod
    def _long_token(cls, value: str | None) -> str | None:
        if value is not None and value != RANDOM and len(value) < MIN_TOKEN:
            raise ValueError(
                f"too short to be safe: give {MIN_TOKEN} characters or more, or random"
            )
        if value is not None and not (value.isascii() and value.isprintable()):
            raise ValueError("letters, digits and signs of ASCII are needed")
        return value

    @property
    def is_loopback(self) -> bool:
        """True where only this machine can reach it."""
        return self.host in LOOPBACK

    def settings(self) -> ViewSettings:
        """What the app is told; a random token is drawn here."""
        token = self.token
        if token == RANDOM or (token is None and not self.is_loopback):
            token = secrets.token_urlsafe(24)
        return ViewSettings(
            work=self.work,
            assessment=self.assessment,
            reader=self.reader,
            staging=self.staging,
            token=token,
            hosts=LOOPBACK if self.is_loopback else (),
            max_open_slides=self.max_open_slides,
            tile_cache_mb=self.tile_cache_mb,
            threads=self.threads,
        )
