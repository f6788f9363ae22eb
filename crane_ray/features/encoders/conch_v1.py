"""CONCH: the image tower of a vision-language model of histopathology, without its projection.

(Lu et al., Nature Medicine 2024; model card of MahmoodLab/CONCH.) A ViT-B/16 whose tokens one
learned query attends to; 512 features a patch, before the projection into the space shared with
text and not normalised, as CLAM takes them. Native input 448 px; CLAM resizes to 224 px, which
``--input-size 224`` repeats. The pooler is CoCa's (Yu et al., TMLR 2022).
"""

from typing import Any

import torch
from torch import nn

from crane_ray.features.encoder import EncoderCard, HubWeights
from crane_ray.features.transformers import PooledTower, timm_network
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=512,
    input_size_px=448,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    output="attention pooled",
    interpolation="bicubic",
    token_px=16,
    recommended_mpp=(0.5,),
    recommended_patch_px=(512, 256),
    environment=("CONCH_CKPT_PATH",),
    hub=HubWeights(
        "MahmoodLab/conch",
        ("pytorch_model.bin",),
        "f9ca9f877171a28ade80228fb195ac5d79003357",
        gated=True,
    ),
    license="CC BY-NC-ND 4.0",
    requires=("timm",),
)

KEPT = ("trunk.", "attn_pool_contrast.", "ln_contrast.")
TOWER = "visual."


class AttentionPool(nn.Module):
    """(B, T, context) tokens -> (B, width): what one learned query gathers from them."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width))
        self.ln_q = nn.LayerNorm(width)
        self.ln_k = nn.LayerNorm(context)
        self.attn = nn.MultiheadAttention(
            width, heads, kdim=context, vdim=context, batch_first=True
        )

    def forward(self, tokens_BTC: torch.Tensor) -> torch.Tensor:
        """One vector an image."""
        keys_BTC = self.ln_k(tokens_BTC)
        query_B1D = self.ln_q(self.query).expand(len(tokens_BTC), 1, -1)
        pooled_B1D: torch.Tensor
        pooled_B1D, _ = self.attn(query_B1D, keys_BTC, keys_BTC, need_weights=False)
        return pooled_B1D[:, 0]


def build(
    *, depth: int = 12, trunk_width: int = 768, trunk_heads: int = 12, width: int = 512
) -> nn.Module:
    """The network with random weights, smaller where asked for."""
    trunk = timm_network(
        "vit_base_patch16_224",
        img_size=448,
        global_pool="",
        dynamic_img_size=True,
        depth=depth,
        embed_dim=trunk_width,
        num_heads=trunk_heads,
    )
    return PooledTower(trunk, AttentionPool(width, trunk_width, heads=8), width)


def prepare_state(state: dict[str, Any]) -> dict[str, Any]:
    """The image tower's tensors; text tower, captions and projection are left out."""
    bare = {key.removeprefix(TOWER): tensor for key, tensor in without_wrappers(state).items()}
    return {key: tensor for key, tensor in bare.items() if key.startswith(KEPT)}
