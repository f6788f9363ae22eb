"""Configs of networks, their training, and packs of features.

The defaults of the first two are CRANE's and CLAM's published recipe.

Imports no torch, so that ``crane-ray train --help`` answers at once.
"""

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from crane_ray import storage
from crane_ray.config import Config, Flag

ATTENTION_DIMS = {"small": 256, "big": 384}
"""Width of the attention by the size's name, as CLAM and CRANE have it."""


class InstanceConfig(Config):
    """CLAM's instance clustering."""

    enabled: Annotated[bool, Flag("--instance-clustering")] = True
    """Train instance classifiers on the most and least attended patches (clam_sb, clam_mb)."""
    num_patches: Annotated[int, Flag("--num-instances")] = Field(8, ge=1)
    """Patches at each end of the attention (CLAM's B); fewer in smaller bags."""
    loss: Annotated[Literal["svm", "ce"], Flag("--inst-loss")] = "svm"
    """Instance loss: smooth top-1 SVM or cross entropy."""
    subtyping: Annotated[bool, Flag("--subtyping")] = False
    """Classes exclude each other: the other classes' most attended patches are negatives."""
    weight: float = Field(0.3, ge=0, le=1)
    """Share of the instance loss in the total; the bag loss has the rest."""


class ModelConfig(Config):
    """A network, but for the length of features and the tasks."""

    name: Annotated[str, Flag("--model", metavar="NAME")] = "crane"
    """Aggregator: crane, clam_sb, clam_mb, max_pool, mean_pool, or the dotted path of a module of
    your own."""
    size: Annotated[Literal["small", "big"] | None, Flag("--model-size")] = None
    """Width of the attention: small (256) or big (384); the aggregator's own default where not
    given (crane: big, clam_sb and clam_mb: small)."""
    hidden_dim: int = Field(512, ge=1)
    """Length of a patch's embedding."""
    attention_dim: int | None = Field(None, ge=1)
    """Width of the attention, where it is neither small nor big."""
    dropout: Annotated[float, Flag("--dropout")] = Field(0.25, ge=0, lt=1)
    """Share of values that are dropped in training; 0 for none."""
    gated: Annotated[bool, Flag("--gated")] = True
    """Gated attention (tanh and sigmoid branches); plain (tanh) otherwise."""
    instances: InstanceConfig = InstanceConfig()
    """Instance clustering."""

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.size is not None and self.attention_dim is not None:
            raise ValueError(
                f"size {self.size} and attention_dim {self.attention_dim}: both are the width of "
                "the attention; give one of them"
            )
        return self


class OptimConfig(Config):
    """The optimiser."""

    name: Annotated[Literal["adam", "adamw", "sgd"], Flag("--opt")] = "adam"
    """Optimiser."""
    lr: Annotated[float, Flag("--lr")] = Field(2e-4, gt=0)
    """Learning rate."""
    weight_decay: Annotated[float, Flag("--reg")] = Field(1e-5, ge=0)
    """Weight decay."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of sgd."""


class StoppingConfig(Config):
    """Early stopping on the loss of the val part."""

    enabled: Annotated[bool, Flag("--early-stopping")] = True
    """Stop when the val loss no longer falls, and keep the weights of its minimum; otherwise the
    last weights are kept."""
    patience: int = Field(20, ge=1)
    """Epochs without a lower loss after which training stops."""
    min_epochs: int = Field(50, ge=0)
    """Training does not stop before this epoch."""


class TrainingConfig(Config):
    """How a network is trained."""

    epochs: Annotated[int, Flag("--max-epochs")] = Field(200, ge=1)
    """Epochs at most."""
    optim: OptimConfig = OptimConfig()
    """The optimiser."""
    stopping: StoppingConfig = StoppingConfig()
    """Early stopping."""
    bags_per_step: Annotated[int | None, Flag("--bags-per-step")] = Field(None, ge=1)
    """Bags of one optimiser step, packed without padding; one, as published, where not given (one
    a worker, of several)."""
    bag_loss: Annotated[Literal["ce", "svm"], Flag("--bag-loss")] = "ce"
    """Loss of a bag: cross entropy or smooth top-1 SVM."""
    class_weights: Annotated[Literal["none", "balanced"], Flag("--class-weights")] = "none"
    """balanced: rare classes count more in the loss, by the inverse of their frequency in the
    training part."""
    weighted_sample: Annotated[bool, Flag("--weighted-sample")] = False
    """Draw training bags with replacement, each class of the first task equally often."""
    max_patches: Annotated[int | None, Flag("--max-patches")] = Field(None, ge=1)
    """Patches of a bag in training; larger bags are subsampled anew in every epoch."""
    precision: Annotated[Literal["fp32", "bf16"], Flag("--train-precision")] = "fp32"
    """Precision of matrix products; weights, softmax and losses stay fp32."""
    seed: Annotated[int, Flag("--seed")] = Field(1, ge=0)
    """Seed of weights, order of bags, dropout and subsampling."""


class ExperimentConfig(Config):
    """A network and how it is trained: what a checkpoint's weights are a function of."""

    model: ModelConfig = ModelConfig()
    """The network."""
    training: TrainingConfig = TrainingConfig()
    """How it is trained."""


class PackConfig(Config):
    """Where a node keeps features for training."""

    folder: Annotated[str | None, Flag("--pack-folder", metavar="FOLDER")] = None
    """Folder on each node's own disk for packed features; CRANE_RAY_PACKS, or one below the
    temporary folder, where not given. It may be removed whenever nothing trains."""
    reserve_gb: float = Field(2.0, ge=0)
    """Disk space that packing leaves free."""

    @field_validator("folder")
    @classmethod
    def _absolute_folder(cls, value: str | None) -> str | None:
        if value is not None and storage.is_uri(value):
            raise ValueError("a folder on each node's own disk is needed, no URI")
        return None if value is None else storage.absolute(value)

    def root(self) -> Path:
        """The folder on this node."""
        default = os.environ.get("CRANE_RAY_PACKS")
        below = Path(tempfile.gettempdir()) / f"crane-ray-packs-{os.getuid()}"
        return Path(self.folder or default or below)
