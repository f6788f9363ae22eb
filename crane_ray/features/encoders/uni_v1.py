"""UNI: a ViT-L/16 trained with DINOv2 on 100 million H&E patches; its class token.

(Chen et al., Nature Medicine 2024; model card of MahmoodLab/UNI.) 1024 features a patch.
"""

from torch import nn

from crane_ray.features.encoder import EncoderCard, HubWeights
from crane_ray.features.transformers import timm_network
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=1024,
    input_size_px=224,
    output="class token",
    token_px=16,
    recommended_mpp=(0.5,),
    recommended_patch_px=(256, 512),
    environment=("UNI_CKPT_PATH",),
    hub=HubWeights(
        "MahmoodLab/UNI",
        ("pytorch_model.bin",),
        "b55a5ec6cade1a39edfe6534189a9b8ca7a022f0",
        gated=True,
    ),
    license="CC BY-NC-ND 4.0",
    requires=("timm",),
)

prepare_state = without_wrappers


def build(*, depth: int = 24, width: int = 1024, heads: int = 16) -> nn.Module:
    """The network with random weights, smaller where asked for."""
    return timm_network(
        "vit_large_patch16_224",
        init_values=1e-5,
        dynamic_img_size=True,
        depth=depth,
        embed_dim=width,
        num_heads=heads,
    )
