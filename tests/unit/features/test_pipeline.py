"""Several shards at once: ahead, in bounds, apart from each other, and whole whatever fails."""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.errors import EncoderError, SlideError
from crane_ray.features import verdict
from crane_ray.features.clock import Shares
from crane_ray.features.encoder import Features, PatchEncoder
from crane_ray.features.encoding import Pending, fixed_size
from crane_ray.features.extraction import Output, Shard
from crane_ray.features.ledger import Receipt
from crane_ray.features.pipeline import BATCHES_AHEAD, IN_FLIGHT, ExtractionPipeline
from crane_ray.features.stores.zarr import ZarrFormat
from crane_ray.slides import handles
from crane_ray.slides.batches import read_patch
from crane_ray.slides.handles import OpenSlides
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.slide import Slide, SlideReader
from crane_ray.testing import faults
from tests.unit.features.small_store import (
    INFO,
    NUM_PATCHES,
    SHARD_ROWS,
    Cohort,
    Quadrants,
    files_below,
    make_cohort,
    make_store,
)

Pixels = npt.NDArray[np.uint8]
BUFFERS = BATCHES_AHEAD + IN_FLIGHT
PATIENCE_S = 60
"""Beyond it something waits for ever."""


class Watch:
    """Sees, delays and spoils what is read of slides."""

    def __init__(self, reader: str = "openslide") -> None:
        self.reads = Counter[tuple[str, int, int]]()
        self.readers = list["WatchedReader"]()
        self.before: Callable[[WatchedReader, tuple[int, int]], None] = lambda reader, xy: None
        """Called before a patch is read; may wait or raise."""
        self.lock = threading.Lock()
        self._name = reader

    def open(self, slide: Slide, reader: str) -> "WatchedReader":
        opened = WatchedReader(self, slide, open_slide(slide, self._name))
        with self.lock:
            self.readers.append(opened)
        return opened

    def num_read(self) -> int:
        with self.lock:
            return self.reads.total()

    def wait_until_read(self, patches: int) -> None:
        """Waits until so many are read, and a moment for more to come."""
        until = time.monotonic() + PATIENCE_S
        while self.num_read() < patches:
            assert time.monotonic() < until, f"{self.num_read()} of {patches} patches were read"
            time.sleep(0.005)
        time.sleep(0.1)

    def assert_closed_once(self) -> None:
        assert [reader.closed for reader in self.readers] == [1] * len(self.readers)


class WatchedReader:
    def __init__(self, watch: Watch, slide: Slide, reader: SlideReader) -> None:
        self.slide_id, self.name, self.info = slide.slide_id, reader.name, reader.info
        self.closed = self.reading = 0
        self._watch, self._reader = watch, reader

    def read_region(self, xy: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
        with self._watch.lock:
            assert not self.closed, "a closed handle takes the process down"
            self.reading += 1
        try:
            self._watch.before(self, xy)
            return self._reader.read_region(xy, level, size)
        finally:
            with self._watch.lock:
                self.reading -= 1
                self._watch.reads[self.slide_id, *xy] += 1

    def close(self) -> None:
        with self._watch.lock:
            assert not self.reading, "a slide closed under a thread that decodes it"
            self.closed += 1
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(handles, "open_slide", watch.open)
    return watch


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Slides a, b and c, which no test damages."""
    return make_cohort(tmp_path_factory.mktemp("slides"), num_slides=3)


@pytest.fixture
def cohort(slides: Cohort, tmp_path: Path) -> Cohort:
    """The same slides, and a store without any of them."""
    return replace(slides, store=make_store(tmp_path / "store"))


@pytest.fixture(scope="module")
def expected(slides: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files below slides/ of a run with one shard after the other."""
    cohort = replace(slides, store=make_store(tmp_path_factory.mktemp("expected") / "store"))
    with open_pipeline(cohort, threads=1, batch_size=1) as pipeline:
        for shard in cohort.shards():
            assert [one.status for one in pipeline.extract(shard)] == ["ok"]
    return written(cohort)


def written(cohort: Cohort) -> dict[str, bytes]:
    return files_below(Path(cohort.store.root) / "slides")


def open_pipeline(
    cohort: Cohort,
    *encoders: PatchEncoder,
    batch_size: int = 3,
    threads: int = 2,
    **options: Any,
) -> ExtractionPipeline:
    """A pipeline into the cohort's store, and into one beside it for each further encoder."""
    outputs = []
    for place, encoder in enumerate(encoders or (Quadrants(),)):
        root = Path(cohort.store.root)
        store = make_store(root.with_name(f"{root.name}{place}")) if place else cohort.store
        outputs.append(Output(store, encoder))
    return ExtractionPipeline(outputs, batch_size=batch_size, decode_threads=threads, **options)


def extract(pipeline: ExtractionPipeline, shards: Iterable[Shard]) -> list[Receipt]:
    """Receipts of shards that are all submitted before the first is waited for."""
    with pipeline:
        return answers([pipeline.submit(shard) for shard in shards])


def answers(futures: list[Future[list[Receipt]]]) -> list[Receipt]:
    return [receipt for future in futures for receipt in future.result(PATIENCE_S)]


def statuses(receipts: Iterable[Receipt]) -> dict[str, list[str]]:
    """By slide, in the order of its shards."""
    found = defaultdict[str, list[str]](list)
    for receipt in sorted(receipts, key=lambda one: (one.slide_id, one.shard)):
        found[receipt.slide_id].append(receipt.status)
    return dict(found)


ALL_OK = {slide_id: ["ok"] * 3 for slide_id in "abc"}


class Recording(Quadrants):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[Pixels] = []

    def encode(self, pixels: Pixels) -> Features:
        self.batches.append(pixels.copy())
        return super().encode(pixels)


class Gated(Quadrants):
    """Waits in its first batch until it may go on."""

    def __init__(self) -> None:
        self.may_go = threading.Event()

    def encode(self, pixels: Pixels) -> Features:
        assert self.may_go.wait(PATIENCE_S)
        return super().encode(pixels)

    @contextmanager
    def held(self) -> Iterator[None]:
        """It may go on at the end, also where the test has failed."""
        try:
            yield
        finally:
            self.may_go.set()


class Inverted(Quadrants):
    def encode(self, pixels: Pixels) -> Features:
        return 1 - super().encode(pixels)


class Device:
    """An encoder that reads its pixels only when the features are asked for."""

    info = INFO

    def __init__(self) -> None:
        self.made = 0
        self.flying: list[int] = []
        """Memory of the batches that it has, in the order in which they came."""
        self.most_flying = 0

    def encode(self, pixels: Pixels) -> Features:
        raise AssertionError("an encoder with start() is started")

    def buffer(self, shape: tuple[int, ...]) -> Pixels:
        self.made += 1
        return np.full(shape, 255, dtype=np.uint8)

    def start(self, pixels: Pixels) -> Pending:
        place = pixels.__array_interface__["data"][0]
        assert place not in self.flying, "the memory of a batch that is still being copied"
        self.flying.append(place)
        self.most_flying = max(self.most_flying, len(self.flying))
        return Coming(self, pixels)


class Coming:
    def __init__(self, device: Device, pixels: Pixels) -> None:
        self._device, self._pixels = device, pixels
        self._as_given = pixels.copy()

    def result(self) -> Features:
        place = self._pixels.__array_interface__["data"][0]
        assert self._device.flying.pop(0) == place, "taken in another order"
        time.sleep(0.002)  # the decoders would overwrite it now if they could
        np.testing.assert_array_equal(self._pixels, self._as_given)
        return Quadrants().encode(self._pixels)


# Ahead, and in bounds.


def test_the_next_shards_and_slides_are_decoded_while_a_batch_is_encoded(
    cohort: Cohort, watch: Watch
) -> None:
    encoder = Gated()
    pipeline = open_pipeline(cohort, encoder, batch_size=SHARD_ROWS)
    with pipeline:
        futures = [pipeline.submit(shard) for shard in cohort.shards()]
        with encoder.held():
            watch.wait_until_read(2 * NUM_PATCHES)
            read = Counter(slide_id for slide_id, *_ in watch.reads)
            assert read == {"a": NUM_PATCHES, "b": NUM_PATCHES}, "six batches, of two slides"
        assert statuses(answers(futures)) == ALL_OK


def test_decoding_stops_when_all_buffers_are_full(cohort: Cohort, watch: Watch) -> None:
    encoder = Gated()
    with open_pipeline(cohort, encoder, batch_size=3) as pipeline:
        futures = [pipeline.submit(shard) for shard in cohort.shards()]
        full = sum([3, 3, 2, 3, 3, 2])
        with encoder.held():
            watch.wait_until_read(full)
            assert watch.num_read() == full
        assert statuses(answers(futures)) == ALL_OK


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_no_more_buffers_are_made_than_batches_may_be_ahead(
    cohort: Cohort, expected: dict[str, bytes], batch_size: int
) -> None:
    device = Device()
    receipts = extract(open_pipeline(cohort, device, batch_size=batch_size), cohort.shards())
    assert statuses(receipts) == ALL_OK
    assert 1 < device.made <= BUFFERS
    assert written(cohort) == expected


def test_a_device_gets_right_pixels_while_it_has_several_batches(
    cohort: Cohort, expected: dict[str, bytes]
) -> None:
    device = Device()
    receipts = extract(open_pipeline(cohort, device, batch_size=2, threads=4), cohort.shards())
    assert statuses(receipts) == ALL_OK
    assert device.most_flying <= IN_FLIGHT
    assert not device.flying
    assert written(cohort) == expected


def test_a_device_computes_one_batch_while_it_has_the_next(
    cohort: Cohort, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first result is not asked for before the second batch is there."""
    device, events = Device(), list[str]()
    start, result = Device.start, Coming.result

    def started(self: Device, pixels: Pixels) -> Pending:
        events.append("start")
        if len(events) == 1:
            watch.wait_until_read(6)
        return start(self, pixels)

    def asked(self: Coming) -> Features:
        events.append("result")
        return result(self)

    monkeypatch.setattr(Device, "start", started)
    monkeypatch.setattr(Coming, "result", asked)
    extract(open_pipeline(cohort, device, batch_size=3), cohort.shards("a")[:1])
    assert events[:3] == ["start", "start", "result"]
    assert sorted(events) == ["result"] * 3 + ["start"] * 3


# Apart: nothing depends on what runs beside.


def identities(cohort: Cohort) -> dict[bytes, tuple[str, int]]:
    """Slide and row by a patch's pixels."""
    found = {}
    for slide_id, row in cohort.rows.items():
        grid = read_patches(cohort.workspace.patches(slide_id), slide_id)
        with open_slide(Slide(slide_id, row.uri)) as reader:
            for place in range(len(grid)):
                found[read_patch(reader, grid, place).tobytes()] = (slide_id, place)
    assert len(found) == 3 * NUM_PATCHES
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 5, 8, 64])
def test_a_batch_holds_one_shard_and_black_padding_to_a_fixed_size(
    cohort: Cohort, batch_size: int
) -> None:
    encoder, known = Recording(), identities(cohort)
    receipts = extract(open_pipeline(cohort, encoder, batch_size=batch_size), cohort.shards())
    assert statuses(receipts) == ALL_OK
    seen = Counter[tuple[str, int]]()
    for batch in encoder.batches:
        patches = [known[one.tobytes()] for one in batch if one.any()]
        assert len({(slide_id, row // SHARD_ROWS) for slide_id, row in patches}) == 1
        assert len(batch) == fixed_size(len(patches), batch_size)
        assert not batch[len(patches) :].any(), "padding comes last"
        seen.update(patches)
    assert seen == Counter(known.values())


def test_padding_reaches_no_store(
    cohort: Cohort, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Strict(Quadrants):
        def encode(self, pixels: Pixels) -> Features:
            features = super().encode(pixels)
            features[~pixels.any(axis=(1, 2, 3))] = np.nan
            return features

    receipts = extract(open_pipeline(cohort, Strict(), batch_size=7), cohort.shards())
    assert statuses(receipts) == ALL_OK
    assert written(cohort) == expected


@pytest.mark.parametrize("seed", range(8))
def test_bytes_are_the_same_however_a_run_goes(
    cohort: Cohort, expected: dict[str, bytes], seed: int
) -> None:
    """Any order, threads and batch sizes; ended and begun again anywhere; shards sent twice."""
    rng = random.Random(seed)
    shards = cohort.shards()
    rng.shuffle(shards)
    shards += rng.sample(shards, 3)
    ends = sorted(rng.sample(range(len(shards)), rng.randrange(3)))
    for first, last in zip([0, *ends], [*ends, len(shards)], strict=True):
        encoders: list[PatchEncoder] = [Quadrants(), Device()]
        pipeline = open_pipeline(
            cohort,
            rng.choice(encoders),
            threads=rng.choice([1, 2, 8]),
            batch_size=rng.choice([1, 2, 3, 5, 8, 64]),
            slides=OpenSlides(reader=rng.choice(["openslide", "auto"])),
        )
        assert {one.status for one in extract(pipeline, shards[first:last])} <= {"ok"}
    assert written(cohort) == expected


def test_many_threads_may_submit_at_once(
    cohort: Cohort, expected: dict[str, bytes], watch: Watch
) -> None:
    shards = cohort.shards() * 4
    random.Random(0).shuffle(shards)
    with open_pipeline(cohort, threads=3) as pipeline, ThreadPoolExecutor(12) as pool:
        receipts = list(pool.map(pipeline.extract, shards))
    assert {one.status for found in receipts for one in found} == {"ok"}
    assert [(one.slide_id, one.shard) for found in receipts for one in found] == [
        (shard.slide_id, shard.shard) for shard in shards
    ]
    assert written(cohort) == expected
    watch.assert_closed_once()


# What fails.


@pytest.fixture
def fragile(tmp_path: Path) -> Cohort:
    """Slides that may be damaged."""
    return make_cohort(tmp_path, num_slides=3)


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_broken_slide_costs_itself_alone(fragile: Cohort, threads: int, batch_size: int) -> None:
    faults.corrupt_tiles(Path(fragile.rows["b"].uri))
    pipeline = open_pipeline(fragile, threads=threads, batch_size=batch_size)
    receipts = extract(pipeline, fragile.shards() * 2)
    assert statuses(receipts) == {"a": ["ok"] * 6, "b": ["error"] * 6, "c": ["ok"] * 6}
    assert not Path(fragile.store.slide_path("b")).exists()
    assert not any(one.fatal for one in receipts)


@pytest.mark.parametrize("reader", ["openslide", "auto"])
@pytest.mark.parametrize(("tile", "shard"), [(0, 0), (11, 1), (28, 2)])
def test_a_broken_tile_costs_its_own_shard_alone(
    fragile: Cohort, reader: str, tile: int, shard: int
) -> None:
    """A handle of OpenSlide repeats its first error, and the shards run at once."""
    faults.corrupt_tiles(Path(fragile.rows["b"].uri), tiles=[tile])
    pipeline = open_pipeline(fragile, threads=4, slides=OpenSlides(reader=reader))
    found = statuses(extract(pipeline, fragile.shards()))
    wanted = ["error" if place == shard else "ok" for place in range(3)]
    assert found == {**ALL_OK, "b": wanted}


@pytest.mark.parametrize("reader", ["openslide", "tiff"])
def test_a_slide_that_does_not_open_costs_itself_alone(fragile: Cohort, reader: str) -> None:
    Path(fragile.rows["a"].uri).unlink()
    Path(fragile.rows["c"].uri).write_bytes(b"not a slide")
    pipeline = open_pipeline(fragile, slides=OpenSlides(reader=reader))
    receipts = extract(pipeline, fragile.shards())
    assert statuses(receipts) == {"a": ["error"] * 3, "b": ["ok"] * 3, "c": ["error"] * 3}
    assert "no such file" in receipts[0].error
    assert not receipts[0].error.startswith("slide a")
    assert [one.reader for one in receipts] == [""] * 3 + [reader] * 3 + [""] * 3


def test_a_moment_of_trouble_costs_nothing(
    cohort: Cohort, expected: dict[str, bytes], watch: Watch
) -> None:
    failed = set[tuple[str, int, int]]()

    def trouble(reader: WatchedReader, xy: tuple[int, int]) -> None:
        place = (reader.slide_id, *xy)
        if xy[0] == 64 and place not in failed:
            failed.add(place)
            raise SlideError("input/output error")

    watch.before = trouble
    assert statuses(extract(open_pipeline(cohort), cohort.shards())) == ALL_OK
    assert len(failed) == 9
    assert written(cohort) == expected
    watch.assert_closed_once()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_bug_in_a_reader_is_a_failure_of_its_shard(
    cohort: Cohort, watch: Watch, threads: int
) -> None:
    def bug(reader: WatchedReader, xy: tuple[int, int]) -> None:
        if reader.slide_id == "b" and xy == (0, 0):
            raise KeyError("no such level")

    watch.before = bug
    receipts = extract(open_pipeline(cohort, threads=threads), cohort.shards())
    assert statuses(receipts) == {**ALL_OK, "b": ["error", "ok", "ok"]}
    (error,) = [one for one in receipts if one.status == "error"]
    assert error.error == "KeyError: 'no such level'"
    assert not error.fatal
    watch.assert_closed_once()


def test_no_more_is_read_of_a_shard_that_has_failed(cohort: Cohort, watch: Watch) -> None:
    def broken(reader: WatchedReader, xy: tuple[int, int]) -> None:
        raise SlideError("odd")

    watch.before = broken
    pipeline = open_pipeline(cohort, batch_size=1, threads=1)
    assert statuses(extract(pipeline, cohort.shards("a")[:1])) == {"a": ["error"]}
    assert len(watch.reads) <= BUFFERS + 1 < SHARD_ROWS


@pytest.mark.parametrize("seed", range(4))
def test_nothing_hangs_and_nothing_else_is_lost_when_much_fails(
    cohort: Cohort, expected: dict[str, bytes], watch: Watch, seed: int
) -> None:
    """Reads, encoders and writes fail now and then; what is sent again is whole in the end."""
    rng, lock = random.Random(seed), threading.Lock()

    def sometimes(error: Exception, chance: float) -> None:
        with lock:
            fails = rng.random() < chance
        if fails:
            raise error

    class Flaky(Quadrants):
        def encode(self, pixels: Pixels) -> Features:
            sometimes(rng.choice([ValueError("a bug"), SlideError("odd")]), 0.1)
            return super().encode(pixels)

    watch.before = lambda reader, xy: sometimes(SlideError("odd"), 0.2)
    todo, rounds = cohort.shards(), 0
    pipeline = open_pipeline(cohort, Flaky(), threads=3)
    with pipeline:
        while todo:
            rounds += 1
            receipts = answers([pipeline.submit(shard) for shard in todo])
            todo = [
                shard
                for shard, receipt in zip(todo, receipts, strict=True)
                if receipt.status == "error"
            ]
    assert rounds > 1
    assert written(cohort) == expected
    watch.assert_closed_once()


@pytest.mark.parametrize("error", [MemoryError("no memory"), RuntimeError("cannot be pinned")])
def test_memory_that_is_short_for_a_while_costs_the_shards_of_that_while(
    cohort: Cohort, error: Exception
) -> None:
    class Short(Device):
        def buffer(self, shape: tuple[int, ...]) -> Pixels:
            if self.made < 2 * BUFFERS:
                self.made += 1
                raise error
            return super().buffer(shape)

    shards = cohort.shards() * 3
    receipts = extract(open_pipeline(cohort, Short()), shards)
    found = [one.status for one in receipts]
    assert found == ["error"] * 2 * BUFFERS + ["ok"] * (len(shards) - 2 * BUFFERS)
    assert str(error) in receipts[0].error


def test_features_of_another_length_are_an_error(cohort: Cohort) -> None:
    class Longer(Quadrants):
        def encode(self, pixels: Pixels) -> Features:
            return np.zeros((len(pixels), 13), dtype=np.float32)

    receipts = extract(open_pipeline(cohort, Longer()), cohort.shards("a"))
    assert statuses(receipts) == {"a": ["error"] * 3}
    assert "13" in receipts[0].error


def test_progress_that_cannot_be_told_costs_nothing(
    cohort: Cohort, expected: dict[str, bytes]
) -> None:
    def broken(patches: int) -> None:
        raise ConnectionError("the driver is gone")

    receipts = extract(open_pipeline(cohort, on_patches=broken), cohort.shards())
    assert statuses(receipts) == ALL_OK
    assert written(cohort) == expected


def test_progress_is_told_once_a_patch(cohort: Cohort) -> None:
    told = list[int]()
    extract(open_pipeline(cohort, on_patches=told.append), cohort.shards())
    assert sum(told) == 3 * NUM_PATCHES
    assert max(told) == 3


# Closing.


def test_closing_waits_for_what_was_submitted(cohort: Cohort, watch: Watch) -> None:
    watch.before = lambda reader, xy: time.sleep(0.003)
    pipeline = open_pipeline(cohort)
    futures = [pipeline.submit(shard) for shard in cohort.shards()]
    assert not all(future.done() for future in futures)
    pipeline.close()
    assert all(future.done() for future in futures)
    assert statuses(answers(futures)) == ALL_OK
    watch.assert_closed_once()
    with pytest.raises(AssertionError, match="nobody would ever answer"):
        pipeline.submit(cohort.shards()[0])
    pipeline.close()
    assert not [one for one in threading.enumerate() if one.name.startswith(("read", "decode"))]


def test_closing_without_any_work_returns(cohort: Cohort) -> None:
    with open_pipeline(cohort, threads=1):
        pass


class SlowCache:
    """Slides that are far away, brought near in some time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.copies: list[Copy] = []
        self._seconds = seconds

    def prefetch(self, uri: str) -> None: ...

    def drop_prefetched(self) -> None: ...

    def lease(self, uri: str) -> "Copy":
        time.sleep(self._seconds)
        self.copies.append(Copy(Path(uri)))
        return self.copies[-1]


class Copy:
    def __init__(self, path: Path) -> None:
        self.path, self.closed = path, 0
        self.readers = list[WatchedReader]()

    def close(self) -> None:
        self.closed += 1
        assert all(reader.closed for reader in self.readers), "a file that is still read"


def test_copies_are_let_go_once_and_after_their_readers(cohort: Cohort, watch: Watch) -> None:
    cache = SlowCache()
    lease = cache.lease

    def leased(uri: str) -> Copy:
        copy = lease(uri)
        copy.readers = watch.readers
        return copy

    cache.lease = leased  # type: ignore[method-assign]
    shards = cohort.shards("a")
    receipts = extract(
        open_pipeline(cohort, slides=OpenSlides(cache_for=lambda uri: cache)), shards
    )
    assert statuses(receipts) == {"a": ["ok"] * 3}
    assert [copy.closed for copy in cache.copies] == [1]
    watch.assert_closed_once()


def test_copies_of_many_slides_are_all_let_go(cohort: Cohort) -> None:
    cache, shards = SlowCache(), cohort.shards() * 2
    random.Random(1).shuffle(shards)
    extract(open_pipeline(cohort, slides=OpenSlides(cache_for=lambda uri: cache)), shards)
    assert len(cache.copies) > 3
    assert {copy.closed for copy in cache.copies} == {1}


# Several stores.


def stored(cohort: Cohort, place: int, slide_id: str) -> Features:
    store = make_store(Path(f"{cohort.store.root}{place or ''}"))
    features, _ = store.format.read(store.slide_path(slide_id), 0, NUM_PATCHES)
    return features


def test_two_stores_are_filled_from_pixels_that_are_read_once(
    cohort: Cohort, expected: dict[str, bytes], watch: Watch
) -> None:
    shards = [replace(shard, outputs=(0, 1)) for shard in cohort.shards()]
    pipeline = open_pipeline(cohort, Quadrants(), Inverted())
    with pipeline:
        futures = [pipeline.submit(shard) for shard in shards]
        assert [len(future.result(PATIENCE_S)) for future in futures] == [2] * 9
    assert set(watch.reads.values()) == {1}
    assert watch.num_read() == 3 * NUM_PATCHES
    assert written(cohort) == expected
    for slide_id in "abc":
        np.testing.assert_array_equal(stored(cohort, 1, slide_id), 1 - stored(cohort, 0, slide_id))


def test_nothing_is_encoded_for_a_store_that_has_it(cohort: Cohort) -> None:
    one, two = Recording(), Recording()
    outputs = [(0,), (1,), (0, 1)]
    shards = [
        replace(shard, outputs=places)
        for shard, places in zip(cohort.shards("a"), outputs, strict=True)
    ]
    with open_pipeline(cohort, one, two, batch_size=8) as pipeline:
        receipts = [pipeline.submit(shard).result(PATIENCE_S) for shard in shards]
    assert [len(found) for found in receipts] == [1, 1, 2]
    assert [len(encoder.batches) for encoder in (one, two)] == [2, 2]
    assert not np.array_equal(one.batches[0], two.batches[0])
    np.testing.assert_array_equal(one.batches[1], two.batches[1])


@pytest.mark.parametrize(("error", "fatal"), [(EncoderError("no GPU"), True), (KeyError(1), False)])
def test_an_error_of_one_encoder_leaves_the_other_its_features(
    cohort: Cohort, expected: dict[str, bytes], error: Exception, fatal: bool
) -> None:
    class Broken(Device):
        def start(self, pixels: Pixels) -> Pending:
            if pixels[0].sum() % 2:
                raise error
            return super().start(pixels)

    class Late(Coming):
        def result(self) -> Features:
            super().result()
            raise error

    class BrokenLater(Device):
        def start(self, pixels: Pixels) -> Pending:
            super().start(pixels)
            return Late(self, pixels)

    for broken in (Broken(), BrokenLater()):
        shards = [replace(shard, outputs=(0, 1)) for shard in cohort.shards()]
        pipeline = open_pipeline(cohort, Quadrants(), broken)
        with pipeline:
            futures = [pipeline.submit(shard) for shard in shards]
            pairs = [future.result(PATIENCE_S) for future in futures]
        assert {pair[0].status for pair in pairs} == {"ok"}
        errors = [pair[1] for pair in pairs if pair[1].status == "error"]
        assert len(errors) > len(pairs) // 2
        assert {one.fatal for one in errors} == {fatal}
        assert not any(pair[0].fatal for pair in pairs)
        assert written(cohort) == expected


def test_a_store_that_cannot_be_written_leaves_the_other_its_features(
    cohort: Cohort, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ZarrFormat.write

    def broken(self: ZarrFormat, path: str, *args: Any) -> None:
        if "store1" in path:
            raise SlideError("no luck")
        write(self, path, *args)

    monkeypatch.setattr(ZarrFormat, "write", broken)
    shards = [replace(shard, outputs=(0, 1)) for shard in cohort.shards()]
    receipts = extract(open_pipeline(cohort, Quadrants(), Inverted()), shards)
    assert [one.status for one in receipts] == ["ok", "error"] * 9
    assert written(cohort) == expected


# Where the time goes.


def shares_of(receipts: Iterable[Receipt]) -> Shares:
    total = Shares()
    for receipt in receipts:
        total.add(Shares(**{state: getattr(receipt, state) for state in asdict(total)}))
    return total


def test_the_shares_of_a_run_are_its_wall_time(cohort: Cohort) -> None:
    ended = 0.0

    class Timed(Quadrants):
        def encode(self, pixels: Pixels) -> Features:
            nonlocal ended
            time.sleep(0.01)
            features = super().encode(pixels)
            ended = time.perf_counter()
            return features

    before = time.perf_counter()
    pipeline = open_pipeline(cohort, Timed(), Timed())
    after = time.perf_counter()
    shards = [replace(shard, outputs=(0, 1)) for shard in cohort.shards()]
    receipts = extract(pipeline, shards)
    rounding = 0.001 * len(receipts) * len(asdict(Shares()))
    total = sum(asdict(shares_of(receipts)).values())
    assert ended - after - rounding <= total <= time.perf_counter() - before + rounding
    assert not any(one.encode_s for one in receipts[1::2]), "told once for all stores"


class Slow(Quadrants):
    def encode(self, pixels: Pixels) -> Features:
        time.sleep(0.1)
        return super().encode(pixels)


@pytest.mark.parametrize("limit", ["encoding", "decoding", "storage", "staging", "scheduling"])
def test_the_slowest_stage_is_the_limit(
    cohort: Cohort, watch: Watch, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Each stage in turn takes a second or so, the others next to nothing."""
    write = ZarrFormat.write

    def slow_write(self: ZarrFormat, path: str, *args: Any) -> None:
        time.sleep(0.6)
        write(self, path, *args)

    encoder = Slow() if limit == "encoding" else Quadrants()
    cache = SlowCache(0.5 if limit == "staging" else 0.0)
    if limit == "decoding":
        watch.before = lambda reader, xy: time.sleep(0.025)
    if limit == "storage":
        monkeypatch.setattr(ZarrFormat, "write", slow_write)
    extract(open_pipeline(cohort), cohort.shards()[:1])  # what is imported late is there now
    pipeline = open_pipeline(
        cohort, encoder, threads=1, slides=OpenSlides(cache_for=lambda uri: cache)
    )
    if limit == "scheduling":
        time.sleep(1.5)
    shares = shares_of(extract(pipeline, cohort.shards()))
    monkeypatch.setattr(verdict, "MEASURED_FROM_S", 0.0)
    found = verdict.judge(shares)
    assert found is not None
    assert (found.limit, found.share > 0.5) == (limit, True), shares
