"""Patches per CPU-second of the readers, beside the decode floor and the one-at-a-time way.

    python -m tests.benchmarks.readers [--quick]

One pinned core, warm files, all ways interleaved round by round, each opening the slide anew, so
that no tile is still in a cache. What is compared:

``one at a time``  open the h5 file of coordinates, OpenSlide.read_region, PIL to RGB, PIL resize
                   to 224 px, to a normalised float tensor; a restatement of the usual dataset item
``openslide``      crane-ray's OpenSlide reader, region by region
``tiff``           crane-ray's direct reader, runs of 64 neighbouring patches
``floor``          each native tile that the patches touch decoded once, from memory into one
                   buffer: as many as there are patches on the tiles' lattice, more off it
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import cv2
import h5py
import imagecodecs
import numpy as np
import numpy.typing as npt
import openslide
import simplejpeg
import torch
from PIL import Image

from crane_ray.slides.readers import openslide as openslide_reader
from crane_ray.slides.readers import tiff
from crane_ray.slides.tiff.layout import read_layout
from crane_ray.testing.slide_formats import SlideFormat, write_slide

Pixels = npt.NDArray[np.uint8]
Points = npt.NDArray[np.int64]

PATCH = 256
RUN = 64
"""Patches that are handed to the direct reader at once, squares of 8 x 8."""


@dataclass(frozen=True)
class Case:
    """A slide to be written, and where its lattice of patches begins."""

    name: str
    form: SlideFormat = field(default_factory=SlideFormat)
    size_px: tuple[int, int] = (8192, 6144)
    origin_px: tuple[int, int] = (0, 0)


CASES = (
    Case("4:2:0"),
    Case("4:2:0, shared tables", SlideFormat(shared_tables=True)),
    Case("4:4:4", SlideFormat(subsampling="444")),
    Case("RGB photometric", SlideFormat(photometric="rgb", shared_tables=True, vendor="aperio")),
    Case("JPEG 2000", SlideFormat(codec="jpeg2000", vendor="aperio")),
    Case("unaligned", origin_px=(37, 91)),
    Case("240 px tiles", SlideFormat(tile_px=(240, 240), shared_tables=True, vendor="aperio")),
    Case("very wide", size_px=(131_072, 512)),
)


@dataclass(frozen=True)
class Row:
    """One way of reading one slide, patches per CPU-second."""

    slide: str
    way: str
    best: float
    median: float
    of_floor: float
    """Best to the floor's best."""
    times_one_at_a_time: float
    tiles_a_patch: float
    """That must be decoded, which is what the floor does."""
    equal_pixels: bool | None = None
    """To OpenSlide's, over every patch; None where it gives no such pixels."""


def measure(
    *, patches: int = 512, rounds: int = 3, cases: tuple[Case, ...] = CASES, core: int = 0
) -> list[Row]:
    """Rows of the table.

    Args:
        patches: read in a round of each way, at most as many as the slide has.
        rounds: interleaved; best and median are over these.
        cases: which slides.
        core: the process is pinned to it meanwhile.
    """
    with tempfile.TemporaryDirectory() as folder, _pinned(core):
        return [row for case in cases for row in _measure(case, Path(folder), patches, rounds)]


def num_reads(*, patches: int, rounds: int, cases: tuple[Case, ...] = CASES) -> int:
    """Patches that `measure` reads in all."""
    return len(cases) * 4 * rounds * patches


def texture(size_px: tuple[int, int], seed: int = 0) -> Pixels:
    """Stained-looking noise that costs about 15 KB a tile of 256 px at quality 80, 4:2:0."""
    rng = np.random.default_rng(seed)
    side = 1024
    fine = cv2.GaussianBlur(rng.normal(0, 1, (side, side, 3)), (0, 0), 1.3)
    coarse = cv2.GaussianBlur(rng.normal(0, 1, (side, side, 3)), (0, 0), 9.0)
    mixed = 62 * fine + 300 * coarse + np.array([190.0, 130.0, 175.0])
    block = np.clip(mixed, 0, 255).astype(np.uint8)
    width, height = size_px
    across, down = -(-width // side), -(-height // side)
    # Rolled, so that no two blocks have the same tiles.
    rows = [
        np.hstack([np.roll(block, (37 * r, 61 * c), (0, 1)) for c in range(across)])
        for r in range(down)
    ]
    return np.ascontiguousarray(np.vstack(rows)[:height, :width])


def lattice(case: Case, patches: int) -> Points:
    """(N, 2) origins, 8 x 8 neighbours after one another."""
    (width, height), (left, top) = case.size_px, case.origin_px
    xs = np.arange(left, width - PATCH + 1, PATCH)
    ys = np.arange(top, height - PATCH + 1, PATCH)
    xy = np.stack(np.meshgrid(xs, ys, indexing="ij"), axis=-1).reshape(-1, 2)
    cells = (xy - case.origin_px) // (8 * PATCH)
    order = np.lexsort((xy[:, 0], xy[:, 1], cells[:, 1], cells[:, 0]))
    return xy[order][:patches].astype(np.int64)


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        torch.set_num_threads(threads)


def _measure(case: Case, folder: Path, patches: int, rounds: int) -> list[Row]:
    path = write_slide(folder / "slide.tif", texture(case.size_px), case.form)
    xy = lattice(case, patches)
    batch = np.zeros((4 * RUN, PATCH, PATCH, 3), np.uint8)  # as in a run, which reuses it
    streams = _streams(path, xy)
    ways: dict[str, Callable[[], None]] = {
        "one at a time": partial(_one_at_a_time, path, _coordinates(folder, xy)),
        "openslide": partial(_openslide, path, xy, batch),
        "tiff": partial(_tiff, path, xy, batch),
        "floor": partial(_decode_all, streams, case),
    }
    equal = _equal(path, xy)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.process_time()
            way()
            rates[name].append(len(xy) / (time.process_time() - began))
    best = {name: max(values) for name, values in rates.items()}
    return [
        Row(
            case.name,
            name,
            best[name],
            statistics.median(values),
            best[name] / best["floor"],
            best[name] / best["one at a time"],
            len(streams) / len(xy),
            equal if name == "tiff" else None,
        )
        for name, values in rates.items()
    ]


def _coordinates(folder: Path, xy: Points) -> Path:
    path = folder / "coords.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=xy)
    return path


def _one_at_a_time(path: Path, coordinates: Path) -> None:
    slide = openslide.OpenSlide(str(path))
    with h5py.File(coordinates) as file:
        count = len(file["coords"])
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    batch = []
    for index in range(count):
        with h5py.File(coordinates) as file:
            x, y = file["coords"][index].tolist()
        patch = slide.read_region((x, y), 0, (PATCH, PATCH)).convert("RGB")
        patch = patch.resize((224, 224), Image.Resampling.BILINEAR)
        values = torch.from_numpy(np.array(patch)).permute(2, 0, 1).contiguous().float().div(255)
        batch.append((values - mean) / std)
        if len(batch) == 256:
            torch.stack(batch)
            batch.clear()


def _openslide(path: Path, xy: Points, out: Pixels) -> None:
    with openslide_reader.open_reader(path) as reader:
        for place, (x, y) in enumerate(xy.tolist()):
            out[place % len(out)] = reader.read_region((x, y), 0, (PATCH, PATCH))


def _tiff(path: Path, xy: Points, out: Pixels) -> None:
    with tiff.open_reader(path) as reader:
        for start in range(0, len(xy), RUN):
            run = xy[start : start + RUN]
            place = start % len(out)
            reader.read_regions(run, 0, out[place : place + len(run)])


def _equal(path: Path, xy: Points) -> bool:
    """Every patch, compared in full."""
    expected, out = (np.empty((len(xy), PATCH, PATCH, 3), np.uint8) for _ in range(2))
    _openslide(path, xy, expected)
    _tiff(path, xy, out)
    return np.array_equal(out, expected)


def _streams(path: Path, xy: Points) -> list[bytes]:
    """The tiles that patches touch, each once, as whole streams in memory."""
    level = read_layout(path).levels[0]
    content = path.read_bytes()
    touched: set[int] = set()
    for x, y in xy.tolist():
        for row in range(y // level.format.height, (y + PATCH - 1) // level.format.height + 1):
            first = row * level.across
            last = first + (x + PATCH - 1) // level.format.width
            touched.update(range(first + x // level.format.width, last + 1))
    spans = [(int(level.offsets[tile]), int(level.counts[tile])) for tile in sorted(touched)]
    tiles = [content[offset : offset + size] for offset, size in spans]
    if level.format.jpeg is not None:
        tiles = [level.format.jpeg.whole_stream(tile) for tile in tiles]
    return tiles


def _decode_all(streams: list[bytes], case: Case) -> None:
    width, height = case.form.tile_px
    out = np.empty((height, width, 3), np.uint8)
    for stream in streams:
        if case.form.codec == "jpeg":
            simplejpeg.decode_jpeg(stream, buffer=out)
        else:
            imagecodecs.jpeg2k_decode(stream, numthreads=1, out=out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer patches, one round")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    options = parser.parse_args()
    patches, rounds = (128, 2) if options.quick else (512, 3)
    reads = num_reads(patches=patches, rounds=rounds)
    print(
        f"patches of {PATCH} px per CPU-second on core {options.core}; {reads:,} reads; "
        f"load {os.getloadavg()[0]:.1f}"
    )
    print(f"{'slide':22}{'way':15}{'best':>8}{'median':>8}{'of floor':>10}{'x one':>8}  pixels")
    for row in measure(patches=patches, rounds=rounds, core=options.core):
        pixels = {True: "equal", False: "DIFFER", None: ""}[row.equal_pixels]
        print(
            f"{row.slide:22}{row.way:15}{row.best:8,.0f}{row.median:8,.0f}"
            f"{row.of_floor:10.2f}{row.times_one_at_a_time:8.1f}  {pixels}"
        )


if __name__ == "__main__":
    main()
