"""Phikon-v2: a ViT-L/16 trained with DINOv2 on 460 million patches of public slides; class token.

(Filiot et al., arXiv:2409.09173; model card of owkin/phikon-v2.) 1024 features a patch. Published
in the names of transformers' ``Dinov2Model``, which is timm's network with query, key and value
apart; trained on patches of 224 px, which are encoded as they are.
"""

import re
from typing import Any

import torch
from torch import nn

from crane_ray.features.encoder import EncoderCard, HubWeights
from crane_ray.features.transformers import timm_network
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=1024,
    input_size_px=224,
    output="class token",
    interpolation="bicubic",
    token_px=16,
    recommended_mpp=(0.5,),
    recommended_patch_px=(224,),
    hub=HubWeights(
        "owkin/phikon-v2", ("model.safetensors",), "2ae989a9c40cffaa27f0a6cb29cc94d1d6f9a5fd"
    ),
    license="Owkin non-commercial",
    requires=("timm",),
)

NAMES = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)
"""transformers' names and timm's; transformers 5 writes shorter ones than the file has."""
PARTS = ("q", "k", "v")
PART = re.compile(
    r"^encoder\.layer\.(\d+)\.attention\."
    r"(?:attention\.(q)uery|attention\.(k)ey|attention\.(v)alue|([qkv])_proj)\.(weight|bias)$"
)


def build(*, depth: int = 24, width: int = 1024, heads: int = 16) -> nn.Module:
    """The network with random weights, smaller where asked for."""
    return timm_network(
        "vit_large_patch16_224",
        init_values=1.0,
        dynamic_img_size=True,
        depth=depth,
        embed_dim=width,
        num_heads=heads,
    )


def prepare_state(state: dict[str, Any]) -> dict[str, Any]:
    """The published tensors under timm's names; a file that has those already passes as it is."""
    prepared: dict[str, Any] = {}
    parts: dict[tuple[str, str], dict[str, Any]] = {}
    for key, tensor in without_wrappers(state).items():
        part = PART.match(key)
        if part:
            layer, *which, kind = part.groups()
            parts.setdefault((layer, kind), {})["".join(filter(None, which))] = tensor
            continue
        for published, ours in NAMES:
            key = re.sub(published, ours, key)  # noqa: PLW2901
        prepared[key] = tensor
    for (layer, kind), tensors in parts.items():
        if set(tensors) == set(PARTS):
            joined = torch.cat([tensors[which] for which in PARTS])
            prepared[f"blocks.{layer}.attn.qkv.{kind}"] = joined
    return prepared
