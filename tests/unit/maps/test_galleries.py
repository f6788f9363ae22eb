"""Samples of patches: the right ones, in order, always the same, at the encoder's scale."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import SlideError
from crane_ray.maps.galleries import draw_gallery, read_sample, sample_rows
from crane_ray.maps.settings import SampleConfig
from tests.unit.maps.slides import Image, grid_of, lattice, opened, scores_of

SCORES = scores_of(lattice((1300, 900), 64), footprint=64)


def rows_of(**fields: Any) -> list[int]:
    found: list[int] = sample_rows(SCORES, "cell", SampleConfig(name="a", **fields)).tolist()
    return found


@settings(deadline=None)
@given(k=st.integers(1, 400))
def test_top_and_bottom_are_the_ends_of_the_order(k: int) -> None:
    order = np.argsort(SCORES.raw_HN[0], kind="stable")
    top, bottom = rows_of(mode="topk", k=k), rows_of(mode="reverse_topk", k=k)
    assert top == order[::-1][:k].tolist()
    assert bottom == order[:k].tolist()
    assert len(top) == min(k, len(SCORES))


@settings(deadline=None)
@given(
    k=st.integers(1, 100), seed=st.integers(0, 9),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)  # fmt: skip
def test_a_range_is_drawn_from_its_percentiles(
    k: int, seed: int, ends: tuple[float, float]
) -> None:
    start, end = min(ends), max(ends)
    fields = {"mode": "range_sample", "k": k, "score_start": start, "score_end": end}
    rows = rows_of(**fields, seed=seed)
    found = SCORES.percentile_HN[0][rows]
    inside = (SCORES.percentile_HN[0] >= np.float32(start)) & (
        SCORES.percentile_HN[0] <= np.float32(end)
    )
    assert len(rows) == len(set(rows)) == min(k, inside.sum())
    assert inside[rows].all()
    assert (np.diff(found) <= 0).all()
    assert rows == rows_of(**fields, seed=seed)


def test_another_seed_draws_others() -> None:
    assert rows_of(mode="range_sample", seed=1) != rows_of(mode="range_sample", seed=2)


def test_equal_scores_are_in_the_order_of_the_patches() -> None:
    scores = scores_of(lattice((300, 300), 64), footprint=64)
    scores.raw_HN[:] = 1
    for mode in ("topk", "reverse_topk"):
        sample = SampleConfig(name="a", mode=mode, k=3)
        assert sample_rows(scores, "cell", sample).tolist() == [0, 1, 2]


def test_of_patches_that_overlap_one_place_is_shown_once() -> None:
    scores = scores_of(lattice((600, 600), 16), footprint=64)
    scores.raw_HN[0] = -np.abs(scores.xy - [300, 300]).sum(axis=1)
    chosen = scores.xy[sample_rows(scores, "cell", SampleConfig(name="a", k=9))]
    assert len(chosen) == 9
    for number, one in enumerate(chosen):
        others = np.delete(chosen, number, axis=0)
        assert ((64 - np.abs(others - one)).clip(0).prod(axis=1) <= 64 * 64 / 4).all()


def test_patches_are_read_at_the_scale_of_the_grid(slide_path: Path, image: Image) -> None:
    rows = sample_rows(SCORES, "cell", SampleConfig(name="a", k=70))
    with opened(slide_path) as reader:
        found = list(read_sample(reader, grid_of(SCORES, reader), SCORES, "cell", rows))
    assert [one.rank for one in found] == list(range(1, 71))
    for one, row in zip(found, rows.tolist(), strict=True):
        x, y = one.xy
        assert one.xy == tuple(SCORES.xy[row])
        expected = image[y : y + 64, x : x + 64]
        np.testing.assert_array_equal(one.pixels[: len(expected), : expected.shape[1]], expected)
    assert found[0].percentile == 1.0
    assert found[0].file_name("png") == f"01_x{found[0].xy[0]}_y{found[0].xy[1]}_p100.0.png"


def test_a_grid_of_other_patches_is_refused(slide_path: Path) -> None:
    other = scores_of(SCORES.xy + 1, footprint=64)
    with opened(slide_path) as reader:
        sample = read_sample(reader, grid_of(other, reader), SCORES, "cell", np.array([0]))
        with pytest.raises(SlideError, match="are not the 315 that were scored"):
            next(sample)


@pytest.mark.parametrize(("k", "columns", "rows"), [(1, 1, 1), (15, 5, 3), (26, 10, 3)])
def test_a_gallery_has_a_place_for_each(slide_path: Path, k: int, columns: int, rows: int) -> None:
    chosen = sample_rows(SCORES, "cell", SampleConfig(name="a", k=k))
    with opened(slide_path) as reader:
        found = list(read_sample(reader, grid_of(SCORES, reader), SCORES, "cell", chosen))
    sheet = draw_gallery(found, "a")
    assert sheet.shape == (40 + rows * 268 + 12, columns * 236 + 12, 3)
    for number in range(k):
        row, column = divmod(number, columns)
        top, left = 40 + row * 268, 12 + column * 236
        middle = sheet[top + 112, left + 112]
        # 64 px are shown as 224: the middle lies between the pixels 31 and 32.
        near = found[number].pixels[30:34, 30:34].reshape(-1, 3).astype(int)
        assert (middle >= near.min(axis=0) - 20).all()
        assert (middle <= near.max(axis=0) + 20).all()
        label = sheet[top + 224 : top + 268, left : left + 224]
        assert (label < 100).any()
