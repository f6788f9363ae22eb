"""An encoder of mean colours that takes its time, so that a test can interrupt it."""

import os
import time

import torch
from torch import nn

from crane_ray.features.encoder import EncoderCard

CARD = EncoderCard(dim=12, input_size_px=32)
SECONDS_A_BATCH = float(os.environ.get("SLOW_COLOUR_S", "0"))


class MeanColours(nn.Module):
    """(B, 3, S, S) -> (B, 12): mean colour of each quadrant."""

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        time.sleep(SECONDS_A_BATCH)
        return nn.functional.adaptive_avg_pool2d(images_B3SS.float(), 2).flatten(1)


def build() -> nn.Module:
    return MeanColours()
