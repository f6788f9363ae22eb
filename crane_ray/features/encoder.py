"""What an encoder is: a model's card, the exact encoder behind a store, and the protocol."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from crane_ray import storage
from crane_ray.config import Config, Flag

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

HUB_ID = re.compile(
    r"(?:hf[-_]hub:)(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./-]+))?(?:@(?P<revision>[\w./-]+))?$"
)
"""``hf-hub:ORG/NAME``, with ``/FILE`` and ``@REVISION`` where they are not the usual ones."""

Precision = Literal["fp32", "bf16", "fp16", "unknown"]
"""unknown: of features that came from elsewhere, and do not say."""
Interpolation = Literal["bilinear", "bicubic"]
Features = npt.NDArray[np.float32]
"""(B, D) float32."""


@dataclass(frozen=True)
class HubWeights:
    """A weight file in a repository of the Hugging Face hub."""

    repo: str
    """ORGANISATION/NAME."""
    files: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    """Names of the file, the first that is there wins."""
    revision: str | None = None
    """Commit; where None, the newest is taken and the commit that it was is recorded."""
    gated: bool = False
    """Must be asked for on the repository's page before it can be fetched."""

    @property
    def page(self) -> str:
        """Where the model is described, and asked for where it is gated."""
        return f"https://huggingface.co/{self.repo}"


@dataclass(frozen=True)
class EncoderCard:
    """A published model as its authors describe it."""

    dim: int
    """Length of a feature vector."""
    input_size_px: int
    """Width and height that the network sees, unless asked for otherwise."""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    downloads: dict[str, str] = field(default_factory=dict)
    """Published weights by short name: URL, whose file name ends in its hash as torch.hub's do."""
    hub: HubWeights | None = None
    """Published weights on the Hugging Face hub."""
    environment: tuple[str, ...] = ()
    """Environment variables that may name the weight file, besides the one of every encoder."""
    output: str = "pooled"
    """What a feature vector is: class token, pooled, ..."""
    interpolation: Interpolation = "bilinear"
    """How patches of another size are resized."""
    resize_px: int | None = None
    """Where larger than the input: patches are resized to this, and the input is their middle."""
    token_px: int | None = None
    """Input sizes must be multiples of this; None where any will do."""
    precision: Precision | None = None
    """Arithmetic that the authors ask for on GPUs; None where they leave it open."""
    recommended_mpp: tuple[float, ...] = ()
    """Resolutions that the model was trained at, um/px, the usual one first."""
    recommended_patch_px: tuple[int, ...] = ()
    """Patch sizes at that resolution that the authors use, the usual one first."""
    license: str = ""
    requires: tuple[str, ...] = ()
    """Packages of the extra ``encoders`` that the network is built with."""
    build_arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments of the plug-in's ``build`` that only its weights' repository tells."""


class EncoderPlugin(Protocol):
    """What a module in ``encoders/`` defines; ``prepare_state`` may be missing."""

    @property
    def CARD(self) -> EncoderCard:  # noqa: N802 - a constant of modules
        """The model's card."""
        ...

    @property
    def build(self) -> Callable[..., "nn.Module"]:
        """Makes the network with random weights, (B, 3, S, S) normalised -> (B, D)."""
        ...


class EncoderConfig(Config):
    """Which encoder turns patches into features, with which weights and precision."""

    name: str = "resnet50_trunc"
    """Encoder: resnet50_trunc, uni_v1, uni2_h, conch_v1, conch_v1_5, virchow2, gigapath,
    h_optimus_0, phikon_v2, timm:NAME (timm:resnet18, timm:hf-hub:ORG/NAME), or the dotted path of
    a module of your own."""
    weights: Annotated[str | None, Flag("--weights")] = None
    """Weights: a local file, hf-hub:ORG/NAME@COMMIT, a published name (imagenet), or random
    (seeded; for trials only); where not given, the file that UNI_CKPT_PATH, CONCH_CKPT_PATH or
    CRANE_RAY_{ENCODER}_WEIGHTS names, else the published ones, fetched once."""
    seed: int = 0
    """Seed of random weights."""
    input_size: Annotated[int | Literal["patch"] | None, Flag("--input-size")] = None
    """Pixels that patches are resized to (antialiased); patch keeps their own size; the
    encoder's own, 224 for most, where not given."""
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Flag("--precision")] = "auto"
    """Arithmetic of the encoder; auto takes bf16 where the hardware has it, else fp32."""
    compile: Literal["auto"] | bool = "auto"
    """Let torch.compile make the network's kernels, which takes minutes once; auto does so on GPUs
    for runs long enough to gain from it. On CPUs convolutional networks are frozen instead."""
    batch_size: Annotated[int | None, Flag("--batch-size")] = Field(None, ge=1, le=65536)
    """Patches a batch; 256 on a GPU and 32 on CPUs where not given."""

    @field_validator("weights")
    @classmethod
    def _absolute_file(cls, value: str | None) -> str | None:
        return None if value is None else absolute_weights(value)


def absolute_weights(value: str) -> str:
    """Weights as a config keeps them, files by their absolute path.

    They are read by a task with another working folder.
    """
    if HUB_ID.match(value):
        return value
    return storage.absolute(value) if "/" in value or "." in value else value


class EncoderInfo(Config):
    """The exact encoder behind a store's features: equal values, equal features."""

    name: str
    """Short name or dotted path."""
    dim: int
    """Length of a feature vector."""
    input_size_px: int
    """Width and height that the network saw."""
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
    interpolation: Interpolation = "bilinear"
    """How patches of another size were resized."""
    resize_px: int | None = None
    """What patches were resized to where only their middle was encoded."""
    compiled: bool = False
    """True where torch.compile made the network's kernels, which round in other places."""

    @model_serializer(mode="wrap")
    def _as_written_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out later fields at their defaults: stores from before keep their fingerprint."""
        tree: dict[str, Any] = handler(self)
        for name in ("interpolation", "resize_px", "compiled"):
            if tree.get(name) == type(self).model_fields[name].default:
                tree.pop(name, None)
        return tree


class PatchEncoder(Protocol):
    """Turns patches into feature vectors."""

    info: EncoderInfo

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """Features (B, D) float32 of patches (B, S, S, 3) RGB uint8."""
        ...
