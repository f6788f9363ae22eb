"""H-optimus-0: a ViT-g/14 with 4 registers, DINOv2, 500,000 H&E slides; its class token.

(Saillard et al. 2024; model card of bioptimus/H-optimus-0.) 1536 features a patch. The card takes
patches of 224 px as they are and names no resampling; other sizes are resized bicubically, timm's
way for this network.
"""

from torch import nn

from crane_ray.features.encoder import EncoderCard, HubWeights
from crane_ray.features.transformers import timm_network
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=1536,
    input_size_px=224,
    mean=(0.707223, 0.578729, 0.703617),
    std=(0.211883, 0.230117, 0.177517),
    output="class token",
    interpolation="bicubic",
    token_px=14,
    precision="fp16",
    recommended_mpp=(0.5,),
    recommended_patch_px=(224,),
    hub=HubWeights(
        "bioptimus/H-optimus-0",
        ("pytorch_model.bin",),
        "b145cc1e6c6b30d3251aa8b1f844e6974188a743",
        gated=True,
    ),
    license="Apache-2.0",
    requires=("timm",),
)

prepare_state = without_wrappers


def build(*, depth: int = 40, width: int = 1536, heads: int = 24) -> nn.Module:
    """The network with random weights, smaller where asked for.

    The card's ``dynamic_img_size=False`` refuses other inputs than 224 px; at 224 px it makes no
    difference, so other sizes are let through.
    """
    return timm_network(
        "vit_giant_patch14_reg4_dinov2",
        img_size=224,
        init_values=1e-5,
        dynamic_img_size=True,
        depth=depth,
        embed_dim=width,
        num_heads=heads,
    )
