"""Softmax, maxima and weighted sums over bags that lie one after the other.

Shapes: N patches of all bags together, B bags, D feature length, H attention rows, E embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from crane_ray.errors import ConfigError


@dataclass(frozen=True)
class Segments:
    """Which patches belong to which bag."""

    sizes_B: tuple[int, ...]
    """Patches of each bag, each at least one."""
    bag_N: torch.Tensor
    """(N,) int64 place of each patch's bag."""

    @classmethod
    def of(cls, sizes_B: Sequence[int], device: torch.device) -> Self:
        """The segments of bags with these numbers of patches, on a device."""
        sizes = torch.tensor(tuple(sizes_B), dtype=torch.int64, device=device)
        places = torch.arange(len(sizes), device=device)
        # without the size of the output, CUDA would wait for the device to tell it
        bag_N = torch.repeat_interleave(places, sizes, output_size=sum(sizes_B))
        return cls(tuple(sizes_B), bag_N)

    def softmax(self, scores_HN: torch.Tensor) -> torch.Tensor:
        """(H, N) softmax of each row over each bag's patches, in the scores' dtype."""
        highest_HN = self._max(scores_HN.detach())[:, self.bag_N]
        exp_HN = (scores_HN - highest_HN).exp()
        empty_HB = exp_HN.new_zeros(len(scores_HN), len(self.sizes_B))
        sum_HB = empty_HB.index_add(1, self.bag_N, exp_HN)
        return exp_HN / sum_HB[:, self.bag_N]

    def argmax(self, scores_N: torch.Tensor) -> torch.Tensor:
        """(B,) int64 place among all N of each bag's first highest score; NaN counts as highest."""
        highest_N = self._max(scores_N[None])[0, self.bag_N]
        num_patches = len(scores_N)
        places_N = torch.arange(num_patches, device=scores_N.device)
        is_highest_N = (scores_N == highest_N) | scores_N.isnan()
        candidates_N = torch.where(is_highest_N, places_N, num_patches)
        first_B = torch.full((len(self.sizes_B),), num_patches, device=scores_N.device)
        return first_B.scatter_reduce(0, self.bag_N, candidates_N, "amin")

    def pool(self, weights_HN: torch.Tensor, hidden_NE: torch.Tensor) -> torch.Tensor:
        """(B, H, E) sums of each bag's embeddings, weighted by each row.

        A small product a bag costs least on a CPU (24 ms for 8 bags of 2000 patches with three
        rows, where one product of all takes 37 ms and index_add 72 ms; for 64 bags of 250 it is
        28, 149 and 58 ms); a GPU would wait for the launches, and index_add's order of adding
        differs there from run to run.
        """
        if hidden_NE.is_cuda:
            return self.pool_at_once(weights_HN, hidden_NE)
        return self.pool_by_bag(weights_HN, hidden_NE)

    def pool_by_bag(self, weights_HN: torch.Tensor, hidden_NE: torch.Tensor) -> torch.Tensor:
        """As `pool`, one matrix product a bag."""
        pairs = zip(
            weights_HN.split_with_sizes(self.sizes_B, dim=1),
            hidden_NE.split_with_sizes(self.sizes_B),
            strict=True,
        )
        return torch.stack([weights_HP @ hidden_PE for weights_HP, hidden_PE in pairs])

    def pool_at_once(self, weights_HN: torch.Tensor, hidden_NE: torch.Tensor) -> torch.Tensor:
        """As `pool`, one matrix product for all bags, with zeros for the others' patches."""
        num_bags, num_rows = len(self.sizes_B), len(weights_HN)
        places_B = torch.arange(num_bags, device=hidden_NE.device)
        is_own_B1N = (self.bag_N == places_B[:, None])[:, None]
        weights_BHN = torch.where(is_own_B1N, weights_HN, weights_HN.new_zeros(()))
        return (weights_BHN.flatten(0, 1) @ hidden_NE).reshape(num_bags, num_rows, -1)

    def _max(self, scores_HN: torch.Tensor) -> torch.Tensor:
        lowest_HB = scores_HN.new_full((len(scores_HN), len(self.sizes_B)), -torch.inf)
        return lowest_HB.scatter_reduce(1, self.bag_N.expand_as(scores_HN), scores_HN, "amax")


def check_bags(features_ND: torch.Tensor, dim: int, sizes_B: Sequence[int] | None) -> None:
    """Refuses bags that no network of features of length ``dim`` can answer for.

    Args:
        features_ND: (N, D) features of all bags.
        dim: the length of features that the network was made for.
        sizes_B: patches of each bag; one bag of all where not given.

    Raises:
        ConfigError: features of another length, or a bag without patches.
    """
    num_patches, length = features_ND.shape
    if length != dim:
        raise ConfigError(
            f"features of length {length}: the network was made for {dim}; use the features of "
            "the encoder that it was trained with"
        )
    sizes = (num_patches,) if sizes_B is None else tuple(sizes_B)
    assert sum(sizes) == num_patches, f"bags of {sizes} patches, but {num_patches} features"
    if min(sizes, default=0) < 1:
        raise ConfigError(
            f"bag {sizes.index(0) + 1 if sizes else 0} of {len(sizes)}: has no patches; leave "
            "out slides without features"
        )
