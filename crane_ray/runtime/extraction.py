"""Patches -> features: shards of slides through encoder actors on Ray Data, into stores."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import Any

import pyarrow as pa

from crane_ray.errors import CraneError
from crane_ray.features.cards import ENCODERS
from crane_ray.features.clock import Shares
from crane_ray.features.commits import Books
from crane_ray.features.extraction import Shard
from crane_ray.features.joint import JointBooks
from crane_ray.features.ledger import IndexRow, Receipt
from crane_ray.features.verdict import judge
from crane_ray.manifest import LeftOut
from crane_ray.plugins import require_plugin
from crane_ray.runtime.actors import ExtractionActor, Target, shard_table
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.exchange import EarlyExport, export_slides
from crane_ray.runtime.jobs import ExtractJob
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.lanes import Lane, open_lanes, patched_slides
from crane_ray.runtime.live import LiveCount, Teller, tell_every_s
from crane_ray.runtime.measured import measured
from crane_ray.runtime.packing import most_shards, pack_shards
from crane_ray.runtime.pools import Pool, plan_pool
from crane_ray.runtime.reporting import Reporter, Summary, recorded
from crane_ray.runtime.streams import ActorStream, Row, stream_actors
from crane_ray.slides.workspace import SlideRow, Workspace

DEFAULT_BATCH = {True: 256, False: 32}
"""Patches a batch, on a GPU or not."""
CALLS = {True: 3, False: 2}
"""Blocks that an actor has at once: the next ones are read while one is encoded."""
RETRIES = 1
"""Times that a block is tried again in the company of others, which die with it."""
TRIES_ALONE = 3
"""Times that a slide is then tried by itself, each on new actors: Ray spends the retries of a call
in seconds on a node that is gone before it is known to be."""
SHARES = tuple(one.name for one in fields(Shares))
DEAD_WORKER = (
    "the actor died each time it was tried, alone at last: a crash in the decoding library, or "
    "out of memory; check the file, and a smaller --batch-size"
)


@dataclass
class Run:
    """An extraction under way."""

    config: ExtractJob
    run_id: str
    pool: Pool
    lanes: Sequence[Lane]
    books: JointBooks
    reporter: Reporter
    shares: Shares = field(default_factory=Shares)
    """Where the encoders' time went."""
    readers: dict[str, str] = field(default_factory=dict)
    """Which reader read which slide, in this run."""
    not_exported: list[LeftOut] = field(default_factory=list)
    """Whole slides of which CLAM's files could not be written."""
    stream: ActorStream = stream_actors
    """What of a run needs a cluster: blocks go through its actors,"""
    live: Callable[[Reporter], AbstractContextManager[Any]] = LiveCount
    """and what they counted comes back to the address that this one has."""


def run_extraction(
    config: ExtractJob, reporter: Reporter | None = None, *, only: Collection[str] | None = None
) -> Summary:
    """Extracts what is missing of a workspace's features.

    Args:
        config: the job.
        reporter: told how it goes.
        only: slide_ids that are to be looked at; all of the workspace where not given.

    Raises:
        RecipeMismatchError: a store was made with another recipe.
        CraneError: nothing could be started, or a store cannot be written any more.
    """
    workspace, reporter = Workspace(config.work), measured("extract", reporter)
    for encoder in config.encoder_configs:
        require_plugin(ENCODERS, encoder.name)
    rows = patched_slides(workspace)
    if only is not None:
        rows = {slide_id: row for slide_id, row in rows.items() if slide_id in only}
    with (
        recorded("extract", config, workspace.manifests) as record,
        connected(config.cluster, landmarks_of("extract", config)) as nodes,
    ):
        pool = plan_pool(config.actors, nodes)
        lanes = open_lanes(config, workspace, rows, pool)
        for lane in lanes:
            for warning in lane.warnings():
                reporter.note(warning)
        books = JointBooks(open_books(config, lanes, workspace, rows), rows)
        run = Run(config, record.manifest.run_id, pool, lanes, books, reporter)
        record.summarise = lambda: summarise(run, rows)
        try:
            extract_missing(run)
            for lane in lanes:
                lane.store.clear_unfinished()
        finally:
            reporter.end()
            run.books.flush()
        export(run)
    assert record.summary is not None
    return record.summary


def open_books(
    config: ExtractJob, lanes: Sequence[Lane], workspace: Workspace, rows: dict[str, SlideRow]
) -> list[Books]:
    """The books of each lane's store; slides that become whole are exported where asked for."""
    folders = config.clam_folders or (None,) * len(lanes)
    books = []
    for lane, folder in zip(lanes, folders, strict=True):
        tell = EarlyExport(lane.store, folder).add if folder else _tell_nobody
        replace_stale = config.replace_stale
        books.append(
            Books(lane.store, workspace, rows, replace_stale=replace_stale, on_commit=tell)
        )
    return books


def _tell_nobody(row: IndexRow) -> None:
    pass


def export(run: Run) -> None:
    """Writes CLAM's files of all committed slides where asked for; most are there already."""
    for lane, folder in zip(run.lanes, run.config.clam_folders, strict=False):
        summary = Summary("export", folder)
        export_slides(lane.store, lane.store.index.read(), summary, run.reporter)
        run.not_exported += summary.left_out


def extract_missing(run: Run) -> None:
    """Sends every missing shard through the actors and books what comes back.

    Blocks that die with their actor are sent again, one slide after the other and alone, so that
    a slide that kills its reader costs no other slide anything.

    Raises:
        CraneError: no shard would succeed any more: a store cannot be written, or an encoder
            cannot work here.
    """
    todo = run.books.todo()
    if not todo:
        return
    title = f"extracting ({'; '.join(lane.words for lane in run.lanes)})"
    run.reporter.begin(title, slides=len(todo), patches=run.books.num_missing_patches())
    with run.live(run.reporter) as live:
        _stream(run, live.address, _blocks(run), calls=CALLS[run.pool.gpus > 0], retries=RETRIES)
        for _ in range(TRIES_ALONE):
            if run.books.todo():
                _stream(run, live.address, _blocks_by_slide(run), calls=1, retries=0)
    for slide_id in run.books.todo():
        run.books.fail(slide_id, DEAD_WORKER)
        run.reporter.failure(slide_id, DEAD_WORKER)
        run.reporter.advance(slides=1, failures=1)


def _blocks(run: Run) -> Iterator[list[Shard]]:
    return pack_shards(
        run.books.missing_shards(),
        num_patches=run.books.num_missing_patches(),
        shard_rows=run.lanes[0].store.header.shard_rows,
        num_actors=run.pool.count,
        most=most_shards(run.pool.count, on_gpu=run.pool.gpus > 0),
    )


def _blocks_by_slide(run: Run) -> Iterator[list[Shard]]:
    block: list[Shard] = []
    for shard in run.books.missing_shards():
        if block and block[0].slide_id != shard.slide_id:
            yield block
            block = []
        block.append(shard)
    if block:
        yield block


def _stream(
    run: Run, mailbox: Any, blocks: Iterator[list[Shard]], *, calls: int, retries: int
) -> None:
    kwargs = {
        "targets": [Target(lane.store.root, lane.encoder.weights) for lane in run.lanes],
        "threads": run.pool.cpus,
        "on_gpu": run.pool.gpus > 0,
        "batch_size": run.config.encoder.batch_size or DEFAULT_BATCH[run.pool.gpus > 0],
        "reader": run.config.reader,
        "staging": run.config.staging,
        "run_id": run.run_id,
        "teller": partial(Teller, mailbox, tell_every_s(run.pool.count)),
    }
    tables: Iterator[pa.Table] = (shard_table(block) for block in blocks)
    results = run.stream(
        tables, ExtractionActor, kwargs=kwargs, size=run.pool, calls=calls, retries=retries
    )
    with closing(results):  # an error here must end the stream before Ray goes away
        for result in results:
            _take(run, result)


def _take(run: Run, result: Row) -> None:
    receipt = Receipt.from_mapping(result)
    ended = run.books.take(receipt, result["output"])
    if receipt.fatal:
        raise CraneError(f"extraction stopped: {receipt.error}")
    run.shares.add(Shares(*(getattr(receipt, name) for name in SHARES)))
    if receipt.reader:
        run.readers[receipt.slide_id] = receipt.reader
    failed = ended and run.books.failed(receipt.slide_id)
    run.reporter.advance(slides=int(ended), failures=int(failed))
    verdict = judge(run.shares, on_gpu=run.pool.gpus > 0)
    if verdict is not None:
        run.reporter.limit(verdict.words)
    if failed:
        run.reporter.failure(receipt.slide_id, receipt.error)


def summarise(run: Run, rows: dict[str, SlideRow]) -> Summary:
    """What came of every slide of the workspace; a slide is done that all stores have."""
    books = run.books.books
    summary = Summary("extract", ", ".join(lane.store.root for lane in run.lanes))
    whole = [one.done | one.skipped for one in books]
    skipped = set.intersection(*(one.skipped for one in books))
    summary.skipped = len(skipped)
    summary.done = len(set.intersection(*whole) - skipped)
    summary.patches = sum(one.num_encoded for one in books)
    summary.facts = {
        "recipes": {lane.store.root: lane.store.recipe.fingerprint() for lane in run.lanes},
        "encoders": [lane.store.recipe.encoder.model_dump(mode="json") for lane in run.lanes],
        "actors": asdict(run.pool),
        "readers": _by_reader(run.readers),
        "seconds of the encoders": run.shares.rounded(),
    }
    verdict = judge(run.shares, on_gpu=run.pool.gpus > 0)
    if verdict is not None:
        summary.verdict = f"{verdict.words}; {verdict.advice}"
        summary.facts["limit"] = asdict(verdict)
    for slide in run.not_exported:
        reason = f"its features are there, CLAM's files are not: {slide.reason}"
        summary.leave_out(slide.slide_id, reason)
    for slide_id, row in rows.items():
        reason = _reason(books, run.lanes, slide_id)
        if reason:
            summary.leave_out(slide_id, reason)
        elif row.status == "no_tissue":
            summary.leave_out(slide_id, row.reason, "no_tissue")
    return summary


def _reason(books: Sequence[Books], lanes: Sequence[Lane], slide_id: str) -> str:
    """Why a slide failed; where that differs by encoder, each is named."""
    reasons = [one.failed.get(slide_id, "") for one in books]
    if len(set(reasons)) == 1:
        return reasons[0]
    names = [lane.store.recipe.encoder.name for lane in lanes]
    return "; ".join(f"{name}: {why}" for name, why in zip(names, reasons, strict=True) if why)


def _by_reader(readers: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for slide_id, reader in readers.items():
        found.setdefault(reader, []).append(slide_id)
    return found
