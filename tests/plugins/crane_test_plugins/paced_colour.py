"""An encoder of mean colours, as slow as a test orders it to be while it runs."""

import time
from itertools import count

import torch
from torch import nn

from crane_ray.features.encoder import EncoderCard

from .faults import order
from .slow_colour import MeanColours

CARD = EncoderCard(dim=12, input_size_px=32)
BATCHES = count(1)
"""Of this process."""


class PacedColours(MeanColours):
    """(B, 3, S, S) -> (B, 12): mean colour of each quadrant."""

    def forward(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        batch = next(BATCHES)
        while batch > int(order("batches before a halt") or batch):
            time.sleep(0.02)
        time.sleep(float(order("seconds a batch") or 0))
        return super().forward(images_B3SS)


def build() -> nn.Module:
    return PacedColours()
