"""One pass over the slides for several stores: each shard is read once for all that miss it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import merge
from itertools import groupby

from crane_ray.features.commits import Books
from crane_ray.features.extraction import Shard
from crane_ray.features.ledger import Receipt


class JointBooks:
    """The books of several stores that are filled from the same patches."""

    def __init__(self, books: Sequence[Books], slide_ids: Iterable[str]) -> None:
        """Joins books; ``slide_ids`` are those of the workspace, in its order."""
        self.books = list(books)
        self._rank = {slide_id: place for place, slide_id in enumerate(slide_ids)}

    def missing_shards(self) -> Iterator[Shard]:
        """The shards to extract, slide by slide, each with the stores that miss it."""

        def of_store(place: int) -> Iterator[tuple[int, int, int, Shard]]:
            for shard in self.books[place].missing_shards():
                yield self._rank[shard.slide_id], shard.shard, place, shard

        every = merge(*(of_store(place) for place in range(len(self.books))))
        for _, same in groupby(every, key=lambda item: item[:2]):
            items = list(same)
            yield replace(
                items[0][3],
                attempt=max(shard.attempt for *_, shard in items),
                outputs=tuple(place for _, _, place, _ in items),
            )

    def take(self, receipt: Receipt, output: int) -> bool:
        """Books a receipt; True where its slide is now whole or failed in all stores."""
        ended = self.books[output].take(receipt)
        return ended and not any(receipt.slide_id in one.todo for one in self.books)

    def fail(self, slide_id: str, reason: str) -> None:
        """Gives a slide up for this run in the stores that miss it."""
        for one in self.books:
            if slide_id in one.todo:
                one.fail(slide_id, reason)

    def failed(self, slide_id: str) -> bool:
        """True where some store could not be given a slide's features."""
        return any(slide_id in one.failed for one in self.books)

    def todo(self) -> list[str]:
        """Slides that some store misses and that have not failed, in the workspace's order."""
        found = set[str]().union(*(one.todo for one in self.books))
        return sorted(found, key=self._rank.__getitem__)

    def num_missing_patches(self) -> int:
        """Patches to read, each once for all stores (at least: stores may miss different ones)."""
        return max(one.num_missing_patches() for one in self.books)

    def flush(self) -> None:
        """Writes what is not written yet, of every store."""
        for one in self.books:
            one.flush()
