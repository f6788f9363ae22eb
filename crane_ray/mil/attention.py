"""Attention networks and pooling by attention, which the aggregators are made of.

Shapes: N patches of all bags together, B bags, D feature length, E embedding, A width of the
attention, H attention rows. Submodules have the names and places that CRANE's and CLAM's
published state dicts have.
"""

from collections.abc import Sequence

import torch
from torch import nn

from crane_ray.errors import ConfigError
from crane_ray.mil.configs import ATTENTION_DIMS, ModelConfig
from crane_ray.mil.dropout import Dropout
from crane_ray.mil.segments import Segments


class Scores(nn.Linear):
    """The last Linear of an attention, whose bias has a gradient of exactly zero.

    A softmax does not see what all of a row's scores have in common. Rounding leaves a gradient of
    1e-9, which Adam turns into steps of the learning rate's size, other ones on every machine and
    with every number of workers; with zeros the bias only decays, and outputs are the same.
    """

    def forward(self, values_NA: torch.Tensor) -> torch.Tensor:
        """(N, H) scores of (N, A) values."""
        bias_H = self.bias.detach() + 0 * self.bias
        return nn.functional.linear(values_NA, self.weight, bias_H)


class GatedAttention(nn.Module):
    """Scores of patches: a tanh branch times a sigmoid branch, then one Linear for all rows.

    Ilse et al., Attention-based Deep Multiple Instance Learning, ICML 2018, equation 9.
    """

    def __init__(self, in_dim: int, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.attention_a = nn.Sequential(nn.Linear(in_dim, width), nn.Tanh(), *dropped(dropout))
        self.attention_b = nn.Sequential(nn.Linear(in_dim, width), nn.Sigmoid(), *dropped(dropout))
        self.attention_c = Scores(width, num_heads)

    def forward(self, hidden_NE: torch.Tensor) -> torch.Tensor:
        """(N, H) scores of (N, E) embeddings."""
        scores_NH: torch.Tensor = self.attention_c(
            self.attention_a(hidden_NE) * self.attention_b(hidden_NE)
        )
        return scores_NH


class PlainAttention(nn.Module):
    """Scores of patches without a gate: Linear, tanh, Linear (equation 8 there)."""

    def __init__(self, in_dim: int, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.module = nn.Sequential(
            nn.Linear(in_dim, width), nn.Tanh(), *dropped(dropout), Scores(width, num_heads)
        )

    def forward(self, hidden_NE: torch.Tensor) -> torch.Tensor:
        """(N, H) scores of (N, E) embeddings."""
        scores_NH: torch.Tensor = self.module(hidden_NE)
        return scores_NH


class AttentionNet(nn.Sequential):
    """Embedding layers, each Linear, ReLU and Dropout, and an attention on top of them."""

    def forward(self, features_ND: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(H, N) float32 (or wider) scores and (N, E) embeddings of (N, D) features."""
        *layers, attention = self
        hidden_NE = features_ND
        for layer in layers:
            hidden_NE = layer(hidden_NE)
        return at_least_float32(attention(hidden_NE)).mT, hidden_NE


def attention_net(
    config: ModelConfig, dim: int, *, num_layers: int, num_heads: int, size: str
) -> AttentionNet:
    """A fresh attention network.

    Args:
        config: widths, dropout and gating.
        dim: length of a patch's features.
        num_layers: embedding layers.
        num_heads: attention rows.
        size: name of the attention's width where the config gives none.
    """
    width = config.attention_dim or ATTENTION_DIMS[config.size or size]
    layers = [
        layer
        for in_dim in (dim, *[config.hidden_dim] * (num_layers - 1))
        for layer in embedding(in_dim, config)
    ]
    kind = GatedAttention if config.gated else PlainAttention
    return AttentionNet(*layers, kind(config.hidden_dim, width, num_heads, config.dropout))


def embedding(in_dim: int, config: ModelConfig) -> tuple[nn.Module, ...]:
    """Linear, ReLU and, unless its share is 0, Dropout."""
    return nn.Linear(in_dim, config.hidden_dim), nn.ReLU(), *dropped(config.dropout)


def dropped(share: float) -> tuple[nn.Module, ...]:
    """Dropout of a share of values; none at all for 0, as published networks without have it."""
    return (Dropout(share),) if share else ()


def attend(
    scores_HN: torch.Tensor, hidden_NE: torch.Tensor, sizes_B: Sequence[int] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention and what it makes of each bag.

    Args:
        scores_HN: (H, N) scores of patches.
        hidden_NE: (N, E) their embeddings.
        sizes_B: patches of each bag; one bag of all where not given.

    Returns:
        The (H, N) softmax of scores over each bag, in their dtype, and the (B, H, E) sums of
        embeddings weighted by it.
    """
    if sizes_B is None:
        attention_HN = scores_HN.softmax(dim=1)
        pooled_BHE = (attention_HN.to(hidden_NE.dtype) @ hidden_NE)[None]
        return attention_HN, pooled_BHE
    segments = Segments.of(sizes_B, hidden_NE.device)
    attention_HN = segments.softmax(scores_HN)
    return attention_HN, segments.pool(attention_HN.to(hidden_NE.dtype), hidden_NE)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """The values as they are, or as float32 where autocast made them smaller.

    Exponentials of bfloat16 scores would be off by several percent.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def initialise(network: nn.Module) -> None:
    """Draws every Linear's weights Xavier-normal, with zero biases, as published."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight)
            nn.init.zeros_(module.bias)


def refuse_attention(config: ModelConfig) -> None:
    """Refuses widths of an attention for a network that has none.

    Raises:
        ConfigError: ``size`` or ``attention_dim`` is given.
    """
    given = {"size": config.size, "attention_dim": config.attention_dim}
    for key, value in given.items():
        if value is not None:
            raise ConfigError(
                f"model.{key} {value}: {config.name} has no attention whose width it could set; "
                "leave it out"
            )
