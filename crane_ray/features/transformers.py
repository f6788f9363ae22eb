"""What the vision transformers among the encoders share; their networks are timm's.

timm is imported where a network is built, so that cards can be read without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from crane_ray.errors import ConfigError

_blank: ContextVar[bool] = ContextVar("blank", default=False)


def timm_network(architecture: str, **arguments: Any) -> nn.Module:
    """A network of timm's with random weights (see `to_be_loaded`) and without a classifier.

    Raises:
        ConfigError: timm is not installed, or has no such network.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"encoder network {architecture}: needs the package timm; "
            "pip install 'crane-ray[encoders]' on every node"
        ) from error
    arguments = {"pretrained": False, "num_classes": 0, **arguments}
    try:
        return _without_values(timm.create_model, architecture, arguments) or timm.create_model(
            architecture, **arguments
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"timm {timm.__version__}: {error}; python -c 'import timm; "
            'print(timm.list_models("*NAME*"))\' lists the networks it has'
        ) from error


@contextmanager
def to_be_loaded() -> Iterator[None]:
    """Inside, networks are made without values for their weights: all are loaded afterwards.

    Drawing 300 million values (UNI's) took 7 s, reading them from a file 3 s (2 CPUs).
    """
    token = _blank.set(True)
    try:
        yield
    finally:
        _blank.reset(token)


def _without_values(create: Any, architecture: str, arguments: dict[str, Any]) -> nn.Module | None:
    """The network with memory for its weights, nothing in it; None where values are needed."""
    if not _blank.get() or torch.get_default_device().type == "meta":
        return None
    with torch.device("meta"):
        network: nn.Module = create(architecture, **arguments)
    loaded = network.state_dict().keys()
    if any(name not in loaded for name, _ in network.named_buffers()):
        return None  # computed when it is made, and in no file
    return network.to_empty(device="cpu")


class PooledTower(nn.Module):
    """(B, 3, S, S) normalised images -> (B, width): tokens, what a pooler gathers of them, a norm.

    The image tower of CoCa (Yu et al., TMLR 2022) before its projection.
    """

    def __init__(self, trunk: nn.Module, pool: nn.Module, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.attn_pool_contrast = pool
        self.ln_contrast = nn.LayerNorm(width)

    def tokens(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """(B, T, context) of the trunk."""
        tokens_BTC: torch.Tensor = self.trunk(images_B3SS)
        return tokens_BTC

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Features of a batch."""
        features_BD: torch.Tensor = self.ln_contrast(
            self.attn_pool_contrast(self.tokens(images_B3SS))
        )
        return features_BD


def gated_units() -> dict[str, Any]:
    """The arguments that give a transformer SwiGLU feed-forward layers, both halves in one."""
    from timm.layers import SwiGLUPacked

    return {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}


def resized_positions(
    positions_1TD: torch.Tensor, grid: tuple[int, int], *, extra: float
) -> torch.Tensor:
    """Position embeddings (1, 1 + H W, D) of a square grid for another grid, as DINO does it.

    Bicubic without antialiasing; the scale is that of a grid larger by ``extra`` tokens (0.1 in
    DINO, against rounding), which moves the samples a little and so belongs to the method.
    """
    side = round((positions_1TD.shape[1] - 1) ** 0.5)
    if grid == (side, side):
        return positions_1TD
    whole_1DHW = positions_1TD[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    factors = [(tokens + extra) / side for tokens in grid]
    moved_1DHW = nn.functional.interpolate(whole_1DHW, scale_factor=factors, mode="bicubic")
    assert moved_1DHW.shape[2:] == grid
    moved_1TD = moved_1DHW.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.cat([positions_1TD[:, :1], moved_1TD], dim=1)
