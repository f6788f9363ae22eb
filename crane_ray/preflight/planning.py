"""What an extraction costs: GPU-hours, wall time, storage, and the CPUs that a GPU needs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crane_ray.preflight.rates import RatesFile

COORD_BYTES = 8
"""x and y of a patch, int32 each."""
SLIDE_BYTES = 3_000
"""A slide's metadata, and its rows of index and ledger."""
CHUNK_ROWS = 512
"""Rows of a chunk; the last one of a larger slide is filled up to it."""
ITEM_BYTES = {"float16": 2, "float32": 4}


@dataclass(frozen=True)
class CohortSize:
    """How much there is to do."""

    num_patches: tuple[int, ...]
    """Of each slide that has any."""
    slide_bytes: int = 0
    """Of all slides together, where known."""
    basis: str = ""
    """Where the numbers of patches come from, in words."""


@dataclass(frozen=True)
class Group:
    """Nodes, or a whole cluster, whose CPUs decode for their own GPUs."""

    cpus: float
    gpus: float
    encode: float
    """Patches a second that one GPU encodes, or one core where there is none."""
    decode: float | None
    """Patches a second that one core decodes; None where that is unknown."""

    @property
    def patches_a_second(self) -> float:
        """Of the whole group: the slower of decoding and encoding, or one core doing both."""
        if self.gpus:
            encoding = self.gpus * self.encode
            return encoding if self.decode is None else min(encoding, self.cpus * self.decode)
        seconds = 1 / self.encode + (1 / self.decode if self.decode else 0)
        return self.cpus / seconds

    @property
    def is_limited_by_decoding(self) -> bool:
        """True where GPUs wait for patches."""
        if not self.gpus or self.decode is None:
            return False
        return self.cpus * self.decode < self.gpus * self.encode


@dataclass(frozen=True)
class Plan:
    """What it comes to."""

    num_slides: int
    num_patches: int
    patches_a_second: float
    wall_hours: float
    gpu_hours: float | None
    """Of encoding alone; None where CPUs encode."""
    gpu_hours_held: float | None
    """All GPUs for the whole time; more than `gpu_hours` where they wait for patches."""
    cpu_hours: float
    cpus_per_gpu: int | None
    """That keep a GPU busy; None where CPUs encode, or the rate of decoding is unknown."""
    cpus_there_per_gpu: float | None
    decoding_limits: bool
    store_bytes: int
    read_bytes_a_second: float
    """At which slides must come from storage; 0 where their sizes are unknown."""


def groups_of(rates: RatesFile, *, on_gpu: bool | None = None) -> list[Group]:
    """The parts of a measured cluster that would encode.

    Args:
        rates: of the cluster.
        on_gpu: nodes of this kind alone; where not given, those with GPUs if there are any.
    """
    if on_gpu is None:
        on_gpu = any(node.on_gpu for node in rates.nodes)
    nodes = [node for node in rates.nodes if node.on_gpu == on_gpu]
    return [
        Group(node.cpus, node.gpus if node.on_gpu else 0, node.encode, node.decode)
        for node in nodes
        if node.cpus
    ]


def make_plan(
    cohort: CohortSize, groups: Sequence[Group], *, dim: int, dtype: str = "float16"
) -> Plan:
    """The cost of a cohort's features on a cluster that does nothing else.

    Args:
        cohort: its slides' patches.
        groups: of nodes; each takes shards at its own pace.
        dim: numbers in a feature vector.
        dtype: of what is stored.
    """
    patches = sum(cohort.num_patches)
    rate = sum(group.patches_a_second for group in groups)
    seconds = patches / rate
    gpus = sum(group.gpus for group in groups)
    cpus = sum(group.cpus for group in groups)
    # Each group encodes a share of the patches that is its share of the pace.
    busy = sum(
        patches * group.patches_a_second / rate / group.encode for group in groups if group.gpus
    )
    needed = [
        math.ceil(group.encode / group.decode) for group in groups if group.gpus and group.decode
    ]
    return Plan(
        num_slides=len(cohort.num_patches),
        num_patches=patches,
        patches_a_second=rate,
        wall_hours=seconds / 3600,
        gpu_hours=busy / 3600 if gpus else None,
        gpu_hours_held=gpus * seconds / 3600 if gpus else None,
        cpu_hours=cpus * seconds / 3600,
        cpus_per_gpu=max(needed, default=None),
        cpus_there_per_gpu=cpus / gpus if gpus else None,
        decoding_limits=any(group.is_limited_by_decoding for group in groups),
        store_bytes=store_bytes(cohort.num_patches, dim, dtype),
        read_bytes_a_second=cohort.slide_bytes / seconds if seconds else 0,
    )


def store_bytes(num_patches: Sequence[int], dim: int, dtype: str) -> int:
    """Bytes of a Zarr store: N x D numbers, coordinates, filled-up last chunks, metadata."""
    row = dim * ITEM_BYTES[dtype] + COORD_BYTES
    return sum(
        row * (count if count <= CHUNK_ROWS else -(-count // CHUNK_ROWS) * CHUNK_ROWS) + SLIDE_BYTES
        for count in num_patches
    )
