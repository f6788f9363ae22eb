"""Cohorts of very uneven slides that are nowhere but in a table, some of them bad."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from crane_ray.features.extraction import Shard
from crane_ray.features.store import CHUNK_ROWS, CHUNKS_PER_SHARD, FeatureStore
from crane_ray.slides.workspace import SlideRow, Workspace
from tests.unit.features.small_store import SPEC, make_recipe

SHARD_ROWS = CHUNK_ROWS * CHUNKS_PER_SHARD
TINY_SHARE, LARGE_SHARE = 0.02, 0.001
"""Of slides of 1 to 20 patches, and of very large ones."""
LARGE_SHARDS = 300
SIGMA = 1.2
"""Of the logarithm of the other slides' patches: one in ten is more than twice the mean."""


def skewed_slides(num_slides: int, shards_a_slide: float, seed: int) -> list[int]:
    """Patches of slides: most log-normal, some tiny, a few of 300 shards.

    Args:
        num_slides: how many.
        shards_a_slide: the mean, about; those of large slides included.
        seed: the same one gives the same slides.
    """
    rng = np.random.default_rng(seed)
    usual = max(shards_a_slide - 0.25 - LARGE_SHARE * LARGE_SHARDS, 0.2) * SHARD_ROWS
    median = usual / np.exp(SIGMA**2 / 2)
    patches = np.clip(
        rng.lognormal(np.log(median), SIGMA, num_slides), 1, LARGE_SHARDS * SHARD_ROWS
    )
    kind = rng.random(num_slides)
    tiny = kind < TINY_SHARE
    patches[tiny] = rng.integers(1, 21, tiny.sum())
    patches[kind > 1 - LARGE_SHARE] = LARGE_SHARDS * SHARD_ROWS
    return [int(count) for count in np.ceil(patches)]


@dataclass(frozen=True)
class Faults:
    """Slides that go wrong."""

    bad: frozenset[str] = field(default_factory=frozenset)
    """Their first shard cannot be decoded."""
    killers: frozenset[str] = field(default_factory=frozenset)
    """Every shard of them kills the actor that begins it."""

    @classmethod
    def drawn(
        cls, slide_ids: Sequence[str], *, bad: float = 0, killers: int = 0, seed: int = 0
    ) -> "Faults":
        """A share of bad slides and so many killers among some slides."""
        rng = np.random.default_rng(seed)
        order = [slide_ids[place] for place in rng.permutation(len(slide_ids))]
        num_bad = round(bad * len(order))
        return cls(frozenset(order[:num_bad]), frozenset(order[num_bad : num_bad + killers]))


def slide_name(number: int) -> str:
    """As long as usual ones."""
    return f"TCGA-A{number:06d}-01Z-00-DX1"


def slide_row(number: int, num_patches: int) -> SlideRow:
    """A patched slide of the table."""
    name = slide_name(number)
    return SlideRow(
        name,
        f"s3://bucket/slides/{name}.svs",
        "ok",
        case_id=name[:12],
        mpp=0.25,
        num_patches=num_patches,
        spec_fingerprint=SPEC.fingerprint(),
        plan_fingerprint=f"{number:032x}",
        coords_checksum=f"{number:064x}",
    )


def slide_shards(patches: Sequence[int]) -> Iterator[Shard]:
    """The shards of slides with so many patches."""
    for number, num_patches in enumerate(patches):
        row = slide_row(number, num_patches)
        for shard in range(-(-num_patches // SHARD_ROWS)):
            path = f"s3://bucket/made/patches/{row.slide_id}.h5"
            checksum = row.coords_checksum or ""
            yield Shard(row.slide_id, row.uri, path, num_patches, checksum, shard)


def write_cohort(root: Path, patches: Sequence[int]) -> None:
    """A workspace whose slides have so many patches, and an empty store, ``store``, for them."""
    rows = (slide_row(number, count) for number, count in enumerate(patches))
    Workspace(str(root)).write_slides(rows)
    FeatureStore.open_or_create(str(root / "store"), make_recipe())
