"""Shards packed into blocks, one task each: large ones first, small ones last. Imports no ray.

Guided self-scheduling (Polychronopoulos and Kuck, 1987): a block is a fixed share of what is left
for each actor. A run of a million shards costs Ray a task for every eight of them, slides of twenty
patches share a task, and the last tasks are short enough for all actors to end together.
"""

from collections.abc import Iterable, Iterator

from crane_ray.features.extraction import Shard

SHARE = 8
"""Blocks that what is left is cut into for each actor."""
MOST_SHARDS = 8
"""What the death of a worker costs at most, and what a receipt waits for."""
GPUS_A_STEP, MOST_STEPS = 250, 4
"""A driver sends 200 blocks a second, which is what 900 GPUs take of a ViT-L's whole blocks; for
larger pools of GPUs, which do a shard in a second, blocks grow with the pool, up to four times."""


def most_shards(num_actors: int, *, on_gpu: bool) -> int:
    """Shards of the largest blocks for a pool."""
    return MOST_SHARDS * (min(max(num_actors // GPUS_A_STEP, 1), MOST_STEPS) if on_gpu else 1)


def pack_shards(
    shards: Iterable[Shard],
    *,
    num_patches: int,
    shard_rows: int,
    num_actors: int,
    most: int = MOST_SHARDS,
) -> Iterator[list[Shard]]:
    """Blocks of shards in their order.

    Args:
        shards: what is to be done.
        num_patches: the patches of all of them.
        shard_rows: patches of a whole shard; two blocks that follow each other have together more
            than that.
        num_actors: how many work on them.
        most: times ``shard_rows`` that no block exceeds.
    """
    left, block, size = num_patches, list[Shard](), 0
    for shard in shards:
        rows = min(shard_rows, shard.num_patches - shard.shard * shard_rows)
        share = left // (SHARE * num_actors)
        wanted = min(max(share, shard_rows), most * shard_rows)
        if block and size + rows > wanted:
            yield block
            left, block, size = left - size, [], 0
        block.append(shard)
        size += rows
    if block:
        yield block
