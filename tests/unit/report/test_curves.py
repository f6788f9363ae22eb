import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from crane_ray.report.curves import (
    MANY,
    Curve,
    mean_curve,
    precision_recall_curve,
    roc_curve,
    thinned,
)
from tests.unit.evaluation.made_up import Arrays, scored

Bools = npt.NDArray[np.bool_]


def both_classes(arrays: Arrays) -> tuple[Bools, npt.NDArray[np.float64]] | None:
    labels, probabilities, _ = arrays
    positive = labels == 1
    return None if positive.all() or not positive.any() else (positive, probabilities[:, 1])


@settings(deadline=None, max_examples=45)
@given(scored(2))
def test_roc_points_are_scikit_learns(arrays: Arrays) -> None:
    made = both_classes(arrays)
    if made is None:
        assert roc_curve(arrays[0] == 1, arrays[1][:, 1]) is None
        return
    curve = roc_curve(*made)
    assert curve is not None
    false, true, _ = sk.roc_curve(*made, drop_intermediate=False)
    assert curve.x_P == pytest.approx(false)
    assert curve.y_P == pytest.approx(true)
    assert curve.area == pytest.approx(sk.roc_auc_score(*made))


@settings(deadline=None, max_examples=45)
@given(scored(2))
def test_precision_at_each_recall_is_scikit_learns_at_the_highest_threshold(
    arrays: Arrays,
) -> None:
    made = both_classes(arrays)
    if made is None:
        assert precision_recall_curve(arrays[0] == 1, arrays[1][:, 1]) is None
        return
    curve = precision_recall_curve(*made)
    assert curve is not None
    precision, recall, _ = sk.precision_recall_curve(*made)
    # Scikit-learn goes from the lowest threshold up: the last of a recall is the highest's.
    best = dict(zip(recall[:-1].tolist(), precision[:-1].tolist(), strict=True))
    best.pop(0.0, None)
    assert curve.x_P[1::2] == pytest.approx(sorted(best))
    assert curve.y_P[1::2] == pytest.approx([best[at] for at in sorted(best)])
    assert curve.area == pytest.approx(sk.average_precision_score(*made))


def test_precision_recall_lines_are_steps() -> None:
    curve = precision_recall_curve(np.array([True, False, True]), np.array([0.9, 0.5, 0.1]))
    assert curve is not None
    assert curve.x_P.tolist() == [0, 0.5, 0.5, 1]
    assert curve.y_P == pytest.approx([1, 1, 2 / 3, 2 / 3])


@settings(deadline=None, max_examples=45)
@given(st.lists(scored(2), min_size=1, max_size=4))
def test_the_area_below_the_mean_is_the_mean_area(many: list[Arrays]) -> None:
    made = [both for arrays in many if (both := both_classes(arrays)) is not None]
    for make in (roc_curve, precision_recall_curve):
        curves = [curve for both in made if (curve := make(*both)) is not None]
        if not curves:
            continue
        mean = mean_curve(curves)
        assert mean.area == pytest.approx(np.mean([curve.area for curve in curves]))
        assert (np.diff(mean.x_P) >= 0).all()
        assert (mean.x_P[0], mean.x_P[-1]) == (0, 1)


def test_the_mean_of_one_curve_is_that_curve_with_its_steps() -> None:
    curve = Curve(np.array([0, 0, 0.5, 0.5, 1]), np.array([0, 0.4, 0.4, 0.8, 1]))
    mean = mean_curve([curve])
    assert list(zip(mean.x_P, mean.y_P, strict=True)) == [
        (0, 0), (0, 0.4), (0.5, 0.4), (0.5, 0.8), (1, 1), (1, 1),
    ]  # fmt: skip


@settings(deadline=None, max_examples=45)
@given(st.integers(2, 3000), st.integers(0, 5))
def test_thinned_points_stay_near_the_line_and_keep_its_ends(num: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x = np.sort(generator.uniform(0, 300, num))
    y = np.sort(generator.uniform(0, 300, num))
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    kept = thinned(points)
    if num <= MANY:
        assert kept == points
        return
    assert len(kept) <= num
    assert kept[0] == pytest.approx(points[0], abs=0.21)
    assert kept[-1] == pytest.approx(points[-1], abs=0.21)
    # Each point that was left out lies on the drawn line, to half a step.
    drawn = np.interp(x + y, [a + b for a, b in kept], [b for _, b in kept])
    assert np.abs(drawn - y).max() < 0.9


def test_thousands_of_cases_make_a_small_drawing() -> None:
    generator = np.random.default_rng(0)
    labels = generator.random(50_000) < 0.4
    curve = roc_curve(labels, labels + generator.normal(size=50_000))
    assert curve is not None
    points = [(300 * x, 300 * y) for x, y in zip(curve.x_P, curve.y_P, strict=True)]
    assert len(thinned(points)) < 1600
