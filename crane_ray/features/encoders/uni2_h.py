"""UNI 2: a ViT-H/14 with 8 registers, DINOv2, 200 million H&E and IHC patches; its class token.

(Model card of MahmoodLab/UNI2-h, 2025.) 1536 features a patch.
"""

from torch import nn

from crane_ray.features.encoder import EncoderCard, HubWeights
from crane_ray.features.transformers import gated_units, timm_network
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=1536,
    input_size_px=224,
    output="class token",
    token_px=14,
    recommended_mpp=(0.5,),
    recommended_patch_px=(256,),
    hub=HubWeights(
        "MahmoodLab/UNI2-h",
        ("pytorch_model.bin",),
        "d517a8dd47902dd7c308b3c36f63bce47e7b9a43",
        gated=True,
    ),
    license="CC BY-NC-ND 4.0",
    requires=("timm",),
)

prepare_state = without_wrappers


def build(*, depth: int = 24, width: int = 1536, heads: int = 24) -> nn.Module:
    """The network with random weights, smaller where asked for."""
    return timm_network(
        "vit_giant_patch14_224",
        img_size=224,
        patch_size=14,
        init_values=1e-5,
        mlp_ratio=2.66667 * 2,
        no_embed_class=True,
        reg_tokens=8,
        dynamic_img_size=True,
        depth=depth,
        embed_dim=width,
        num_heads=heads,
        **gated_units(),
    )
