"""ResNet50 up to and including its third stage, average pooled: CLAM's and CRANE's encoder.

(Lu et al., Nature Biomedical Engineering 2021; He et al., CVPR 2016.) 1024 features a patch.
torchvision's ``IMAGENET1K_V1`` and timm's ``resnet50.tv_in1k`` are the same tensors; a file of
either, whole or truncated, fits.
"""

from typing import Any

import torch
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from crane_ray.features.encoder import EncoderCard
from crane_ray.features.weights import without_wrappers

CARD = EncoderCard(
    dim=1024,
    input_size_px=224,
    output="average pooled third stage",
    license="BSD-3-Clause",
    downloads={"imagenet": ResNet50_Weights.IMAGENET1K_V1.url},
)

STAGES = ("conv1", "bn1", "layer1", "layer2", "layer3")


class TruncatedResNet50(nn.Module):
    """(B, 3, S, S) normalised images -> (B, 1024) features."""

    def __init__(self) -> None:
        super().__init__()
        whole = resnet50(weights=None)
        self.conv1, self.bn1 = whole.conv1, whole.bn1
        self.layer1, self.layer2, self.layer3 = whole.layer1, whole.layer2, whole.layer3

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Features of a batch."""
        hidden = torch.relu(self.bn1(self.conv1(images_B3SS)))
        hidden = nn.functional.max_pool2d(hidden, kernel_size=3, stride=2, padding=1)
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        features_BD: torch.Tensor = hidden.mean(dim=(2, 3), dtype=torch.float32)
        return features_BD


def build() -> nn.Module:
    """The network with random weights."""
    return TruncatedResNet50()


def prepare_state(state: dict[str, Any]) -> dict[str, Any]:
    """The tensors of the stages that are used, whatever prefix they were saved under."""
    bare = without_wrappers(state)
    return {key: tensor for key, tensor in bare.items() if key.split(".", 1)[0] in STAGES}
