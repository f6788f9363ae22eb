"""Shards in, receipts out: pixels, features and files of several shards are made at once.

Three stages pass work on in order. A reading thread opens slides and gives their patches to a pool
of decoding threads, a bounded number of batches ahead and over the ends of shards and slides; an
encoding thread feeds the encoders; writers put features into the stores. A batch never mixes
shards, and a shard's features never depend on what ran beside it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Self

from crane_ray.features.clock import Clock
from crane_ray.features.encoding import Pending, Pixels, fixed_size, new_buffer, start
from crane_ray.features.extraction import Grids, Output, Shard, ShardWork
from crane_ray.features.ledger import Receipt
from crane_ray.slides.batches import Rows
from crane_ray.slides.handles import OpenSlides

log = logging.getLogger(__name__)

BATCHES_AHEAD = 4
"""Batches decoded beyond the one being encoded: bridges the opening of the next slide."""
IN_FLIGHT = 2
"""Batches that a device has at once: one computes while the next is copied to it."""
WRITES_AHEAD = 4
"""Shards of features that wait for storage before encoding does."""
WRITERS = 2
PATCHES_A_TASK = 32
"""Patches that one thread decodes in one go: neighbours, which share tiles."""


@dataclass(frozen=True)
class Batch:
    """Pixels of some rows of a shard that are being decoded."""

    work: ShardWork
    rows: Rows
    buffer: Pixels
    size: int
    """Images in the buffer that are encoded; those beyond the rows are padding."""
    decoded: list[Future[None]]


@dataclass(frozen=True)
class Flight:
    """A batch that the encoders have."""

    batch: Batch
    pending: dict[int, Pending]


@dataclass(frozen=True)
class End:
    """All batches of a shard went before."""

    work: ShardWork


class ExtractionPipeline:
    """Extracts shards from their slides into one store an encoder; see the module."""

    def __init__(
        self,
        outputs: Sequence[Output],
        *,
        batch_size: int,
        decode_threads: int,
        slides: OpenSlides | None = None,
        run_id: str = "",
        on_patches: Callable[[int], None] = lambda patches: None,
    ) -> None:
        self._outputs = list(outputs)
        self._batch_size = batch_size
        self._threads = decode_threads
        self._run_id = run_id
        self._on_patches = on_patches
        self._slides = slides or OpenSlides()
        self._grids = Grids()
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="write")
        self._write_places = threading.BoundedSemaphore(WRITES_AHEAD)
        self._submitting, self._is_closed = threading.Lock(), False
        self._arrivals = SimpleQueue[ShardWork | None]()
        self._batches = SimpleQueue[Batch | End | None]()
        self._buffers = SimpleQueue[Pixels]()
        self._num_buffers = 0
        self._flying = deque[Flight | End]()
        self._clock = Clock()
        self._stages = [
            threading.Thread(target=stage, name=name, daemon=True)
            for name, stage in (("read", self._read_stage), ("encode", self._encode_stage))
        ]
        for stage in self._stages:
            stage.start()

    def submit(self, shard: Shard) -> Future[list[Receipt]]:
        """The receipts of a shard, one for each store that misses it, once it is written.

        The future never raises for what a slide, a store or an encoder does: that is a receipt,
        ``fatal`` where every other shard would meet it too. May be called from any thread.
        """
        work = ShardWork(shard, batch_size=self._batch_size, run_id=self._run_id)
        with self._submitting:
            assert not self._is_closed, "nobody would ever answer"
            self._slides.expect(shard.slide)
            self._arrivals.put(work)
        return work.receipts

    def extract(self, shard: Shard) -> list[Receipt]:
        """The receipts of one shard, waited for."""
        return self.submit(shard).result()

    def close(self) -> None:
        """Ends all threads once what was submitted is done, and closes the slides."""
        with self._submitting:
            self._is_closed = True
            self._arrivals.put(None)
        for stage in self._stages:
            stage.join()
        self._decoders.shutdown()
        self._writers.shutdown()
        self._slides.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Reading: slides are opened, and their patches handed to the decoders.

    def _read_stage(self) -> None:
        while (work := self._arrivals.get()) is not None:
            with work.shard.named():
                try:
                    work.open(self._slides, self._outputs, self._grids)
                    for rows in self._parts(work):
                        self._batches.put(self._begin_batch(work, rows))
                except Exception as error:  # of one slide; the next ones go on
                    work.fail(error)
            self._batches.put(End(work))
        self._batches.put(None)

    def _parts(self, work: ShardWork) -> Iterator[Rows]:
        """A shard's rows by batches, until something goes wrong with it."""
        for first in range(0, len(work.order), self._batch_size):
            if work.error is not None:
                return
            yield work.order[first : first + self._batch_size]

    def _begin_batch(self, work: ShardWork, rows: Rows) -> Batch:
        grid, opened = work.grid, work.opened
        buffer = self._buffer(grid.spec.size_px)
        at_once = max(1, min(PATCHES_A_TASK, self._batch_size // self._threads))

        def decode(start: int) -> None:
            part = rows[start : start + at_once]
            with work.shard.named():
                opened.fill(grid, part, buffer[start : start + len(part)])

        decoded = [self._decoders.submit(decode, n) for n in range(0, len(rows), at_once)]
        return Batch(work, rows, buffer, fixed_size(len(rows), self._batch_size), decoded)

    def _buffer(self, size_px: int) -> Pixels:
        """Memory for a batch; waits for the encoder once all of it is in use."""
        shape = (self._batch_size, size_px, size_px, 3)
        if self._num_buffers == BATCHES_AHEAD + IN_FLIGHT or not self._buffers.empty():
            buffer = self._buffers.get()
            if buffer.shape == shape:
                return buffer
            self._num_buffers -= 1  # a workspace with patches of several sizes
            del buffer
        buffer = new_buffer(self._outputs[0].encoder, shape)
        self._num_buffers += 1  # counted once it is there: no place is lost to lack of memory
        return buffer

    # Encoding: batches go to the devices, a few at a time, and come back as features.

    def _encode_stage(self) -> None:
        while (item := self._next()) is not None:
            if isinstance(item, End):
                self._flying.append(item)
            else:
                self._start(item)
            self._land(IN_FLIGHT - 1)
        self._land(0)

    def _next(self) -> Batch | End | None:
        """The next batch; while there is none, those in flight are brought home."""
        try:
            return self._batches.get_nowait()
        except Empty:
            self._land(0)
        self._clock.spend("encode_s")
        item = self._batches.get()
        if item is not None:
            # Before its shard came there was nothing to do; while its slide was fetched, that
            # was the reason; else it is the decoders'.
            self._clock.spend("idle_s", until=min(item.work.submitted, time.perf_counter()))
            waited = item.work.waited
            if waited is not None:
                self._clock.spend("decode_wait_s", until=waited[0])
                self._clock.spend("staging_wait_s", until=waited[1])
        self._clock.spend("decode_wait_s" if item is not None else "idle_s")
        return item

    def _start(self, batch: Batch) -> None:
        self._clock.spend("encode_s")
        for future in batch.decoded:  # all of them: none may run on when the slide is closed
            try:
                future.result()
            except Exception as error:
                batch.work.fail(error)
        self._clock.spend("decode_wait_s")
        pending = {}
        if batch.work.error is None:
            pixels = batch.buffer[: batch.size]
            pixels[len(batch.rows) :] = 0
            for place in batch.work.wanted:
                try:
                    pending[place] = start(self._outputs[place].encoder, pixels)
                except Exception as error:
                    batch.work.fail(error, place)
        self._flying.append(Flight(batch, pending))

    def _land(self, left: int) -> None:
        """Takes features home until so many batches are left in flight."""
        flights = sum(isinstance(item, Flight) for item in self._flying)
        while self._flying and (flights > left or isinstance(self._flying[0], End)):
            item = self._flying.popleft()
            if isinstance(item, End):
                self._send(item.work)
                continue
            flights -= 1
            batch = item.batch
            for place, pending in item.pending.items():
                try:
                    batch.work.put(place, batch.rows, pending.result())
                except Exception as error:
                    batch.work.fail(error, place)
            self._buffers.put(batch.buffer)
            self._clock.spend("encode_s")
            self._tell(len(batch.rows))

    def _tell(self, patches: int) -> None:
        try:
            self._on_patches(patches)
        except Exception:  # it shows progress; nothing else depends on it
            log.warning("progress could not be told", exc_info=True)

    # Writing: features go into the stores, and the receipts out.

    def _send(self, work: ShardWork) -> None:
        work.close()
        self._clock.spend("encode_s")
        self._write_places.acquire()
        self._clock.spend("write_wait_s")
        work.shares = self._clock.take()
        self._writers.submit(self._write, work)

    def _write(self, work: ShardWork) -> None:
        try:
            with work.shard.named():
                receipts = [work.write(place, self._outputs[place]) for place in work.wanted]
        except BaseException as error:  # a bug: whoever waits must not wait for ever
            work.receipts.set_exception(error)
            raise
        else:
            work.receipts.set_result(receipts)
        finally:
            self._write_places.release()
