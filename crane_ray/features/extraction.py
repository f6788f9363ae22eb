"""What one shard goes through on its way from a slide into the stores, and what is said of it.

Plain data and its end points; `crane_ray.features.pipeline` moves shards through.
"""

import logging
import os
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from crane_ray import storage
from crane_ray.errors import CraneError, EncoderError, SlideError, StoreError
from crane_ray.features.clock import Shares
from crane_ray.features.encoder import EncoderInfo, Features, PatchEncoder
from crane_ray.features.ledger import Receipt
from crane_ray.features.store import Array, FeatureStore, SlideHeader, checksum_of
from crane_ray.logs import about
from crane_ray.slides.batches import Rows, reading_order
from crane_ray.slides.handles import OpenedSlide, OpenSlides
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.planning import failure_reason
from crane_ray.slides.slide import Slide

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """One piece of work: a run of a slide's patches, aligned to the stores' chunks."""

    slide_id: str
    uri: str
    patches: str
    """The patch file with the slide's coordinates."""
    num_patches: int
    coords_checksum: str
    shard: int
    attempt: int = 1
    outputs: tuple[int, ...] = (0,)
    """The stores that miss it, by their place in the run."""

    @property
    def slide(self) -> Slide:
        """The slide it belongs to."""
        return Slide(self.slide_id, self.uri)

    def named(self) -> AbstractContextManager[None]:
        """Log records of this thread carry its slide and number while the block runs."""
        return about(slide_id=self.slide_id, shard=self.shard)

    def receipt(self, **facts: Any) -> Receipt:
        """The receipt of an attempt at it, which failed until it is said to be ok."""
        return Receipt(
            self.slide_id,
            self.shard,
            "error",
            num_patches=self.num_patches,
            coords_checksum=self.coords_checksum,
            attempt=self.attempt,
            **facts,
        )


def signed(receipt: Receipt, begun: float) -> Receipt:
    """A receipt that is done: which process made it, in what time and when.

    Args:
        receipt: what became of the shard.
        begun: when work on it began (`time.perf_counter`).
    """
    return replace(
        receipt,
        host=f"{socket.gethostname()}:{os.getpid()}",
        seconds=round(time.perf_counter() - begun, 3),
        written=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )


@dataclass(frozen=True)
class Output:
    """A store, and the encoder of its recipe."""

    store: FeatureStore
    encoder: PatchEncoder


class ShardWork:
    """A shard on its way: its slide is open, its features fill up, errors are kept for the end."""

    def __init__(self, shard: Shard, *, batch_size: int = 0, run_id: str = "") -> None:
        self.shard = shard
        self.submitted = time.perf_counter()
        self.receipts: Future[list[Receipt]] = Future()
        self.wanted = shard.outputs
        self.error: Exception | None = None
        """What ended all of it."""
        self.errors: dict[int, Exception] = {}
        """What ended it for one store."""
        self.shares = Shares()
        self.rows = range(0)
        """The shard's rows of its slide."""
        self.order: Rows = np.empty(0, dtype=np.int64)
        """The same as they are read."""
        self._batch_size, self._run_id = batch_size, run_id
        self._begun = self.submitted
        self._slides: OpenSlides | None = None
        self._opened: OpenedSlide | None = None
        self._grid: PatchGrid | None = None
        self._reader_name = ""
        self._features: dict[int, Array] = {}

    @property
    def opened(self) -> OpenedSlide:
        """The open slide."""
        assert self._opened is not None
        return self._opened

    @property
    def waited(self) -> tuple[float, float] | None:
        """When the wait for the slide's file began and ended, if it is far and open."""
        return self._opened.waited if self._opened is not None else None

    @property
    def grid(self) -> PatchGrid:
        """The slide's patches."""
        assert self._grid is not None
        return self._grid

    def open(self, slides: OpenSlides, outputs: Sequence[Output], grids: "Grids") -> None:
        """Opens the slide and makes room for the features.

        Raises:
            StoreError: the patches changed since the plan.
            SlideError: the slide cannot be opened.
        """
        self._begun = time.perf_counter()
        self._grid = grids.read(self.shard)
        self._opened = slides.use(self.shard.slide)
        self._slides, self._reader_name = slides, self._opened.reader.name
        for place in self.wanted:
            store = outputs[place].store
            rows = store.shard_rows(self.shard.num_patches, self.shard.shard)
            shape = (len(rows), store.recipe.encoder.dim)
            self._features[place] = np.empty(shape, dtype=store.recipe.dtype)
        self.rows = rows
        self.order = reading_order(self.grid, rows)

    def put(self, place: int, rows: Rows, features: Features) -> None:
        """Takes features (n, D) of some rows for one store; those of padding come last and go."""
        if len(features) < len(rows):
            raise EncoderError(f"the encoder gave {len(features)} features for {len(rows)} patches")
        with np.errstate(over="ignore"):  # told apart at the end, with the slide's name
            self._features[place][rows - self.rows.start] = features[: len(rows)]

    def fail(self, error: Exception, place: int | None = None) -> None:
        """Keeps the first error, of one store or of all."""
        if not isinstance(error, CraneError):
            with self.shard.named():
                slide_id, shard = self.shard.slide_id, self.shard.shard
                log.error("slide %s, shard %d", slide_id, shard, exc_info=error)
        if place is None:
            self.error = self.error or error
        else:
            self.errors.setdefault(place, error)

    def close(self) -> None:
        """Lets the slide go; nothing of it is being decoded any more."""
        if self._slides is not None and self._opened is not None:
            self._slides.release(self._opened)
            self._slides = self._opened = None

    def write(self, place: int, output: Output) -> Receipt:
        """Writes the features for one store, or says why not."""
        receipt = self.shard.receipt(
            batch_size=self._batch_size, reader=self._reader_name, run_id=self._run_id
        )
        try:
            error = self.error or self.errors.get(place)
            if error is not None:
                raise error
            receipt = self._write(place, output, receipt)
        except Exception as error:
            if not isinstance(error, CraneError):
                log.debug("slide %s", self.shard.slide_id, exc_info=error)
            receipt = replace(
                receipt,
                error=failure_reason(self.shard.slide_id, error),
                fatal=storage.is_fatal(error) or isinstance(error, EncoderError),
            )
        shares = self.shares if place == self.wanted[0] else Shares()
        receipt = signed(replace(receipt, **shares.rounded()), self._begun)
        _log_receipt(receipt, output.encoder.info.name)
        return receipt

    def _write(self, place: int, output: Output, receipt: Receipt) -> Receipt:
        store, info = output.store, output.encoder.info
        features = self._features[place]
        _require_finite(features, info)
        xy = self.grid.xy[self.rows.start : self.rows.stop].astype(np.int32)
        header = SlideHeader(
            slide_id=self.grid.slide_id,
            num_patches=len(self.grid),
            dim=info.dim,
            dtype=store.recipe.dtype,
            chunk_rows=store.header.chunk_rows,
            facts=slide_facts(
                self.grid, self.shard.coords_checksum, store.header.recipe_fingerprint
            ),
        )
        path = store.slide_path(self.shard.slide_id)
        store.format.write(path, header, self.rows.start, features, xy)
        return replace(
            receipt, status="ok", rows=len(self.rows), checksum=checksum_of(features, xy)
        )


def _log_receipt(receipt: Receipt, encoder: str) -> None:
    what = "written" if receipt.status == "ok" else f"failed: {receipt.error}"
    level = logging.INFO if receipt.status == "ok" else logging.WARNING
    more = {"status": receipt.status, "encoder": encoder, "patches": receipt.rows}
    more |= {"seconds": receipt.seconds, "attempt": receipt.attempt}
    log.log(level, "slide %s, shard %d: %s", receipt.slide_id, receipt.shard, what, extra=more)


class Grids:
    """Reads patch files; the last one is kept for the next shard of its slide."""

    def __init__(self) -> None:
        self._key: tuple[str, str] | None = None
        self._grid: PatchGrid | None = None

    def read(self, shard: Shard) -> PatchGrid:
        """The patches of a shard's slide.

        Raises:
            StoreError: they are not those that were planned.
        """
        key = (shard.patches, shard.coords_checksum)
        if self._grid is None or self._key != key:
            grid = read_patches(shard.patches, shard.slide_id)
            if len(grid) != shard.num_patches or grid.checksum() != shard.coords_checksum:
                raise StoreError(
                    f"patches {shard.patches} changed since the run began ({len(grid)} patches, "
                    f"{shard.num_patches} planned); run the same command again"
                )
            self._key, self._grid = key, grid
        return self._grid


def _require_finite(features: Array, info: EncoderInfo) -> None:
    if not np.isfinite(features).all():
        raise SlideError(
            f"features are not finite in {features.dtype} ({info.name}, {info.precision}); "
            "use --dtype float32 or --precision fp32"
        )


def slide_facts(grid: PatchGrid, coords_checksum: str, recipe_fingerprint: str) -> dict[str, Any]:
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
        "coords_checksum": coords_checksum,
        "recipe_fingerprint": recipe_fingerprint,
    }
