"""The books of an extraction: which shards are missing, what came back, which slides are whole.

Plain Python without Ray. The ledger is written before the index, which follows from it.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from crane_ray import storage
from crane_ray.features.extraction import Shard
from crane_ray.features.ledger import IndexRow, Receipt, WrittenShards
from crane_ray.features.store import FeatureStore
from crane_ray.slides.workspace import SlideRow, Workspace

PROMPT_RECEIPTS = 500
"""Receipts that reach the ledger at once; a longer run writes them once a second."""
LEDGER_EVERY_S = 1.0
INDEX_EVERY_S = 2.0
INDEX_SHARE = 20
"""The index is rewritten whole: at most one part in so many of the time goes into it."""


@dataclass(slots=True)
class SlideWork:
    """A slide that is not whole yet: which of its shards are there."""

    row: SlideRow
    written: WrittenShards = field(default_factory=WrittenShards)
    attempts: dict[int, int] = field(default_factory=dict)
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
    ) -> None:
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
        self._index: dict[str, IndexRow] = {}
        self._index_changed = False
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
            for shard in range(self._store.num_shards(row.num_patches)):
                if shard not in work.written:
                    yield Shard(
                        slide_id=slide_id,
                        uri=row.uri,
                        patches=self._workspace.patches(slide_id),
                        num_patches=row.num_patches,
                        coords_checksum=row.coords_checksum,
                        shard=shard,
                        attempt=work.attempts.get(shard, 0) + 1,
                    )

    def num_missing_patches(self) -> int:
        """Patches of the shards to extract."""
        shards = self.missing_shards()
        return sum(len(self._store.shard_rows(shard.num_patches, shard.shard)) for shard in shards)

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
        wanted = self._store.recipe.patch.fingerprint()
        for slide_id, row in self._rows.items():
            problem = _problem(row, wanted)
            if problem:
                self.failed[slide_id] = problem
            elif row.status == "ok":
                self.todo[slide_id] = SlideWork(row)
        stale: list[Receipt] = []
        known = self._store.index.read()
        for slide_id, receipts in self._store.ledger.slides(brief=True):
            written = {shard: r for shard, r in receipts.items() if r.status == "ok"}
            work = self.todo.get(slide_id)
            if work is None:
                self._keep(slide_id, written, known.get(slide_id))
            elif all(r.coords_checksum == work.row.coords_checksum for r in written.values()):
                self._resume(work, receipts, written)
            elif replace_stale:
                stale += written.values()
            else:
                self._keep(slide_id, written, known.get(slide_id))
                self.fail(
                    slide_id,
                    "its patches changed since its features were extracted, which are kept; use "
                    "--replace-stale to extract it again, or another --store",
                )
            if self._index.get(slide_id) == known.get(slide_id) and slide_id in known:
                self._index[slide_id] = known[slide_id]  # equal, and held in memory once
        if stale:
            self._store.discard(stale)
        self._index_changed = self._index != known
        self.flush()

    def _resume(
        self, work: SlideWork, receipts: dict[int, Receipt], written: dict[int, Receipt]
    ) -> None:
        work.written = WrittenShards(written.values())
        work.attempts = {n: r.attempt for n, r in receipts.items() if r.status == "error"}
        if self._commit_if_whole(work):
            self.skipped.add(work.row.slide_id)
        elif not written:
            # A failed slide without a whole shard may have met arrays of other patches.
            storage.remove_tree(self._store.slide_path(work.row.slide_id))

    def _keep(self, slide_id: str, written: dict[int, Receipt], known: IndexRow | None) -> None:
        """A whole slide stays committed, whatever became of it in the workspace."""
        if not written:
            return
        num_patches = next(iter(written.values())).num_patches
        if len(written) == self._store.num_shards(num_patches):
            row = self._rows.get(slide_id) or known
            case_id, mpp = (row.case_id, row.mpp) if row else ("", None)
            shards = WrittenShards(written.values())
            self._index[slide_id] = shards.commit(slide_id, case_id, self._dim, mpp)

    def _commit_if_whole(self, work: SlideWork) -> bool:
        row = work.row
        assert row.num_patches is not None
        if len(work.written) < self._store.num_shards(row.num_patches):
            return False
        committed = work.written.commit(row.slide_id, row.case_id, self._dim, row.mpp)
        self._index[row.slide_id] = committed
        self._index_changed = True
        self.todo.pop(row.slide_id, None)
        return True

    @property
    def _dim(self) -> int:
        return self._store.recipe.encoder.dim

    def _flush_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_ledger or self._num_flushed < PROMPT_RECEIPTS:
            self._flush_ledger()
            self._next_ledger = now + LEDGER_EVERY_S
        if now >= self._next_index:
            self._flush_index()
            ended = time.monotonic()
            self._next_index = ended + max(INDEX_EVERY_S, INDEX_SHARE * (ended - now))

    def _flush_ledger(self) -> None:
        self._store.ledger.append(self._pending)
        self._num_flushed += len(self._pending)
        self._pending = []

    def _flush_index(self) -> None:
        if self._index_changed:
            self._flush_ledger()
            self._store.index.write(self._index.values())
            self._index_changed = False


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
