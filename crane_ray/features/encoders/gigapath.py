"""Prov-GigaPath's tile encoder: a ViT-g/16, DINOv2, 1.3 billion patches; its class token.

(Xu et al., Nature 2024; model card of prov-gigapath/prov-gigapath.) 1536 features a patch. As the
card has it, a patch is resized to 256 px and its middle 224 px are encoded.
"""

from torch import nn

from crane_ray.features.encoder import EncoderCard, HubWeights
from crane_ray.features.transformers import timm_network
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=1536,
    input_size_px=224,
    output="class token",
    interpolation="bicubic",
    resize_px=256,
    token_px=16,
    recommended_mpp=(0.5,),
    recommended_patch_px=(256,),
    hub=HubWeights(
        "prov-gigapath/prov-gigapath",
        ("pytorch_model.bin",),
        "eba85dd46097c3eedfcc2a3a9a930baecb6bcc19",
        gated=True,
    ),
    license="Prov-GigaPath terms: research use",
    requires=("timm",),
)

prepare_state = without_wrappers


def build(*, depth: int = 40, width: int = 1536, heads: int = 24) -> nn.Module:
    """The network with random weights, smaller where asked for."""
    return timm_network(
        "vit_giant_patch14_dinov2",
        img_size=224,
        patch_size=16,
        init_values=1e-5,
        mlp_ratio=5.33334,
        dynamic_img_size=True,
        depth=depth,
        embed_dim=width,
        num_heads=heads,
    )
