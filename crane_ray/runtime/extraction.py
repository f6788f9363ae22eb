"""Patches -> features: shards of slides through encoder actors on Ray Data, into a store."""

from contextlib import closing
from dataclasses import asdict, dataclass

from crane_ray import storage
from crane_ray.errors import CraneError, StoreError
from crane_ray.features.commits import Books
from crane_ray.features.encoder import EncoderConfig, EncoderInfo, Precision
from crane_ray.features.ledger import Receipt
from crane_ray.features.recipe import FeatureType, Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.manifest import LeftOut
from crane_ray.plugins import require_plugin
from crane_ray.runtime.actors import ExtractionActor
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.encoders import ENCODERS, PreparedEncoder, best_precision, prepare_encoder
from crane_ray.runtime.jobs import ExtractJob
from crane_ray.runtime.live import LiveCount
from crane_ray.runtime.pools import Pool, plan_pool
from crane_ray.runtime.reporting import Reporter, Silent, Summary, recorded
from crane_ray.runtime.streams import stream_actors
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.patches import PatchSpec
from crane_ray.slides.workspace import SlideRow, Workspace

DEFAULT_BATCH = {True: 256, False: 32}
"""Patches a batch, on a GPU or not."""
DEAD_WORKER = (
    "the actor died each time it was tried: a crash in the decoding library, or out of memory; "
    "check the file, and a smaller --batch-size"
)


@dataclass(frozen=True)
class RunPlan:
    """What one run adds to a store's recipe."""

    run_id: str
    batch_size: int | None
    reporter: Reporter


def run_extraction(config: ExtractJob, reporter: Reporter | None = None) -> Summary:
    """Extracts what is missing of a workspace's features.

    Raises:
        RecipeMismatchError: the store was made with another recipe.
        CraneError: nothing could be started, or the store cannot be written any more.
    """
    workspace, reporter = Workspace(config.work), reporter or Silent()
    require_plugin(ENCODERS, config.encoder.name)
    rows = patched_slides(workspace)
    spec = common_spec(workspace, rows)
    with (
        recorded("extract", config, workspace.manifests) as record,
        connected(config.cluster) as nodes,
    ):
        pool = plan_pool(config.actors, nodes)
        encoder = prepare_encoder(config.encoder)
        if encoder.is_random:
            reporter.note(f"the encoder has {encoder.label} weights: good for trials alone")
        recipe = make_recipe(config, spec, encoder, pool)
        store = FeatureStore.open_or_create(config.store_root, recipe, layout=config.layout)
        storage.put_bytes(storage.join(store.root, "config.yaml"), config.to_yaml().encode())
        store.ledger.compact()
        books = Books(store, workspace, rows, replace_stale=config.replace_stale)
        record.summarise = lambda: summarise(books, rows, store, pool)
        plan = RunPlan(record.manifest.run_id, config.encoder.batch_size, reporter)
        _begin(reporter, recipe, books)
        try:
            extract_missing(books, store, pool, encoder, plan)
        finally:
            reporter.end()
            books.flush()
    assert record.summary is not None
    return record.summary


def _begin(reporter: Reporter, recipe: Recipe, books: Books) -> None:
    if not books.todo:
        return
    title = f"extracting ({recipe.encoder.name}, {recipe.encoder.precision})"
    reporter.begin(title, slides=len(books.todo), patches=books.num_missing_patches())


def patched_slides(workspace: Workspace) -> dict[str, SlideRow]:
    """The rows of a workspace's slides.

    Raises:
        StoreError: nothing was patched there yet.
    """
    rows = workspace.read_slides()
    if not rows:
        raise StoreError(
            f"workspace {workspace.root}: no slides.parquet in it; run crane-ray patch --slides "
            f"WHERE --work {workspace.root} first"
        )
    return rows


def common_spec(workspace: Workspace, rows: dict[str, SlideRow]) -> PatchSpec:
    """The patch spec of a workspace's slides: that of its latest patching run.

    Raises:
        StoreError: no slide has patches.
    """
    path = workspace.config("patch")
    with_patches = [row for row in rows.values() if row.status == "ok" and row.num_patches]
    if not with_patches:
        raise StoreError(
            f"workspace {workspace.root}: none of its {len(rows)} slides has patches; look at its "
            "slides.parquet for the reasons (after --seg-only, run crane-ray patch without it)"
        )
    fingerprints = {row.spec_fingerprint for row in with_patches}
    for row in with_patches:
        spec = read_patches(workspace.patches(row.slide_id), row.slide_id).spec
        if len(fingerprints) == 1 or _is_latest(spec, path):
            return spec
    raise StoreError(
        f"workspace {workspace.root}: its slides were patched with {len(fingerprints)} different "
        f"patch specs and none is that of {path}; run crane-ray patch over all of them again"
    )


def _is_latest(spec: PatchSpec, path: str) -> bool:
    from crane_ray.runtime.jobs import PatchJob

    return storage.exists(path) and PatchJob.load(path).patch == spec


def make_recipe(
    config: ExtractJob, spec: PatchSpec, encoder: PreparedEncoder, pool: Pool
) -> Recipe:
    """What is asked for, with ``auto`` and defaults resolved.

    An existing store settles what the config leaves open, so that a rerun on other hardware
    goes on with the precision that the store was begun with.
    """
    settled = _existing_recipe(config.store_root)
    precision = config.encoder.precision
    if precision == "auto" and settled is not None:
        precision = settled.encoder.precision
    elif precision == "auto":
        precision = best_precision(on_gpu=pool.gpus > 0)
    info = encoder_info(config.encoder, spec, encoder, precision)
    dtype = config.dtype or (settled.dtype if settled else None)
    usual: FeatureType = "float32" if precision == "fp32" else "float16"
    return Recipe(patch=spec, encoder=info, dtype=dtype or usual)


def encoder_info(
    config: EncoderConfig, spec: PatchSpec, encoder: PreparedEncoder, precision: Precision
) -> EncoderInfo:
    """The exact encoder behind a config."""
    card = encoder.card
    size = spec.size_px if config.input_size == "patch" else config.input_size
    return EncoderInfo(
        name=config.name,
        dim=card.dim,
        input_size_px=size or card.input_size_px,
        mean=card.mean,
        std=card.std,
        precision=precision,
        weights=encoder.label,
        weights_sha256=encoder.sha256,
    )


def _existing_recipe(root: str) -> Recipe | None:
    if not storage.exists(storage.join(root, "store.json")):
        return None
    return FeatureStore.open(root).recipe


def extract_missing(
    books: Books, store: FeatureStore, pool: Pool, encoder: PreparedEncoder, plan: RunPlan
) -> None:
    """Sends every missing shard through the actors and books what comes back.

    Raises:
        CraneError: no shard would succeed any more: the store cannot be written, or the encoder
            cannot work here.
    """
    shards = sum(1 for _ in books.missing_shards())
    if not shards:
        return
    with LiveCount(plan.reporter) as live:
        kwargs = {
            "root": store.root,
            "weights": encoder.weights,
            "threads": pool.cpus,
            "on_gpu": pool.gpus > 0,
            "batch_size": plan.batch_size or DEFAULT_BATCH[pool.gpus > 0],
            "run_id": plan.run_id,
            "counter": live.counter,
        }
        results = stream_actors(
            (asdict(shard) for shard in books.missing_shards()),
            ExtractionActor,
            kwargs=kwargs,
            count=min(pool.count, shards),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus,
            memory=pool.memory,
        )
        with closing(results):  # an error here must end the stream before Ray goes away
            for result in results:
                _take(books, Receipt.from_mapping(result), plan.reporter)
    for slide_id in list(books.todo):
        books.fail(slide_id, DEAD_WORKER)
        plan.reporter.advance(slides=1, failures=1)


def _take(books: Books, receipt: Receipt, reporter: Reporter) -> None:
    ended = books.take(receipt)
    if receipt.fatal:
        raise CraneError(f"extraction stopped: {receipt.error}")
    failed = ended and receipt.slide_id in books.failed
    reporter.advance(slides=int(ended), failures=int(failed))
    if failed:
        reporter.note(f"{receipt.slide_id}: {receipt.error}")


def summarise(books: Books, rows: dict[str, SlideRow], store: FeatureStore, pool: Pool) -> Summary:
    """What came of every slide of the workspace."""
    summary = Summary("extract", store.root)
    summary.done, summary.skipped = len(books.done), len(books.skipped)
    summary.patches = books.num_encoded
    summary.facts = {
        "recipe": store.recipe.fingerprint(),
        "encoder": store.recipe.encoder.model_dump(mode="json"),
        "actors": asdict(pool),
    }
    for slide_id, row in rows.items():
        reason = books.failed.get(slide_id)
        if reason is not None:
            summary.left_out.append(LeftOut(slide_id=slide_id, status="failed", reason=reason))
        elif row.status == "no_tissue":
            summary.no_tissue += 1
            summary.left_out.append(
                LeftOut(slide_id=slide_id, status="no_tissue", reason=row.reason)
            )
    return summary
