"""Features that another tool made, written into a store of ours like an extraction's.

Plain Python without Ray; `crane_ray.features.import_recipe` comes first.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from crane_ray import storage
from crane_ray.errors import CraneError, SlideError, StoreError
from crane_ray.features.clam_files import NO_COORDS
from crane_ray.features.extraction import Shard, signed
from crane_ray.features.feature_files import FeatureFiles, OpenFeatures, open_features
from crane_ray.features.ledger import Receipt
from crane_ray.features.recipe import FeatureType
from crane_ray.features.store import Array, FeatureStore, SlideHeader, checksum_of
from crane_ray.slides.planning import failure_reason

log = logging.getLogger(__name__)

KEPT = (
    "patch_size", "patch_size_level0", "patch_level", "overlap", "level0_magnification",
    "target_magnification", "level0_width", "level0_height", "encoder", "mpp",
)  # fmt: skip
"""Attributes that go into a slide's facts; the others name places on another machine."""


def import_shards(
    store: FeatureStore, files: FeatureFiles, shards: Sequence[Shard], *, may_round: bool
) -> Iterator[Receipt]:
    """Writes shards of one slide and says so; an error is the last receipt.

    Args:
        store: where to.
        files: where from.
        shards: which rows, with the identity that the plan was made for.
        may_round: numbers may lose digits in the store's type (never their size).
    """
    begun = time.perf_counter()
    shard = shards[0]
    reader = "+".join(kind for kind in ("h5", "pt") if getattr(files, kind))
    try:
        with open_features(files) as found:
            if found.identity() != shard.coords_checksum:
                raise StoreError(
                    "its files changed since the run began; run the same command again"
                )
            for shard in shards:
                begun = time.perf_counter()
                done = _import_shard(store, found, shard, may_round=may_round)
                yield signed(replace(done, reader=reader), begun)
    except Exception as error:
        if not isinstance(error, CraneError):
            log.exception("slide %s", files.slide_id)
        reason, fatal = failure_reason(files.slide_id, error), storage.is_fatal(error)
        yield signed(shard.receipt(error=reason, fatal=fatal, reader=reader), begun)


def _import_shard(
    store: FeatureStore, found: OpenFeatures, shard: Shard, *, may_round: bool
) -> Receipt:
    rows = store.shard_rows(shard.num_patches, shard.shard)
    given = found.read(rows.start, rows.stop)
    features = _cast(given, store.recipe.dtype, may_round=may_round)
    xy = (
        np.full((len(rows), 2), NO_COORDS, dtype=np.int32)
        if found.xy is None
        else found.xy[rows.start : rows.stop]
    )
    header = SlideHeader(
        slide_id=shard.slide_id,
        num_patches=shard.num_patches,
        dim=found.dim,
        dtype=store.recipe.dtype,
        chunk_rows=store.header.chunk_rows,
        facts=_facts(found, shard, store),
    )
    store.format.write(store.slide_path(shard.slide_id), header, rows.start, features, xy)
    checksum = checksum_of(features, xy)
    return replace(shard.receipt(), status="ok", rows=len(rows), checksum=checksum)


def _cast(features: Array, dtype: FeatureType, *, may_round: bool) -> Array:
    """Features in the store's type.

    Raises:
        SlideError: they are not finite, beyond the type's range, or would be rounded unasked.
    """
    if not np.isfinite(features).all():
        raise SlideError("its features have values that are NaN or infinite")
    with np.errstate(over="ignore"):
        stored = features.astype(dtype)
    if not np.isfinite(stored).all():
        raise SlideError(
            f"its features reach {np.abs(features).max():.6g}, beyond the range of {dtype}; import "
            "into a store of --dtype float32"
        )
    if not may_round and (stored.astype(features.dtype) != features).any():
        raise SlideError(
            f"its features are {features.dtype} and would be rounded to the store's {dtype}; say "
            f"--dtype {dtype} if they may be"
        )
    return stored


def _facts(found: OpenFeatures, shard: Shard, store: FeatureStore) -> dict[str, Any]:
    """As an extraction's facts; None is what the files do not say."""
    said = {key: found.attributes[key] for key in KEPT if key in found.attributes}
    footprint = said.get("patch_size_level0")
    return {
        "slide_id": shard.slide_id,
        "num_patches": shard.num_patches,
        "patch_size_px": store.recipe.patch.size_px,
        "footprint_xy_level0_px": None if footprint is None else [float(footprint)] * 2,
        "mpp": said.get("mpp"),
        "target_mpp": store.recipe.patch.mpp,
        "coords": found.xy is not None,
        "coords_checksum": shard.coords_checksum,
        "recipe_fingerprint": store.header.recipe_fingerprint,
        "imported": said,
    }
