"""Features of one shard, start to end: read patches, encode, write rows, hand back a receipt.

Plain Python without Ray: an actor holds one `ShardExtractor` and feeds it shards.
"""

import logging
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np

from crane_ray import storage
from crane_ray.errors import CraneError, EncoderError, SlideError, StoreError
from crane_ray.features.encoder import PatchEncoder
from crane_ray.features.ledger import Receipt
from crane_ray.features.store import Array, FeatureStore, SlideHeader, checksum_of
from crane_ray.slides.batches import read_batches
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.planning import failure_reason
from crane_ray.slides.slide import Slide, SlideReader

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """One piece of work: a run of a slide's patches, aligned to the store's chunks."""

    slide_id: str
    uri: str
    patches: str
    """The patch file with the slide's coordinates."""
    num_patches: int
    coords_checksum: str
    shard: int
    attempt: int = 1


@dataclass
class OpenSlide:
    """The slide an extractor has open; the next shard is mostly of the same one."""

    key: tuple[str, str]
    reader: SlideReader
    grid: PatchGrid


class ShardExtractor:
    """Extracts shards one after the other with one encoder into one store."""

    def __init__(
        self,
        store: FeatureStore,
        encoder: PatchEncoder,
        *,
        batch_size: int,
        decode_threads: int,
        run_id: str = "",
        on_patches: Callable[[int], None] = lambda patches: None,
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._batch_size = batch_size
        self._run_id = run_id
        self._on_patches = on_patches
        self._pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._open: OpenSlide | None = None

    def extract(self, shard: Shard) -> Receipt:
        """The receipt of a shard: its rows are written whole, or the reason why not.

        Never raises for what a slide, the store or the encoder does; ``fatal`` marks errors that
        every other shard would meet too.
        """
        begun = time.perf_counter()
        receipt = Receipt(
            shard.slide_id,
            shard.shard,
            "error",
            num_patches=shard.num_patches,
            coords_checksum=shard.coords_checksum,
            attempt=shard.attempt,
            batch_size=self._batch_size,
            host=f"{socket.gethostname()}:{os.getpid()}",
            run_id=self._run_id,
        )
        try:
            receipt = self._extract(shard, receipt)
        except Exception as error:
            self._close_slide()
            if not isinstance(error, CraneError):
                log.exception("slide %s, shard %d", shard.slide_id, shard.shard)
            receipt = replace(
                receipt,
                error=failure_reason(shard.slide_id, error),
                fatal=storage.is_fatal(error) or isinstance(error, EncoderError),
            )
        return replace(
            receipt,
            seconds=round(time.perf_counter() - begun, 3),
            written=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )

    def close(self) -> None:
        """Ends the decoding threads and closes the slide."""
        self._close_slide()
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _extract(self, shard: Shard, receipt: Receipt) -> Receipt:
        current = self._slide(shard)
        rows = self._store.shard_rows(shard.num_patches, shard.shard)
        features, waited = self._encode(current, rows)
        xy = current.grid.xy[rows.start : rows.stop].astype(np.int32)
        path = self._store.slide_path(shard.slide_id)
        self._store.format.write(path, self._header(current.grid), rows.start, features, xy)
        return replace(
            receipt,
            status="ok",
            rows=len(rows),
            checksum=checksum_of(features, xy),
            decode_wait_s=round(waited, 3),
            reader=current.reader.name,
        )

    def _encode(self, current: OpenSlide, rows: range) -> tuple[Array, float]:
        """Features of rows in the store's dtype, and the seconds spent waiting for pixels."""
        info = self._encoder.info
        features = np.empty((len(rows), info.dim), dtype=self._store.recipe.dtype)
        waited, since = 0.0, time.perf_counter()
        batches = read_batches(
            current.reader, current.grid, rows, self._batch_size, pool=self._pool
        )
        # An error's traceback would keep the generator, and with it the decoding threads,
        # alive while the slide is closed under them: the process crashes.
        with closing(batches):
            for batch in batches:
                waited += time.perf_counter() - since
                encoded = self._encoder.encode(batch.pixels)
                start = batch.start - rows.start
                with np.errstate(over="ignore"):  # told apart below, with the slide's name
                    features[start : start + len(batch)] = encoded
                self._on_patches(len(batch))
                since = time.perf_counter()
        if not np.isfinite(features).all():
            raise SlideError(
                f"features are not finite in {features.dtype} ({info.name}, {info.precision}); "
                "use --dtype float32 or --precision fp32"
            )
        return features, waited

    def _slide(self, shard: Shard) -> OpenSlide:
        key = (shard.slide_id, shard.coords_checksum)
        if self._open is None or self._open.key != key:
            self._close_slide()
            grid = read_patches(shard.patches, shard.slide_id)
            if len(grid) != shard.num_patches or grid.checksum() != shard.coords_checksum:
                raise StoreError(
                    f"patches {shard.patches} changed since the run began ({len(grid)} patches, "
                    f"{shard.num_patches} planned); run the same command again"
                )
            self._open = OpenSlide(key, open_slide(Slide(shard.slide_id, shard.uri)), grid)
        return self._open

    def _close_slide(self) -> None:
        if self._open is not None:
            self._open.reader.close()
            self._open = None

    def _header(self, grid: PatchGrid) -> SlideHeader:
        return SlideHeader(
            slide_id=grid.slide_id,
            num_patches=len(grid),
            dim=self._encoder.info.dim,
            dtype=self._store.recipe.dtype,
            chunk_rows=self._store.header.chunk_rows,
            facts=slide_facts(grid, self._store.header.recipe_fingerprint),
        )


def slide_facts(grid: PatchGrid, recipe_fingerprint: str) -> dict[str, Any]:
    """Attributes of a slide's arrays: how its patches lie; the same whoever writes them."""
    return {
        "slide_id": grid.slide_id,
        "num_patches": len(grid),
        "patch_size_px": grid.spec.size_px,
        "read_level": grid.geometry.read_level,
        "read_size_px": grid.geometry.read_size_px,
        "footprint_xy_level0_px": list(grid.geometry.footprint_xy),
        "step_xy_level0_px": list(grid.geometry.step_xy),
        "mpp": grid.mpp,
        "target_mpp": grid.spec.mpp,
        "coords_checksum": grid.checksum(),
        "recipe_fingerprint": recipe_fingerprint,
    }
