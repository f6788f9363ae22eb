"""What a reader of slides must hold to."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from crane_ray.slides.slide import RegionsReader, SlideInfo, SlideReader

SIZE = (48, 36)
THREADS = 8
REGIONS = 12
LEVEL_DIFFERENCE = 12.0
"""Largest difference of the mean colours that two levels may show of the same place."""

Pixels = npt.NDArray[np.uint8]
Place = tuple[tuple[int, int], int, tuple[int, int]]


def check_reader(reader: SlideReader) -> None:
    """Holds a reader to `SlideReader`.

    Args:
        reader: open on a slide of at least 64 px a side at every level, not all of one colour.

    Raises:
        AssertionError: sizes and levels that do not fit together, regions of another shape,
            colours off the slide, other pixels for the same place (asked for as part of another
            region, from several threads, or from another level). Of a `RegionsReader` also
            that many regions at once are those that are read one by one.
    """
    _check_info(reader)
    for level in range(reader.info.num_levels):
        _check_shapes(reader, level)
        _check_off_slide(reader, level)
    _check_overlap(reader)
    _check_edges(reader)
    _check_levels(reader)
    _check_threads(reader)
    if isinstance(reader, RegionsReader):
        _check_regions(reader, reader)


def _check_info(reader: SlideReader) -> None:
    info = reader.info
    assert reader.name, "the reader has no name"
    assert info.vendor, "the slide has no vendor"
    assert len(info.level_downsamples) == info.num_levels > 0, "levels and downsamples differ"
    assert info.level_downsamples[0] == 1, "level 0 has a downsample other than 1"
    assert list(info.level_downsamples) == sorted(info.level_downsamples), "levels are not in order"
    for level, downsample in enumerate(info.level_downsamples):
        x, y = info.downsample_xy(level)
        width, height = info.level_dimensions[level]
        assert abs(x - downsample) <= max(0.02, 2 / width) * downsample, f"level {level}: width"
        assert abs(y - downsample) <= max(0.02, 2 / height) * downsample, f"level {level}: height"


def _read(reader: SlideReader, place: Place) -> Pixels:
    xy, level, (width, height) = place
    pixels = reader.read_region(xy, level, (width, height))
    what = f"region {place}"
    assert pixels.shape == (height, width, 3), f"{what}: shape {pixels.shape}"
    assert pixels.dtype == np.uint8, f"{what}: {pixels.dtype}"
    return pixels


def _check_shapes(reader: SlideReader, level: int) -> None:
    for size in (SIZE, (1, 1), (SIZE[0], 1), (1, SIZE[1])):
        for xy in ((0, 0), (-5, 7), (7, -5)):
            _read(reader, (xy, level, size))


def _check_off_slide(reader: SlideReader, level: int) -> None:
    (width, height), (right, down) = SIZE, reader.info.dimensions
    scale = int(reader.info.level_downsamples[level]) + 1
    corners = (
        (-width * scale, 0), (0, -height * scale), (right + scale, 0), (0, down + scale),
        (-10 * width * scale, -10 * height * scale), (right + 10_000, down + 10_000),
    )  # fmt: skip
    for xy in corners:
        assert not _read(reader, (xy, level, SIZE)).any(), (
            f"level {level}: off the slide at {xy} is not black"
        )


def _check_overlap(reader: SlideReader) -> None:
    """A place has the same pixels whichever region it is read as a part of."""
    left, top, width, height = _middle(reader.info)
    whole = _read(reader, ((left, top), 0, (width, height)))
    assert whole.min() != whole.max(), "the slide's middle is of one colour: give another slide"
    for x, y in ((0, 0), (width // 2, 0), (0, height // 2), (width // 3, height // 3)):
        part = _read(reader, ((left + x, top + y), 0, (width // 2, height // 2)))
        assert np.array_equal(part, whole[y : y + height // 2, x : x + width // 2]), (
            f"other pixels at ({left + x}, {top + y}) than as a part of a larger region"
        )


def _check_edges(reader: SlideReader) -> None:
    """Regions over an edge hold the slide where it is and black beyond, not moved."""
    (width, height), (right, down) = SIZE, reader.info.dimensions
    over = _read(reader, ((-9, -5), 0, SIZE))
    inside = _read(reader, ((0, 0), 0, (width - 9, height - 5)))
    assert np.array_equal(over[5:, 9:], inside), "a negative origin moves the pixels"
    assert not over[:5].any(), "above the slide is not black"
    assert not over[:, :9].any(), "left of the slide is not black"
    over = _read(reader, ((right - 9, down - 5), 0, SIZE))
    inside = _read(reader, ((right - 9, down - 5), 0, (9, 5)))
    assert inside.any(), "the slide's last pixels are black"
    assert np.array_equal(over[:5, :9], inside), "the far edge moves the pixels"
    assert not over[5:].any(), "below the slide is not black"
    assert not over[:, 9:].any(), "right of the slide is not black"


def _check_levels(reader: SlideReader) -> None:
    """Levels show the same place: origins are level-0 px, sizes those of the level."""
    left, top, width, height = _middle(reader.info)
    for level, downsample in enumerate(reader.info.level_downsamples):
        size = (max(1, int(width / 2 / downsample)), max(1, int(height / 2 / downsample)))
        covered = (int(size[0] * downsample), int(size[1] * downsample))
        for xy in ((left, top), (left + width // 2, top), (left, top + height // 2)):
            fine = _read(reader, (xy, 0, covered)).mean(axis=(0, 1))
            coarse = _read(reader, (xy, level, size)).mean(axis=(0, 1))
            assert np.abs(fine - coarse).max() <= LEVEL_DIFFERENCE, (
                f"level {level} shows another place than level 0 at {xy}: mean colour {coarse} "
                f"there, {fine} at level 0"
            )


def _check_threads(reader: SlideReader) -> None:
    left, top, width, height = _middle(reader.info)
    rng = np.random.default_rng(0)
    places: list[Place] = [
        ((left + int(x * width / 2), top + int(y * height / 2)), level, SIZE)
        for level in range(reader.info.num_levels)
        for x, y in rng.random((12, 2))
    ]
    alone = [_read(reader, place) for place in places]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(lambda place: _read(reader, place), places * 2))
    for place, pixels, expected in zip(places * 2, together, alone * 2, strict=True):
        assert np.array_equal(pixels, expected), f"{place}: other pixels with threads at once"


def _check_regions(reader: SlideReader, regions: RegionsReader) -> None:
    """Many regions at once, on and off the slide, some twice, alone and from several threads."""
    (right, down), rng = reader.info.dimensions, np.random.default_rng(1)
    runs: list[tuple[int, npt.NDArray[np.int64], Pixels]] = []
    for level in range(reader.info.num_levels):
        xy = rng.integers((-60, -60), (right + 60, down + 60), (REGIONS, 2), dtype=np.int64)
        xy[-1] = xy[0]
        alone = [_read(reader, ((x, y), level, SIZE)) for x, y in xy.tolist()]
        runs.append((level, xy, np.stack(alone)))

    def read(run: tuple[int, npt.NDArray[np.int64], Pixels]) -> bool:
        level, xy, expected = run
        out = np.full_like(expected, 119)
        regions.read_regions(xy, level, out)
        return np.array_equal(out, expected)

    for run in runs:
        assert read(run), f"level {run[0]}: many regions at once have other pixels than one by one"
    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(read, runs * THREADS)), "many regions at once: other with threads"
    nothing = np.empty((0, SIZE[1], SIZE[0], 3), np.uint8)
    regions.read_regions(np.empty((0, 2), np.int64), 0, nothing)


def _middle(info: SlideInfo) -> tuple[int, int, int, int]:
    """Left, top, width and height of the slide's middle, at most 512 px a side."""
    (width, height) = info.dimensions
    side_x, side_y = min(512, width // 2), min(512, height // 2)
    return (width - side_x) // 2, (height - side_y) // 2, side_x, side_y
