"""Configs of networks and their training; the defaults are CRANE's and CLAM's published recipe.

Imports no torch, so that ``crane-ray train --help`` answers at once.
"""

from typing import Annotated, Literal

from pydantic import Field

from crane_ray.config import Config, Flag
from crane_ray.mil.aggregator import ModelConfig


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
