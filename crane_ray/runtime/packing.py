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


def pack_shards(
    shards: Iterable[Shard], *, num_patches: int, shard_rows: int, num_actors: int
) -> Iterator[list[Shard]]:
    """Blocks of shards in their order.

    Args:
        shards: what is to be done.
        num_patches: the patches of all of them.
        shard_rows: patches of a whole shard; no block has more than `MOST_SHARDS` times that, and
            two blocks that follow each other have together more than a shard.
        num_actors: how many work on them.
    """
    left, block, size = num_patches, list[Shard](), 0
    for shard in shards:
        rows = min(shard_rows, shard.num_patches - shard.shard * shard_rows)
        share = left // (SHARE * num_actors)
        wanted = min(max(share, shard_rows), MOST_SHARDS * shard_rows)
        if block and size + rows > wanted:
            yield block
            left, block, size = left - size, [], 0
        block.append(shard)
        size += rows
    if block:
        yield block
