"""Bags: what a network sees at once, a slide or all slides of a patient."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from crane_ray.cohort.cohort import Cohort
from crane_ray.mil.pack import Pack

BagLevel = Literal["slide", "case"]


@dataclass(frozen=True)
class Bag:
    """A slide, or a patient's slides together."""

    bag_id: str
    """The slide's id, or the case's."""
    case_id: str
    slide_ids: tuple[str, ...]
    labels_T: tuple[int, ...]
    """Class index of each task; `MISSING` where there is none."""


def make_bags(cohort: Cohort, level: BagLevel = "slide") -> tuple[Bag, ...]:
    """The bags of a cohort: slides in the table's order, or cases in the order of their ids.

    A case's label is the largest of its slides', as CRANE and CLAM take it.
    """
    if level == "slide":
        rows = zip(cohort.slide_ids, cohort.case_ids, cohort.labels_ST.tolist(), strict=True)
        return tuple(Bag(slide, case, (slide,), tuple(labels)) for slide, case, labels in rows)
    slides = cohort.case_slides()
    cases, labels_CT = cohort.case_labels("max")
    return tuple(
        Bag(case, case, slides[case], tuple(labels))
        for case, labels in zip(cases, labels_CT.tolist(), strict=True)
    )


class BagReader:
    """Features of bags as tensors on a device.

    Args:
        pack: where they are.
        device: where they go.
        dtype: the type they have there.
        max_patches: larger bags are subsampled while training, anew in every epoch.
        resident_bytes: features that stay on the device as they are stored; for GPUs, where the
            whole of a cohort often fits.
    """

    def __init__(
        self,
        pack: Pack,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        max_patches: int | None = None,
        resident_bytes: int = 0,
    ) -> None:
        self.pack = pack
        self.device = torch.device(device)
        self.dtype = dtype
        self.max_patches = max_patches
        self._room = resident_bytes
        self._resident: dict[tuple[str, ...], torch.Tensor] = {}

    def num_patches(self, bag: Bag) -> int:
        """Patches of a whole bag."""
        return sum(self.pack.num_patches(slide_id) for slide_id in bag.slide_ids)

    def read(self, bag: Bag) -> torch.Tensor:
        """(N, D) features of a whole bag."""
        held_ND = self._resident.get(bag.slide_ids)
        if held_ND is None:
            held_ND = torch.from_numpy(self._rows(bag)).to(self.device, non_blocking=True)
            if held_ND.nbytes <= self._room:
                self._room -= held_ND.nbytes
                self._resident[bag.slide_ids] = held_ND
        return held_ND.to(self.dtype)

    def sample(self, bag: Bag, *, seed: int, epoch: int) -> torch.Tensor:
        """(n, D) features of a bag as training sees them in an epoch: at most `max_patches`.

        The choice depends on the seed, the epoch and the bag, not on what else is read.
        """
        num_patches = self.num_patches(bag)
        if self.max_patches is None or num_patches <= self.max_patches:
            return self.read(bag)
        number = int.from_bytes(hashlib.sha256(bag.bag_id.encode()).digest()[:8], "little")
        generator = np.random.default_rng([seed, epoch, number])
        picked = np.sort(generator.choice(num_patches, self.max_patches, replace=False))
        if self._room or bag.slide_ids in self._resident:
            return self.read(bag)[torch.from_numpy(picked).to(self.device)]
        # only what is picked is read, converted and moved
        return torch.from_numpy(self._rows(bag)[picked]).to(self.device).to(self.dtype)

    def _rows(self, bag: Bag) -> npt.NDArray[Any]:
        """(N, D) features as they are packed: of one slide mapped, of several copied."""
        parts = [self.pack.read(slide_id) for slide_id in bag.slide_ids]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def labels_tensor(bags: Sequence[Bag]) -> torch.Tensor:
    """(B, T) int64 class indices of bags."""
    return torch.tensor([bag.labels_T for bag in bags], dtype=torch.int64)
