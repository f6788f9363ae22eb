"""The configs of doctor and plan. Imports no ray."""

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.features.encoder import EncoderConfig, absolute_weights
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.slides.staging import StagingConfig


class DoctorJob(Config):
    """Look whether every node of a cluster is fit for a run."""

    work: Annotated[str | None, Flag("--work", metavar="FOLDER")] = None
    """Folder (or URI) of a workspace, for a try whether each node reads and writes there."""
    encoders: Annotated[tuple[str, ...], Flag("--encoder", metavar="NAME", repeated=True)] = ()
    """Encoder whose weights and packages are looked for, and whose rate is measured (the first
    of several); resnet50_trunc is measured where none is given."""
    weights: Annotated[str | None, Flag("--weights")] = None
    """Weights of the encoder, as for crane-ray extract."""
    measure: Annotated[bool, Flag("--measure")] = True
    """Measure how fast each node decodes and encodes."""
    rates_out: Annotated[str | None, Flag("--rates-out", metavar="FILE")] = None
    """JSON file for what was measured; crane-ray plan takes it."""
    timeout_s: Annotated[float, Flag("--timeout")] = Field(180, gt=0)
    """Seconds that each node has to answer, and again to be measured."""
    staging: StagingConfig = StagingConfig()
    """How slides will be brought to the nodes."""
    cluster: ClusterConfig = ClusterConfig()
    """Which cluster; without an address, this machine alone."""

    @field_validator("work", "rates_out")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)

    @field_validator("weights")
    @classmethod
    def _absolute_weights(cls, value: str | None) -> str | None:
        return None if value is None else absolute_weights(value)

    @model_validator(mode="after")
    def _fits(self) -> "DoctorJob":
        if self.weights is not None and len(self.encoders) != 1:
            raise ValueError(
                f"weights (--weights) {self.weights!r} belong to one encoder; name it with "
                f"--encoder ({len(self.encoders)} given)"
            )
        if self.rates_out is not None and not self.measure:
            raise ValueError("rates_out (--rates-out) needs rates; leave out --no-measure")
        return self

    @property
    def encoder_configs(self) -> tuple[EncoderConfig, ...]:
        """Each encoder that was asked about."""
        return tuple(EncoderConfig(name=name, weights=self.weights) for name in self.encoders)


class PlanJob(Config):
    """Say what the extraction of a cohort will cost."""

    work: Annotated[str | None, Flag("--work", metavar="FOLDER")] = None
    """Folder (or URI) of a patched workspace: its slides.parquet says how many patches there
    are."""
    slides: Annotated[str | None, Flag("--slides", metavar="WHERE")] = None
    """Folder of slides, glob in quotes, or CSV/Parquet table, where nothing is patched yet; an
    estimate from the slides' sizes."""
    tissue_share: Annotated[float, Flag("--tissue-share")] = Field(1, gt=0, le=1)
    """Share of a slide that is tissue, for the estimate from sizes; 1 gives the upper limit."""
    patch_px: Annotated[int, Flag("--patch-size")] = Field(256, ge=8, le=8192)
    """Width of a patch in pixels, for the estimate from sizes."""
    mpp: Annotated[float, Flag("--mpp")] = Field(0.5, ge=0.05, le=20)
    """Resolution of a patch, um/px, for the estimate from sizes."""
    rates: Annotated[str | None, Flag("--rates", metavar="FILE")] = None
    """What crane-ray doctor --rates-out FILE measured."""
    patches_a_second: Annotated[float | None, Flag("--patches-a-second")] = Field(None, gt=0)
    """Patches that one GPU encodes in a second (one CPU, without GPUs), in place of --rates."""
    decode_a_second: Annotated[float | None, Flag("--decode-a-second")] = Field(None, gt=0)
    """Patches that one CPU decodes in a second, in place of --rates."""
    gpus: Annotated[int | None, Flag("--gpus")] = Field(None, ge=0)
    """GPUs of the cluster, in place of those in --rates; 0 encodes on CPUs."""
    cpus: Annotated[int | None, Flag("--cpus")] = Field(None, ge=1)
    """CPUs of the cluster, shared out evenly among its GPUs, in place of those in --rates."""
    dim: Annotated[int | None, Flag("--dim")] = Field(None, ge=1)
    """Numbers in a feature vector; the encoder's own where --rates names it, else 1024."""
    dtype: Annotated[str, Flag("--dtype")] = Field("float16", pattern="^float(16|32)$")
    """Type of stored features: float16 or float32."""

    @field_validator("work", "slides", "rates")
    @classmethod
    def _absolute(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)

    @model_validator(mode="after")
    def _fits(self) -> "PlanJob":
        if (self.work is None) == (self.slides is None):
            raise ValueError(
                "one cohort is needed: --work WORK (patched) or --slides WHERE (an estimate)"
            )
        if self.rates is None and self.patches_a_second is None:
            raise ValueError(
                "a rate is needed: --rates FILE (crane-ray doctor --rates-out FILE measures it) "
                "or --patches-a-second N"
            )
        if self.rates is None and self.gpus is None and self.cpus is None:
            raise ValueError("a cluster is needed: --gpus N and --cpus N, or --rates FILE")
        return self
