"""The books of an extraction: which shards are missing, what came back, which slides are whole.

Plain Python without Ray. The ledger is written before the index, which follows from it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from crane_ray import storage
from crane_ray.features.extraction import Shard
from crane_ray.features.ledger import IndexRow, Receipt
from crane_ray.features.standing import Committed, Standing, WrittenShards, standings
from crane_ray.features.store import FeatureStore
from crane_ray.slides.workspace import SlideRow, Workspace

PROMPT_RECEIPTS = 500
"""Receipts that reach the ledger at once; a longer run writes them once a second."""
LEDGER_EVERY_S = 1.0
INDEX_EVERY_S = 2.0
INDEX_SHARE = 20
"""The index is rewritten whole: at most one part in so many of the time goes into it."""
NO_ATTEMPTS: Mapping[int, int] = MappingProxyType({})
"""Shared by the slides that never failed."""


@dataclass(slots=True)
class SlideWork:
    """A slide that is not whole yet: which of its shards are there."""

    row: SlideRow
    written: WrittenShards = field(default_factory=WrittenShards)
    attempts: Mapping[int, int] = field(default_factory=lambda: NO_ATTEMPTS)
    """Failed attempts at shards that are not there, in earlier runs."""


class Books:
    """Takes receipts, commits whole slides, and knows what is still to do."""

    def __init__(
        self,
        store: FeatureStore,
        workspace: Workspace,
        rows: dict[str, SlideRow],
        *,
        replace_stale: bool = False,
        on_commit: Callable[[IndexRow], None] = lambda row: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens the books of a store.

        Args:
            store: whose books they are.
            workspace: of the slides.
            rows: the slides.
            replace_stale: discard features of slides whose patches changed since.
            on_commit: told each slide that becomes whole.
            clock: seconds by which it is time to write.
        """
        self.failed: dict[str, str] = {}
        """Reasons by slide_id."""
        self.done: set[str] = set()
        """Committed in this run."""
        self.skipped: set[str] = set()
        """Committed by earlier runs."""
        self.num_encoded = 0
        """Patches whose features were written in this run."""
        self.todo: dict[str, SlideWork] = {}
        """Neither committed nor failed."""
        self._store = store
        self._workspace = workspace
        self._rows = rows
        self._committed = Committed(store.index)
        self._on_commit = on_commit
        self._clock = clock
        self._pending: list[Receipt] = []
        self._num_flushed = 0
        self._next_ledger = self._next_index = 0.0
        self._open(replace_stale=replace_stale)

    def missing_shards(self) -> Iterator[Shard]:
        """The shards to extract, slide by slide."""
        for slide_id, work in list(self.todo.items()):
            row = work.row
            assert row.num_patches is not None
            assert row.coords_checksum is not None
            patches = self._workspace.patches(slide_id)
            for shard in range(self._store.num_shards(row.num_patches)):
                if shard not in work.written:
                    yield Shard(
                        slide_id=slide_id,
                        uri=row.uri,
                        patches=patches,
                        num_patches=row.num_patches,
                        coords_checksum=row.coords_checksum,
                        shard=shard,
                        attempt=work.attempts.get(shard, 0) + 1,
                    )

    def num_missing_patches(self) -> int:
        """Patches of the shards to extract."""
        return sum(self._num_missing_patches(work) for work in self.todo.values())

    def _num_missing_patches(self, work: SlideWork) -> int:
        num_patches = work.row.num_patches or 0
        last = self._store.num_shards(num_patches) - 1
        missing = num_patches - len(work.written) * self._store.header.shard_rows
        if last in work.written:  # the last shard is shorter than the others
            missing += self._store.header.shard_rows - len(
                self._store.shard_rows(num_patches, last)
            )
        return missing

    def take(self, receipt: Receipt) -> bool:
        """Books a receipt; True where it made its slide whole or failed."""
        self._pending.append(receipt)
        self.num_encoded += receipt.rows
        work = self.todo.get(receipt.slide_id)
        ended = False
        if work is not None and receipt.status == "ok":
            work.written.add(receipt)
            ended = self._commit_if_whole(work)
            if ended:
                self.done.add(receipt.slide_id)
        elif work is not None:
            self.fail(receipt.slide_id, receipt.error)
            ended = True
        self._flush_if_due()
        return ended

    def fail(self, slide_id: str, reason: str) -> None:
        """Gives a slide up for this run; its shards that are there stay for the next."""
        self.todo.pop(slide_id, None)
        self.failed.setdefault(slide_id, reason)

    def flush(self) -> None:
        """Writes receipts, then the index if it changed.

        Raises:
            StorageError: one of them cannot be written.
        """
        self._flush_ledger()
        self._flush_index()

    def _open(self, *, replace_stale: bool) -> None:
        self._store.clear_unfinished()
        wanted = self._store.recipe.patch.fingerprint()
        for slide_id, row in self._rows.items():
            problem = _problem(row, wanted)
            if problem:
                self.failed[slide_id] = problem
            elif row.status == "ok":
                self.todo[slide_id] = SlideWork(row)
        stale = {
            standing.slide_id
            for standing in standings(self._store.ledger)
            if not self._place(standing, replace_stale=replace_stale)
        }
        self._committed.end_of_ledger()
        if stale:
            self._store.discard(
                receipt
                for slide_id, shards in self._store.ledger.slides()
                if slide_id in stale
                for receipt in shards.values()
                if receipt.status == "ok"
            )
        self.flush()

    def _place(self, standing: Standing, *, replace_stale: bool) -> bool:
        """Finds a slide of the ledger its place; False where its features are to be replaced."""
        work = self.todo.get(standing.slide_id)
        if work is None:
            self._keep(standing)
        elif standing.coords_checksums <= {work.row.coords_checksum}:
            self._resume(work, standing)
        elif replace_stale:
            return False
        else:
            self._keep(standing)
            self.fail(
                standing.slide_id,
                "its patches changed since its features were extracted, which are kept; use "
                "--replace-stale to extract it again, or another --store",
            )
        return True

    def _resume(self, work: SlideWork, standing: Standing) -> None:
        row, written = work.row, standing.written
        if self._is_whole(row, written):
            self.todo.pop(row.slide_id)
            self.skipped.add(row.slide_id)
            committed = written.commit(row.slide_id, row.case_id, self._dim, row.mpp)
            self._committed.settle(committed)
            return
        work.written, work.attempts = written, standing.attempts or NO_ATTEMPTS
        if not len(written):
            # A failed slide without a whole shard may have met arrays of other patches.
            storage.remove_tree(self._store.slide_path(row.slide_id))

    def _keep(self, standing: Standing) -> None:
        """A whole slide stays committed, whatever became of it in the workspace."""
        slide_id, written = standing.slide_id, standing.written
        if len(written) and len(written) == self._store.num_shards(written.num_patches):
            row = self._rows.get(slide_id) or self._committed.known(slide_id)
            case_id, mpp = (row.case_id, row.mpp) if row else ("", None)
            self._committed.settle(written.commit(slide_id, case_id, self._dim, mpp))

    def _commit_if_whole(self, work: SlideWork) -> bool:
        if not self._is_whole(work.row, work.written):
            return False
        row = work.row
        committed = work.written.commit(row.slide_id, row.case_id, self._dim, row.mpp)
        self._committed.add(committed)
        self.todo.pop(row.slide_id, None)
        self._on_commit(committed)
        return True

    def _is_whole(self, row: SlideRow, written: WrittenShards) -> bool:
        assert row.num_patches is not None
        return len(written) >= self._store.num_shards(row.num_patches)

    @property
    def _dim(self) -> int:
        return self._store.recipe.encoder.dim

    def _flush_if_due(self) -> None:
        now = self._clock()
        if now >= self._next_ledger or self._num_flushed < PROMPT_RECEIPTS:
            self._flush_ledger()
            self._next_ledger = now + LEDGER_EVERY_S
        if now >= self._next_index:
            self._flush_index()
            ended = self._clock()
            self._next_index = ended + max(INDEX_EVERY_S, INDEX_SHARE * (ended - now))

    def _flush_ledger(self) -> None:
        self._store.ledger.append(self._pending)
        self._num_flushed += len(self._pending)
        self._pending = []

    def _flush_index(self) -> None:
        if self._committed.changed:
            self._flush_ledger()
            self._committed.flush()


def _problem(row: SlideRow, spec_fingerprint: str) -> str:
    """Why a slide of the workspace cannot be extracted; empty where it can, or has no tissue."""
    if row.status == "failed":
        return f"failed in patching: {row.reason}"
    if row.status == "ok" and row.num_patches is None:
        return "segmented only (--seg-only): run crane-ray patch without it"
    if row.status == "ok" and row.spec_fingerprint != spec_fingerprint:
        return (
            "its patches have another size or scale than the store's; patch it again with the "
            "store's spec, or extract into another --store"
        )
    return ""
