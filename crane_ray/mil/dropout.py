"""Dropout whose random numbers cost little on a CPU."""

import torch
from torch import nn
from torch.nn import functional

BITS = {8: torch.int8, 16: torch.int16}


class Dropout(nn.Dropout):
    """As torch's own: each value is dropped on its own, those that stay are scaled up.

    On a CPU torch draws a float a value, one at a time: a fifth of a training step in fp32, a
    fourth in bf16 (8.4 ms for a million values). Here 8 bits of torch's generator decide about a
    value (0.6 ms), or 16 where the share is no multiple of 1/256. It is then rounded to a multiple
    of 1/65536, and the scale is that of the rounded share: the mean stays what it was.
    """

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The values while evaluating; otherwise some of them zero and the others scaled."""
        if not self.training or not self.p or values.device.type != "cpu":
            return functional.dropout(values, self.p, self.training)
        return values * keep_mask(values, self.p)


def keep_mask(values: torch.Tensor, share: float) -> torch.Tensor:
    """Of the shape and dtype of values: 0 for a share of them, else the inverse of what is left.

    Args:
        values: on a CPU.
        share: to drop, more than 0 and less than 1.
    """
    bits = 8 if (share * 256).is_integer() else 16
    num_levels = 1 << bits
    num_dropped = min(max(round(share * num_levels), 1), num_levels - 1)
    num_values = values.numel()
    num_words = -(-num_values * bits // 64)
    # made from the values, so that torch.func.vmap draws anew for each network
    words = values.new_empty(num_words, dtype=torch.int64).random_(-(1 << 63), None)
    draws = words.view(BITS[bits])[:num_values].view(values.shape)
    # not as a comparison: its bool tensor takes ten times as long
    first_kept = num_dropped - num_levels // 2
    kept = draws.clamp(first_kept - 1, first_kept).sub_(first_kept - 1)
    return kept.to(values.dtype).mul_(num_levels / (num_levels - num_dropped))
