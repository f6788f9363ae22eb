"""CONCH v1.5: the patch encoder of TITAN; a ViT-L/16 whose tokens one learned query attends to.

(Ding et al., arXiv:2411.19666; model cards of MahmoodLab/TITAN and MahmoodLab/conchv1_5.) 768
features a patch. Input 448 px. The positions of a checkpoint with the grid of 224 px are brought
to that of 448 px when it is loaded, as the published model does it for each image; at 448 px that
is the same, at other input sizes they are resampled from there.
"""

from typing import Any

import torch
from torch import nn

from crane_ray.features.encoder import EncoderCard, HubWeights
from crane_ray.features.transformers import PooledTower, resized_positions, timm_network
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=768,
    input_size_px=448,
    output="attention pooled",
    token_px=16,
    recommended_mpp=(0.5,),
    recommended_patch_px=(512,),
    hub=HubWeights(
        "MahmoodLab/conchv1_5",
        ("pytorch_model_vision.bin",),
        "3e5766a5d1500d53c73c03005e24c30c1f27be13",
        gated=True,
    ),
    license="CC BY-NC-ND 4.0",
    requires=("timm",),
)

GRID = 28
"""Tokens along a side of 448 px."""
EXTRA = 0.1
"""See `resized_positions`; the published model has DINO's."""


class AttentionPool(nn.Module):
    """(B, T, context) tokens -> (B, width): what one learned query gathers, no biases."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(1, width))
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(context)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(context, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, tokens_BTC: torch.Tensor) -> torch.Tensor:
        """One vector an image."""
        query_1D = self.to_q(self.ln_q(self.query))
        keys_BTD, values_BTD = self.to_kv(self.ln_k(tokens_BTC)).chunk(2, dim=-1)
        gathered = nn.functional.scaled_dot_product_attention(
            self._split(query_1D.expand(len(tokens_BTC), 1, -1)),
            self._split(keys_BTD),
            self._split(values_BTD),
        )
        pooled_BD: torch.Tensor = self.to_out(gathered.flatten(1))
        return pooled_BD

    def _split(self, vectors_BTD: torch.Tensor) -> torch.Tensor:
        """(B, T, D) -> (B, heads, T, D / heads)."""
        batch, tokens, width = vectors_BTD.shape
        split = vectors_BTD.reshape(batch, tokens, self.heads, width // self.heads)
        return split.transpose(1, 2)


class ImageTower(PooledTower):
    """Its positions are moved to each image's grid as DINO does it, not as timm does."""

    def tokens(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """(B, T, context) of the trunk."""
        trunk: Any = self.trunk
        grid_BHWC = trunk.patch_embed(images_B3SS)
        grid = (grid_BHWC.shape[1], grid_BHWC.shape[2])
        first_B1C = trunk.cls_token.expand(len(images_B3SS), -1, -1)
        tokens_BTC = torch.cat([first_B1C, grid_BHWC.flatten(1, 2)], dim=1)
        tokens_BTC = tokens_BTC + resized_positions(trunk.pos_embed, grid, extra=EXTRA)
        encoded_BTC: torch.Tensor = trunk.norm(trunk.blocks(tokens_BTC))
        return encoded_BTC


def build(
    *, depth: int = 24, trunk_width: int = 1024, trunk_heads: int = 16, width: int = 768
) -> nn.Module:
    """The network with random weights, smaller where asked for."""
    trunk = timm_network(
        "vit_large_patch16_224",
        img_size=16 * GRID,
        init_values=1e-6,
        global_pool="",
        dynamic_img_size=True,
        depth=depth,
        embed_dim=trunk_width,
        num_heads=trunk_heads,
    )
    return ImageTower(trunk, AttentionPool(width, trunk_width, heads=8), width)


def prepare_state(state: dict[str, Any]) -> dict[str, Any]:
    """The published tensors, positions for 448 px."""
    prepared = without_wrappers(state)
    positions_1TD = prepared.get("trunk.pos_embed")
    if positions_1TD is not None and positions_1TD.ndim == 3:
        moved = resized_positions(positions_1TD.float(), (GRID, GRID), extra=EXTRA)
        prepared["trunk.pos_embed"] = moved
    return prepared
