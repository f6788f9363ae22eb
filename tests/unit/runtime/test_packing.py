"""Shards packed into blocks: all of them, in order, large blocks first and small ones last."""

from collections.abc import Iterator
from itertools import chain, pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.features.extraction import Shard
from crane_ray.runtime.packing import MOST_SHARDS, SHARE, most_shards, pack_shards

SHARD_ROWS = 100


def shards_of(slides: list[int]) -> list[Shard]:
    """The shards of slides with so many patches."""
    return [
        Shard(f"slide {number}", "", "", num_patches, "", shard)
        for number, num_patches in enumerate(slides)
        for shard in range(-(-num_patches // SHARD_ROWS))
    ]


def rows_of(block: list[Shard]) -> int:
    return sum(min(SHARD_ROWS, one.num_patches - one.shard * SHARD_ROWS) for one in block)


def packed(slides: list[int], num_actors: int, num_patches: int | None = None) -> list[list[Shard]]:
    blocks = pack_shards(
        shards_of(slides),
        num_patches=sum(slides) if num_patches is None else num_patches,
        shard_rows=SHARD_ROWS,
        num_actors=num_actors,
    )
    return list(blocks)


SLIDES = st.lists(st.one_of(st.integers(1, 30), st.integers(1, 3000)), max_size=60)
ACTORS = st.integers(1, 20)


@settings(deadline=None)
@given(slides=SLIDES, num_actors=ACTORS)
def test_every_shard_is_packed_once_and_in_order(slides: list[int], num_actors: int) -> None:
    blocks = packed(slides, num_actors)
    assert list(chain.from_iterable(blocks)) == shards_of(slides)
    assert all(blocks)


@settings(deadline=None)
@given(slides=SLIDES, num_actors=ACTORS, known=st.floats(0, 1))
def test_blocks_are_neither_large_nor_without_need_small(
    slides: list[int], num_actors: int, known: float
) -> None:
    """Also where the patches are more than was said: stores may miss different shards."""
    sizes = [rows_of(block) for block in packed(slides, num_actors, int(known * sum(slides)))]
    assert all(size <= MOST_SHARDS * SHARD_ROWS for size in sizes)
    assert all(one + other > SHARD_ROWS for one, other in pairwise(sizes))


@settings(deadline=None)
@given(slides=SLIDES, num_actors=ACTORS)
def test_no_block_is_more_than_its_share_of_what_is_left(
    slides: list[int], num_actors: int
) -> None:
    left = sum(slides)
    for block in packed(slides, num_actors):
        assert rows_of(block) <= max(SHARD_ROWS, left / (SHARE * num_actors))
        left -= rows_of(block)
    assert left == 0


def test_the_first_blocks_are_the_largest_and_the_last_are_single_shards() -> None:
    blocks = packed([100_000], num_actors=4)
    lengths = [len(block) for block in blocks]
    assert lengths[:5] == [MOST_SHARDS] * 5
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-4 * SHARE :] == [1] * (4 * SHARE)
    assert len(blocks) < 1000 / 4


def test_large_pools_of_gpus_get_larger_blocks_and_end_together_all_the_same() -> None:
    assert [most_shards(n, on_gpu=True) for n in (1, 250, 499, 500, 1_000, 9_000)] == [
        8, 8, 8, 16, 32, 32,
    ]  # fmt: skip
    assert most_shards(9_000, on_gpu=False) == MOST_SHARDS, "there a shard takes minutes"
    slides = [100 * SHARD_ROWS] * 800
    blocks = list(
        pack_shards(
            shards_of(slides),
            num_patches=sum(slides),
            shard_rows=SHARD_ROWS,
            num_actors=500,
            most=most_shards(500, on_gpu=True),
        )
    )
    assert list(chain.from_iterable(blocks)) == shards_of(slides)
    assert max(map(len, blocks)) == 16
    assert [len(block) for block in blocks[-SHARE * 500 :]] == [1] * (SHARE * 500)
    assert len(blocks) < 0.95 * len(packed(slides, 500))


def test_one_actor_and_one_patch() -> None:
    assert [len(block) for block in packed([1], 1)] == [1]
    assert not packed([], 1)


def test_a_million_tiny_slides_share_blocks_in_linear_time() -> None:
    """Driver memory stays that of one block: shards are taken as blocks are asked for."""
    taken = 0

    def shards() -> Iterator[Shard]:
        nonlocal taken
        shard = Shard("a", "", "", 20, "", 0)
        for taken in range(1, 1_000_001):  # noqa: B007
            yield shard

    blocks = pack_shards(shards(), num_patches=20_000_000, shard_rows=2048, num_actors=16)
    first = next(blocks)
    assert len(first) == MOST_SHARDS * 2048 // 20
    assert taken == len(first) + 1
    sizes = [len(first), *(len(block) for block in blocks)]
    assert sum(sizes) == 1_000_000
    assert len(sizes) < 2 * 20_000_000 / (MOST_SHARDS * 2048)
    assert sizes[-2] <= 2048 // 20
