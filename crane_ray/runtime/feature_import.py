"""Features that another tool made, into a feature store, a CPU task a slide on Ray Data."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import Any

import pyarrow as pa

from crane_ray import storage
from crane_ray.errors import CraneError
from crane_ray.features.commits import Books
from crane_ray.features.extraction import Shard
from crane_ray.features.feature_files import FeatureFiles, list_feature_files
from crane_ray.features.import_recipe import Asked, Look, conflict, decide_recipe, look, most
from crane_ray.features.importing import import_shards
from crane_ray.features.ledger import RECEIPT_SCHEMA, Receipt
from crane_ray.features.recipe import Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.logs import about
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.exchange import DEAD_WORKER
from crane_ray.runtime.exchange_jobs import ImportFeaturesJob
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured import measured
from crane_ray.runtime.reporting import Reporter, Summary, recorded
from crane_ray.runtime.slide_tasks import log_outcome
from crane_ray.runtime.streams import stream_tasks
from crane_ray.slides.workspace import SlideRow, Workspace

LOOK_SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("num_patches", pa.int64()),
        ("dim", pa.int32()),
        ("dtype", pa.string()),
        ("identity", pa.string()),
        ("size_px", pa.int32()),
        ("level", pa.int32()),
        ("step_px", pa.int32()),
        ("magnification", pa.string()),
        ("encoder", pa.string()),
        ("recipe", pa.string()),
        ("mpp", pa.float64()),
        ("problem", pa.string()),
    ]
)
"""In the order of the fields of `Look`."""


@dataclass
class FeatureImport:
    """One run of an import: what was found, and what becomes of it."""

    config: ImportFeaturesJob
    reporter: Reporter
    files: dict[str, FeatureFiles]
    looks: dict[str, Look] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Reasons by slide_id, found before anything was written."""
    books: Books | None = None

    def look_at_all(self) -> None:
        """Asks every slide's files what they hold, on the cluster."""
        self.reporter.begin("looking at files", slides=len(self.files))
        rows = (asdict(files) for files in self.files.values())
        with closing(stream_tasks(rows, look_task, kwargs={})) as results:
            for result in results:
                found = Look(**result)
                self.looks[found.slide_id] = found
                self.reporter.advance(slides=1, failures=int(bool(found.problem)))
        self.reporter.end()
        for slide_id in self.files.keys() - self.looks.keys():
            self.refused[slide_id] = DEAD_WORKER

    def recipe(self) -> Recipe:
        """The store's recipe; slides that do not fit it are refused."""
        config = self.config
        asked = Asked(config.encoder, config.scale, config.dtype)
        looks = [self.looks[slide_id] for slide_id in sorted(self.looks)]
        settled = FeatureStore.recipe_at(config.store)
        recipe = decide_recipe(looks, asked, config.source, settled)
        encoder = most(item.encoder for item in looks) or ""
        if encoder and encoder != config.encoder:
            self.reporter.note(f"the files name their encoder {encoder}")
        for item in looks:
            reason = conflict(item, recipe, encoder)
            if reason:
                self.refused[item.slide_id] = reason
        return recipe

    def open_books(self, store: FeatureStore) -> Books:
        """The books of the slides that are not refused and have patches."""
        rows = {
            item.slide_id: SlideRow(
                item.slide_id,
                self.files[item.slide_id].h5 or self.files[item.slide_id].pt,
                "ok",
                num_patches=item.num_patches,
                mpp=item.mpp,
                spec_fingerprint=store.recipe.patch.fingerprint(),
                coords_checksum=item.identity,
            )
            for item in self.looks.values()
            if item.num_patches and item.slide_id not in self.refused
        }
        workspace, stale = Workspace(store.root), self.config.replace_stale
        self.books = Books(store, workspace, rows, replace_stale=stale)
        return self.books

    def write_missing(self, store: FeatureStore) -> None:
        """Sends every slide that is not whole through the cluster and books what comes back.

        Raises:
            CraneError: the store cannot be written any more.
        """
        books, reporter = self.books, self.reporter
        assert books is not None
        if not books.todo:
            return
        reporter.begin("importing", slides=len(books.todo), patches=books.num_missing_patches())
        kwargs = {"root": store.root, "may_round": self.config.dtype is not None}
        with closing(stream_tasks(self._tasks(books), import_task, kwargs=kwargs)) as results:
            for result in results:
                receipt = Receipt.from_mapping(result)
                ended = books.take(receipt)
                if receipt.fatal:
                    raise CraneError(f"import stopped: {receipt.error}")
                failed = ended and receipt.slide_id in books.failed
                reporter.advance(slides=int(ended), patches=receipt.rows, failures=int(failed))
                if failed:
                    reporter.failure(receipt.slide_id, receipt.error)
        for slide_id in list(books.todo):
            books.fail(slide_id, DEAD_WORKER)

    def _tasks(self, books: Books) -> Iterator[dict[str, Any]]:
        for slide_id, shards in groupby(books.missing_shards(), key=lambda shard: shard.slide_id):
            yield {**asdict(self.files[slide_id]), "shards": [asdict(shard) for shard in shards]}

    def summary(self) -> Summary:
        """What came of every slide in the folder."""
        summary = Summary("import", self.config.store)
        failed = dict(self.refused)
        if self.books is not None:
            failed |= self.books.failed
            summary.done, summary.skipped = len(self.books.done), len(self.books.skipped)
            summary.patches = self.books.num_encoded
        for slide_id in sorted(failed):
            summary.leave_out(slide_id, failed[slide_id])
        for item in self.looks.values():
            if not item.num_patches and item.slide_id not in failed:
                summary.leave_out(item.slide_id, "no patches in its file", "no_tissue")
        return summary


def run_import_features(config: ImportFeaturesJob, reporter: Reporter | None = None) -> Summary:
    """Imports the features in a folder; slides that are there already are left alone.

    Raises:
        ConfigError: there are no feature files, or nothing says what a patch was.
        RecipeMismatchError: the store was made with another recipe.
        CraneError: the store cannot be written.
    """
    files = {item.slide_id: item for item in list_feature_files(config.source)}
    run = FeatureImport(config, measured("import", reporter), files)
    with (
        recorded("import", config, storage.join(config.store, "manifests")) as record,
        connected(config.cluster, landmarks_of("import features", config)),
    ):
        record.summarise = run.summary
        run.look_at_all()
        store = FeatureStore.open_or_create(config.store, run.recipe(), layout=config.layout)
        storage.put_bytes(storage.join(store.root, "config.yaml"), config.to_yaml().encode())
        store.ledger.compact()
        books = run.open_books(store)
        try:
            run.write_missing(store)
            store.clear_unfinished()
        finally:
            run.reporter.end()
            books.flush()
    assert record.summary is not None
    return record.summary


def look_task(table: pa.Table) -> pa.Table:
    """What the files of each slide in a block say."""
    looks = [asdict(look(FeatureFiles(**record))) for record in table.to_pylist()]
    return pa.Table.from_pylist(looks, schema=LOOK_SCHEMA)


def import_task(table: pa.Table, root: str, *, may_round: bool) -> pa.Table:
    """Receipts of the shards of each slide in a block."""
    store = FeatureStore.open(root)
    receipts: list[dict[str, Any]] = []
    for record in table.to_pylist():
        shards = [Shard(**shard) for shard in record.pop("shards")]
        files = FeatureFiles(**record)
        with about(slide_id=files.slide_id):
            made = list(import_shards(store, files, shards, may_round=may_round))
            log_outcome(made[-1].status.replace("error", "failed"), made[-1].error)
        receipts += map(asdict, made)
    return pa.Table.from_pylist(receipts, schema=RECEIPT_SCHEMA)
