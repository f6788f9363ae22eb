"""Virchow2: a ViT-H/14 with 4 registers, DINOv2, 3.1 million slides at 5x, 10x, 20x and 40x.

(Zimmermann et al., arXiv:2408.00738; model card of paige-ai/Virchow2.) A feature vector is the
class token and, behind it, the mean of the patch tokens, registers left out: 2 x 1280.
"""

from typing import Any

import torch
from torch import nn

from crane_ray.features.encoder import EncoderCard, HubWeights
from crane_ray.features.transformers import gated_units, timm_network
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=2560,
    input_size_px=224,
    output="class token and mean of patch tokens",
    interpolation="bicubic",
    token_px=14,
    precision="fp16",
    recommended_mpp=(0.5, 0.25, 1.0, 2.0),
    recommended_patch_px=(224,),
    hub=HubWeights(
        "paige-ai/Virchow2",
        ("model.safetensors", "pytorch_model.bin"),
        "3158645804b69e3f3bc4439d4116edddf0840a72",
        gated=True,
    ),
    license="CC BY-NC-ND 4.0",
    requires=("timm",),
)


class ClassAndMean(nn.Module):
    """(B, 3, S, S) normalised images -> (B, 2 width) features."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Features of a batch."""
        trunk: Any = self.trunk
        tokens_BTD = trunk.forward_features(images_B3SS)
        patches_BTD = tokens_BTD[:, trunk.num_prefix_tokens :]
        return torch.cat([tokens_BTD[:, 0], patches_BTD.mean(dim=1)], dim=-1)


def build(*, depth: int = 32, width: int = 1280, heads: int = 16) -> nn.Module:
    """The network with random weights, smaller where asked for."""
    trunk = timm_network(
        "vit_huge_patch14_224",
        init_values=1e-5,
        mlp_ratio=5.3375,
        reg_tokens=4,
        global_pool="",
        dynamic_img_size=True,
        depth=depth,
        embed_dim=width,
        num_heads=heads,
        **gated_units(),
    )
    return ClassAndMean(trunk)


def prepare_state(state: dict[str, Any]) -> dict[str, Any]:
    """The published names, which are the bare transformer's."""
    return {f"trunk.{key}": tensor for key, tensor in without_wrappers(state).items()}
