"""What an encoder is: a model's card, the exact encoder behind a store, and the protocol."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from crane_ray import storage
from crane_ray.config import Config, Flag

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Precision = Literal["fp32", "bf16", "fp16"]
Features = npt.NDArray[np.float32]
"""(B, D) float32."""


@dataclass(frozen=True)
class EncoderCard:
    """A published model as its authors describe it."""

    dim: int
    """Length of a feature vector."""
    input_size_px: int
    """Width and height that patches are resized to unless asked for otherwise."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    downloads: dict[str, str] = field(default_factory=dict)
    """Published weights by short name: URL, whose file name ends in its hash as torch.hub's do."""


class EncoderConfig(Config):
    """Which encoder turns patches into features, with which weights and precision."""

    name: Annotated[str, Flag("--encoder")] = "resnet50_trunc"
    """Encoder: resnet50_trunc, or the dotted path of a module of your own."""
    weights: Annotated[str, Flag("--weights")] = "imagenet"
    """Weights: imagenet (fetched once), a local file, or random (seeded; for trials only)."""
    seed: int = 0
    """Seed of random weights."""
    input_size: Annotated[int | Literal["patch"] | None, Flag("--input-size")] = None
    """Pixels that patches are resized to (antialiased); patch keeps their own size; the
    encoder's own, 224 for most, where not given."""
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Flag("--precision")] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it, else fp32."""
    batch_size: Annotated[int | None, Flag("--batch-size")] = Field(None, ge=1, le=65536)
    """Patches a batch; 256 on a GPU and 32 on CPUs where not given."""

    @field_validator("weights")
    @classmethod
    def _absolute_file(cls, value: str) -> str:
        """Files by their absolute path: they are read by a task with another working folder."""
        return storage.absolute(value) if "/" in value or "." in value else value


class EncoderInfo(Config):
    """The exact encoder behind a store's features: equal values, equal features."""

    name: str
    """Short name or dotted path."""
    dim: int
    """Length of a feature vector."""
    input_size_px: int
    """What patches were resized to."""
    mean: tuple[float, float, float]
    """Subtracted from pixels in [0, 1]."""
    std: tuple[float, float, float]
    """Divided by after that."""
    precision: Precision
    """Arithmetic of the network."""
    weights: str
    """Where the weights came from: a short name, a file's name, or random with its seed."""
    weights_sha256: str
    """Of the weight file; of the words ``random seed N`` for random ones."""


class PatchEncoder(Protocol):
    """Turns patches into feature vectors."""

    info: EncoderInfo

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Features (B, D) float32 of patches (B, S, S, 3) RGB uint8."""
        ...
