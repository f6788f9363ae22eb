import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.evaluation.calibration import (
    BOUNDS,
    calibrated_probabilities,
    fit_temperature,
    reliability_table,
)
from crane_ray.evaluation.metrics import task_metrics


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(2, 4),
    scale=st.floats(0.2, 8),
)
def test_the_temperature_is_the_best_of_all(seed: int, classes: int, scale: float) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, 60)
    logits = scale * (generator.normal(size=(60, classes)) + 1.2 * np.eye(classes)[labels])
    found = fit_temperature(labels, logits)
    assert found is not None

    def loss(log_temperature: float) -> float:
        p = calibrated_probabilities(logits, float(np.exp(log_temperature)))
        return float(-np.log(p[np.arange(60), labels]).mean())

    everywhere = [loss(at) for at in np.linspace(np.log(BOUNDS[0]), np.log(BOUNDS[1]), 200)]
    beside = [loss(np.log(found.value) + step) for step in (-1e-3, 1e-3)]
    assert loss(np.log(found.value)) <= min(everywhere + beside) + 1e-12


def test_temperature_by_hand() -> None:
    # Margin m, right three times of four: the best softmax gives 3/4, so m / T = log 3.
    found = fit_temperature([1, 1, 1, 0, -1], [[0.0, 5.0]] * 5)
    assert found is not None
    assert found.value == pytest.approx(5 / np.log(3))
    assert found.note == ""


def test_scaling_logits_scales_the_temperature_and_shifts_do_nothing() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 50)
    logits = generator.normal(size=(50, 3)) + np.eye(3)[labels]
    found, scaled, shifted = (
        fit_temperature(labels, z) for z in (logits, 3 * logits, logits + 700.0)
    )
    assert found is not None
    assert scaled is not None
    assert shifted is not None
    assert scaled.value == pytest.approx(3 * found.value)
    assert shifted.value == pytest.approx(found.value)


def test_a_perfect_val_part_says_nothing_about_confidence() -> None:
    found = fit_temperature([0, 1], [[2.0, 0.0], [0.0, 0.1]])
    assert found is not None
    assert found.value == 1.0
    assert "without an error" in found.note


@pytest.mark.parametrize(
    ("labels", "logits", "bound"),
    [
        ([0, 1], [[0.0, 2.0], [2.0, 0.0]], BOUNDS[1]),
        ([0, 1, 0], [[0.02, 0.0], [0.0, 0.03], [0.0, 0.0]], BOUNDS[0]),
    ],
)
def test_the_temperature_is_bounded(
    labels: list[int], logits: list[list[float]], bound: float
) -> None:
    found = fit_temperature(labels, logits)
    assert found is not None
    assert found.value == bound
    assert "bound" in found.note


def test_nothing_labelled_gives_no_temperature() -> None:
    assert fit_temperature([-1], [[0.0, 1.0]]) is None


def test_calibration_mends_an_overconfident_network() -> None:
    generator = np.random.default_rng(0)
    true_logits = generator.normal(size=(4000, 2)) * 1.5
    p = calibrated_probabilities(true_logits, 1.0)
    labels = (generator.random(4000) < p[:, 1]).astype(np.int64)
    found = fit_temperature(labels[:2000], 4 * true_logits[:2000])
    assert found is not None
    assert found.value == pytest.approx(4, rel=0.1)
    rest, truth = 4 * true_logits[2000:], labels[2000:]
    before = task_metrics(truth, calibrated_probabilities(rest, 1.0)).values["ece"]
    after = task_metrics(truth, calibrated_probabilities(rest, found.value)).values["ece"]
    assert before is not None
    assert after is not None
    assert after < 0.04 < 0.1 < before


def test_the_reliability_table_adds_up_to_the_calibration_error() -> None:
    generator = np.random.default_rng(3)
    labels = generator.integers(-1, 3, 80)
    p = calibrated_probabilities(generator.normal(size=(80, 3)), 1.0)
    table = reliability_table(labels, p)
    num = sum(row.num_slides for row in table)
    assert num == (labels >= 0).sum()
    error = sum(
        row.num_slides / num * abs(row.confidence - row.accuracy)
        for row in table
        if row.confidence is not None and row.accuracy is not None
    )
    assert error == pytest.approx(task_metrics(labels, p).values["ece"])
    assert len(table) == 15
    assert table[0].confidence is None  # three classes: none is below 1/3
    assert all(row.low < row.confidence <= row.high for row in table if row.confidence is not None)


def test_bins_are_closed_above() -> None:
    table = reliability_table([0, 0], [[0.5, 0.5], [1.0, 0.0]], num_bins=2)
    assert [row.num_slides for row in table] == [1, 1]
