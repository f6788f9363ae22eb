import errno
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crane_ray import storage
from crane_ray.errors import EncoderError
from crane_ray.features.encoder import Features
from crane_ray.features.extraction import Shard
from crane_ray.features.ledger import Receipt
from crane_ray.features.store import SlideFeatures, checksum_of
from crane_ray.features.stores.zarr import ZarrFormat
from crane_ray.slides.batches import read_patch
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.readers.openslide import OpenSlideReader
from crane_ray.slides.slide import Slide
from crane_ray.testing import faults
from tests.unit.features.small_store import (
    NUM_PATCHES,
    Cohort,
    Quadrants,
    files_below,
    make_cohort,
    pipeline,
)

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return make_cohort(tmp_path)


def extract(cohort: Cohort, shards: list[Shard], **options: Any) -> list[Receipt]:
    with pipeline(cohort, **options) as worker:
        return [receipt for shard in shards for receipt in worker.extract(shard)]


def committed(cohort: Cohort, receipts: list[Receipt], slide_id: str) -> SlideFeatures:
    """A slide read from the store once its receipts are booked."""
    books = cohort.books()
    for receipt in receipts:
        books.take(receipt)
    books.flush()
    return cohort.store.read(slide_id)


def one_by_one(cohort: Cohort, slide_id: str) -> tuple[Features, npt.NDArray[np.int64]]:
    """Features of a slide from patches read alone, and where they lie."""
    grid = read_patches(cohort.workspace.patches(slide_id), slide_id)
    with open_slide(Slide(slide_id, cohort.rows[slide_id].uri)) as reader:
        patches = [read_patch(reader, grid, row) for row in range(len(grid))]
    return np.concatenate([Quadrants().encode(patch[None]) for patch in patches]), grid.xy


def test_features_are_those_of_patches_read_one_by_one(cohort: Cohort) -> None:
    receipts = extract(cohort, cohort.shards())
    assert [receipt.rows for receipt in receipts] == [8, 8, 5, 8, 8, 5]
    assert {receipt.status for receipt in receipts} == {"ok"}
    for slide_id in ("a", "b"):
        stored = committed(cohort, receipts, slide_id)
        features, xy = one_by_one(cohort, slide_id)
        assert np.ptp(features) > 0.2
        np.testing.assert_array_equal(stored.features, features)
        np.testing.assert_array_equal(stored.xy, xy)


def test_a_receipt_says_what_was_done(cohort: Cohort) -> None:
    shard = cohort.shards("b")[2]
    (receipt,) = extract(cohort, [shard])
    path = cohort.store.slide_path("b")
    features, xy = cohort.store.format.read(path, 16, NUM_PATCHES)
    assert receipt.checksum == checksum_of(features, xy)
    assert (receipt.slide_id, receipt.shard, receipt.num_patches) == ("b", 2, NUM_PATCHES)
    assert receipt.coords_checksum == cohort.rows["b"].coords_checksum
    assert (receipt.reader, receipt.run_id, receipt.batch_size) == ("openslide", "run", 3)
    assert receipt.seconds >= receipt.decode_wait_s >= 0
    assert receipt.host
    assert receipt.written
    assert not receipt.fatal


def test_bytes_depend_neither_on_order_nor_on_threads_or_batches(tmp_path: Path) -> None:
    one, two = make_cohort(tmp_path / "1"), make_cohort(tmp_path / "2")
    extract(one, one.shards())
    shards = two.shards()
    random.Random(1).shuffle(shards)
    extract(two, [*shards, *shards[:2]], threads=5, batch_size=8)
    files = files_below(tmp_path / "1" / "features" / "slides")
    assert any("/c/" in name for name in files)
    assert files == files_below(tmp_path / "2" / "features" / "slides")


def test_a_broken_slide_costs_itself_alone(cohort: Cohort) -> None:
    faults.corrupt_tiles(Path(cohort.rows["a"].uri))
    receipts = extract(cohort, cohort.shards())
    assert [receipt.status for receipt in receipts] == ["error"] * 3 + ["ok"] * 3
    assert all("cannot be decoded" in receipt.error for receipt in receipts[:3])
    assert not any(receipt.error.startswith("slide a:") for receipt in receipts)
    assert not any(receipt.fatal or receipt.checksum or receipt.rows for receipt in receipts[:3])
    assert len(committed(cohort, receipts, "b").features) == NUM_PATCHES
    assert cohort.store.slide_ids() == ["b"]


def test_only_the_shards_on_broken_tiles_fail(cohort: Cohort) -> None:
    """OpenSlide repeats a handle's first error: the extractor must open the slide again."""
    faults.corrupt_tiles(Path(cohort.rows["a"].uri), tiles=[0])
    receipts = extract(cohort, cohort.shards("a"))
    assert [receipt.status for receipt in receipts] == ["error", "ok", "ok"]


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0])
def test_features_that_are_not_finite_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    cohort = make_cohort(tmp_path, 1, dtype="float16")
    encode = Quadrants.encode

    def spoilt(self: Quadrants, pixels: Pixels) -> Features:
        features = encode(self, pixels)
        features[-1, -1] = value
        return features

    monkeypatch.setattr(Quadrants, "encode", spoilt)
    (receipt,) = extract(cohort, cohort.shards()[:1])
    assert receipt.status == "error"
    assert "not finite in float16 (quadrants, fp32); use --dtype float32" in receipt.error
    assert not receipt.fatal
    assert not Path(cohort.store.slide_path("a")).exists()


@pytest.mark.parametrize(("number", "fatal"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_full_disk_is_fatal(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch, number: int, fatal: bool
) -> None:
    def full(self: ZarrFormat, path: str, *args: Any) -> None:
        raise storage.write_error(path, OSError(number, "no luck"))

    monkeypatch.setattr(ZarrFormat, "write", full)
    (receipt,) = extract(cohort, cohort.shards()[:1])
    assert (receipt.status, receipt.fatal) == ("error", fatal)
    assert ("the disk is full" in receipt.error) == fatal


def test_an_encoder_that_cannot_work_is_fatal_and_a_bug_is_not(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, fatal in ((EncoderError("too small a GPU"), True), (KeyError("x"), False)):

        def broken(self: Quadrants, pixels: Pixels, error: Exception = error) -> Features:
            raise error

        monkeypatch.setattr(Quadrants, "encode", broken)
        (receipt,) = extract(cohort, cohort.shards()[:1])
        assert (receipt.status, receipt.fatal) == ("error", fatal)
        assert str(error) in receipt.error


@pytest.mark.parametrize(("num_patches", "offset"), [(NUM_PATCHES, 1), (NUM_PATCHES - 1, 0)])
def test_patches_that_changed_since_the_plan_are_refused(
    cohort: Cohort, num_patches: int, offset: int
) -> None:
    shards = cohort.shards()
    cohort.patch("a", num_patches, offset)
    receipts = extract(cohort, shards)
    assert [receipt.status for receipt in receipts] == ["error"] * 3 + ["ok"] * 3
    assert "changed since the run began" in receipts[0].error
    assert not Path(cohort.store.slide_path("a")).exists()


def test_an_error_of_the_encoder_waits_for_running_decodes(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slide closed under a thread that decodes it takes the process down."""
    decoding, late = 0, list[int]()
    read_region, close = OpenSlideReader.read_region, OpenSlideReader.close

    def slow(self: OpenSlideReader, *args: Any) -> Pixels:
        nonlocal decoding
        decoding += 1
        time.sleep(0.02)
        try:
            return read_region(self, *args)
        finally:
            decoding -= 1

    def watched(self: OpenSlideReader) -> None:
        late.append(decoding)
        close(self)

    def broken(self: Quadrants, pixels: Pixels) -> Features:
        raise EncoderError("too small a GPU")

    monkeypatch.setattr(OpenSlideReader, "read_region", slow)
    monkeypatch.setattr(OpenSlideReader, "close", watched)
    monkeypatch.setattr(Quadrants, "encode", broken)
    (receipt,) = extract(cohort, cohort.shards()[:1], threads=4)
    assert receipt.fatal
    assert late == [0]
