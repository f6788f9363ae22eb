"""The encoders of a run, each with its weights, its store and the store's books."""

from dataclasses import dataclass

import yaml

from crane_ray import storage
from crane_ray.errors import ConfigError, StoreError
from crane_ray.features.cards import auto_precision, encoder_info, scale_warning
from crane_ray.features.encoder import EncoderConfig, EncoderInfo, Precision
from crane_ray.features.recipe import FeatureType, Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.runtime.encoders import PreparedEncoder, best_precision, prepare_encoder
from crane_ray.runtime.jobs import ExtractJob
from crane_ray.runtime.pools import Pool
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.patches import PatchSpec
from crane_ray.slides.workspace import SlideRow, Workspace

COMPILING_PAYS_FROM = 1_000_000
"""Patches an actor from which minutes of compiling are earned back on a GPU."""


@dataclass(frozen=True)
class Lane:
    """One encoder of a run."""

    encoder: PreparedEncoder
    store: FeatureStore

    @property
    def words(self) -> str:
        """The encoder in a title."""
        info = self.store.recipe.encoder
        return f"{info.name}, {info.precision}"

    def warnings(self) -> list[str]:
        """What a person should know before it starts."""
        recipe, found = self.store.recipe, []
        if self.encoder.is_random:
            found.append(
                f"{recipe.encoder.name} has {self.encoder.label} weights: good for trials alone"
            )
        scale = scale_warning(recipe.encoder, self.encoder.card, recipe.patch)
        return [*found, scale] if scale else found


def open_lanes(
    config: ExtractJob, workspace: Workspace, rows: dict[str, SlideRow], pool: Pool
) -> list[Lane]:
    """The encoders of a config, their weights fetched, their stores opened or made.

    Raises:
        RecipeMismatchError: a store was made with another recipe.
        ConfigError: weights cannot be had, or stores do not fit together.
        StoreError: there is nothing to extract from.
    """
    spec = common_spec(workspace, rows)
    num_patches = sum(row.num_patches or 0 for row in rows.values())
    compiles = pool.gpus > 0 and num_patches >= COMPILING_PAYS_FROM * pool.count
    lanes = []
    for encoder, root in zip(config.encoder_configs, config.store_roots, strict=True):
        prepared = prepare_encoder(encoder)
        settled = FeatureStore.recipe_at(root)
        info = resolve_encoder(
            encoder, prepared, spec, settled, on_gpu=pool.gpus > 0, compiles=compiles
        )
        recipe = Recipe(patch=spec, encoder=info, dtype=_dtype(config, info, settled))
        store = FeatureStore.open_or_create(root, recipe, layout=config.layout)
        storage.put_bytes(storage.join(root, "config.yaml"), config.to_yaml().encode())
        store.ledger.compact()
        lanes.append(Lane(prepared, store))
    sizes = {lane.store.header.shard_rows for lane in lanes}
    if len(sizes) > 1:
        raise ConfigError(
            f"stores {', '.join(config.store_roots)}: their shards have different sizes "
            f"({sorted(sizes)} rows) and cannot be filled in one pass; run once an encoder"
        )
    return lanes


def resolve_encoder(
    config: EncoderConfig,
    prepared: PreparedEncoder,
    spec: PatchSpec,
    settled: Recipe | None,
    *,
    on_gpu: bool,
    compiles: bool,
) -> EncoderInfo:
    """The exact encoder that a config asks for, with ``auto`` resolved.

    An existing store settles what the config leaves open, so that a rerun on other hardware
    goes on with what the store was begun with.
    """
    precision: Precision
    if config.precision != "auto":
        precision = config.precision
    elif settled is not None:
        precision = settled.encoder.precision
    else:
        native = best_precision(on_gpu=on_gpu)
        precision = auto_precision(prepared.card, native, on_gpu=on_gpu)
    compiled = config.compile
    if compiled == "auto":
        compiled = settled.encoder.compiled if settled is not None else compiles
    info = encoder_info(
        config,
        prepared.card,
        patch_px=spec.size_px,
        precision=precision,
        label=prepared.label,
        sha256=prepared.sha256,
    )
    return info.model_copy(update={"compiled": compiled})


def _dtype(config: ExtractJob, info: EncoderInfo, settled: Recipe | None) -> FeatureType:
    usual: FeatureType = "float32" if info.precision == "fp32" else "float16"
    return config.dtype or (settled.dtype if settled else usual)


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

    if not storage.exists(path):
        return False
    tree = yaml.safe_load(storage.read_bytes(path))
    return PatchJob.model_validate(tree).patch == spec
