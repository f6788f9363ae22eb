import warnings

import numpy as np
import numpy.typing as npt
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.evaluation.metrics import replicate_metrics, task_metrics
from crane_ray.evaluation.ranking import youden_threshold
from tests.unit.evaluation.made_up import Arrays, scored


def plain_ece(
    labels: npt.NDArray[np.int64], p: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]
) -> float:
    """Top-label calibration error as its definition reads, bin by bin."""
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == labels
    error = 0.0
    for index in range(15):
        inside = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        if weights[inside].sum():
            accuracy = np.average(correct[inside], weights=weights[inside])
            mean = np.average(confidence[inside], weights=weights[inside])
            error += weights[inside].sum() / weights.sum() * abs(accuracy - mean)
    return error


@settings(deadline=None, max_examples=45)
@given(data=scored(2), threshold=st.sampled_from([0.0, 0.25, 0.5, 0.7310585786300049, 1.0]))
def test_two_classes_agree_with_scikit_learn(data: Arrays, threshold: float) -> None:
    labels, p, weights = data
    found = task_metrics(labels, p, weights_N=weights, thresholds={"x": threshold})
    used = weights > 0
    labels, p, weights = labels[used], p[used], weights[used]
    predicted = p.argmax(axis=1)
    common = {"sample_weight": weights}
    expected: dict[str, float | None] = dict.fromkeys(found.values)
    if len(labels):
        expected |= {
            "accuracy": reference.accuracy_score(labels, predicted, **common),
            "brier": reference.brier_score_loss(labels, p[:, 1], **common),
            "log_loss": reference.log_loss(labels, p, labels=[0, 1], **common),
            "ece": plain_ece(labels, p, weights),
        }
    at = p[:, 1] >= threshold
    for name, label in (("sensitivity", 1), ("specificity", 0)):
        if (labels == label).any():
            recall = {"pos_label": label, "zero_division": 0.0, **common}
            expected[name] = reference.recall_score(labels, predicted, **recall)
            expected[f"{name}_at_x"] = reference.recall_score(labels, at, **recall)
    if (labels == 1).any():
        expected["f1"] = reference.f1_score(labels, predicted, **common)
    if len({*labels, *predicted}) > 1:
        expected["kappa"] = reference.cohen_kappa_score(
            labels, predicted, weights="quadratic", **common
        )
    if len({*labels}) > 1:
        expected |= {
            "auc": reference.roc_auc_score(labels, p[:, 1], **common),
            "average_precision": reference.average_precision_score(labels, p[:, 1], **common),
            "balanced_accuracy": reference.balanced_accuracy_score(labels, predicted, **common),
            "f1_macro": reference.f1_score(labels, predicted, average="macro", **common),
        }
    assert found.values == pytest.approx(expected, abs=1e-9)
    assert set(found.undefined) == {name for name in expected if expected[name] is None}


@settings(deadline=None, max_examples=45)
@given(data=st.integers(3, 4).flatmap(scored))
def test_more_classes_agree_with_scikit_learn(data: Arrays) -> None:
    labels, p, weights = data
    found = task_metrics(labels, p, weights_N=weights)
    used = weights > 0
    labels, p, weights = labels[used], p[used], weights[used]
    predicted, classes = p.argmax(axis=1), np.arange(p.shape[1])
    common = {"sample_weight": weights}
    expected: dict[str, float | None] = dict.fromkeys(found.values)
    present = sorted({*labels.tolist()})
    one_vs_rest = labels[:, None] == classes
    if len(labels):
        expected |= {
            "accuracy": reference.accuracy_score(labels, predicted, **common),
            "brier": reference.brier_score_loss(labels, p, labels=classes, **common),
            "log_loss": reference.log_loss(labels, p, labels=classes, **common),
            "ece": plain_ece(labels, p, weights),
            "auc_micro": reference.roc_auc_score(
                one_vs_rest.ravel(), p.ravel(), sample_weight=np.repeat(weights, p.shape[1])
            ),
        }
    if len({*labels, *predicted}) > 1:
        expected["kappa"] = reference.cohen_kappa_score(
            labels, predicted, weights="quadratic", labels=classes, **common
        )
    for index in classes:
        of_class = {"y_true": labels == index, "y_pred": predicted == index, **common}
        if index in present:
            expected[f"sensitivity_of_{index}"] = reference.recall_score(**of_class)
        if {*present} - {index}:
            expected[f"specificity_of_{index}"] = reference.recall_score(
                **of_class, pos_label=False
            )
    if len(present) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a predicted class that no label has
            expected["balanced_accuracy"] = reference.balanced_accuracy_score(
                labels, predicted, **common
            )
        expected["f1_macro"] = reference.f1_score(
            labels, predicted, labels=present, average="macro", zero_division=0.0, **common
        )
        for name, score in (
            ("auc", reference.roc_auc_score),
            ("average_precision", reference.average_precision_score),
        ):
            each = [score(one_vs_rest[:, index], p[:, index], **common) for index in present]
            expected[name] = float(np.mean(each))
            if name == "auc":
                expected |= {f"auc_of_{c}": value for c, value in zip(present, each, strict=True)}
    assert found.values == pytest.approx(expected, abs=1e-9)
    assert set(found.undefined) == {name for name in expected if expected[name] is None}
    assert found.absent == tuple(str(c) for c in classes if c not in present)


def test_five_slides_by_hand() -> None:
    # One of the two positives (0.6) ties with a negative: pairs 3 wins, 1 tie, 2 losses of 6.
    p1 = np.array([0.9, 0.2, 0.6, 0.6, 0.3])
    labels = [0, 0, 0, 1, 1]
    values = task_metrics(labels, np.stack([1 - p1, p1], axis=1)).values
    assert values["auc"] == pytest.approx((0.5 + 1 + 1) / 6)
    assert values["accuracy"] == pytest.approx(2 / 5)
    assert values["sensitivity"] == 0.5
    assert values["specificity"] == pytest.approx(1 / 3)
    assert values["balanced_accuracy"] == pytest.approx(5 / 12)
    assert values["f1"] == pytest.approx(2 / 5)
    # From the top: 0.9 a negative; at 0.6 one positive of three; at 0.3 both of four.
    assert values["average_precision"] == pytest.approx(0.5 / 3 + 0.5 * 2 / 4)
    assert values["brier"] == pytest.approx((0.81 + 0.04 + 0.36 + 0.16 + 0.49) / 5)
    assert values["log_loss"] == pytest.approx(-np.log([0.1, 0.8, 0.4, 0.6, 0.3]).mean())
    # Bins of 1/15: 0.9 wrong; 0.8 right; 0.6 wrong and right; 0.7 wrong.
    assert values["ece"] == pytest.approx((0.9 + 0.2 + abs(1 - 1.2) + 0.7) / 5)


def test_quadratic_kappa_by_hand() -> None:
    # Labels 0 0 1 2, predictions 0 1 1 0: observed 0+1+0+4; expected sum of squared distances
    # over all pairs of label and prediction (16 pairs): 0,0: 0 1 1 0; 1: 1 0 0 1; 2: 4 1 1 4.
    p = np.eye(3)[[0, 1, 1, 0]] * 0.7 + 0.1
    observed, expected = 5 / 4, (2 + 2 + 2 + 10) / 16
    assert task_metrics([0, 0, 1, 2], p).values["kappa"] == pytest.approx(1 - observed / expected)


def test_a_threshold_is_inclusive_and_the_predicted_class_is_the_first_of_equals() -> None:
    p = np.array([[0.5, 0.5], [0.5, 0.5]])
    values = task_metrics([0, 1], p, thresholds={"half": 0.5}).values
    assert (values["sensitivity"], values["specificity"]) == (0, 1)
    assert (values["sensitivity_at_half"], values["specificity_at_half"]) == (1, 0)


def test_an_absent_class_is_told() -> None:
    only = task_metrics([1, 1], [[0.2, 0.8], [0.4, 0.6]], classes=("no_amr", "amr"))
    assert only.values["auc"] is None
    assert only.undefined["auc"] == "only class amr is present"
    assert only.undefined["specificity"] == "no slide of class no_amr"
    assert only.undefined["kappa"] == "labels and predictions are all of class amr"
    assert only.values["sensitivity"] == 1.0
    assert only.values["accuracy"] == 1.0
    assert only.absent == ("no_amr",)
    negative = task_metrics([0], [[0.2, 0.8]], thresholds={"x": 0.5}, classes=("no_amr", "amr"))
    assert negative.undefined["f1"] == "no slide of class amr"
    assert negative.undefined["f1_macro"] == "only class no_amr is present"
    assert negative.undefined["sensitivity_at_x"] == "no slide of class amr"
    assert negative.values["specificity_at_x"] == 0.0
    p = [[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]]
    two = task_metrics([0, 1], p, classes=("low", "middle", "high"))
    assert two.absent == ("high",)
    assert two.undefined == {
        "auc_of_high": "no slide of class high",
        "sensitivity_of_high": "no slide of class high",
    }
    assert two.values["specificity_of_high"] == 1.0
    lone = task_metrics([1], p[:1], classes=("low", "middle", "high"))
    assert lone.undefined["auc_of_middle"] == "only class middle is present"
    assert lone.undefined["specificity_of_middle"] == "only class middle is present"
    assert lone.undefined["auc"] == "only class middle is present"


def test_nothing_labelled_leaves_every_metric_undefined() -> None:
    nothing = task_metrics([-1], [[0.2, 0.8]], thresholds={"x": 0.5})
    assert set(nothing.undefined.values()) == {"no labelled slides"}
    some = task_metrics([0, 1], [[0.2, 0.8], [0.2, 0.8]], thresholds={"x": 0.5})
    assert set(nothing.values) == set(some.values)
    assert "auc_micro" in task_metrics([-1], [[0.2, 0.3, 0.5]]).undefined


@settings(deadline=None, max_examples=40)
@given(data=st.integers(2, 3).flatmap(scored), other=st.integers(0, 2**32 - 1))
def test_replicates_are_metrics_with_their_weights(data: Arrays, other: int) -> None:
    labels, p, _ = data
    weights = np.random.default_rng(other).integers(0, 4, size=(5, len(labels))).astype(float)
    together = replicate_metrics(labels, p, weights, thresholds={"x": 0.4})
    present = {*labels.tolist()}
    for index, row in enumerate(weights):
        alone = task_metrics(labels, p, weights_N=row, thresholds={"x": 0.4})
        complete = {*labels[row > 0].tolist()} == present
        for name, value in alone.values.items():
            in_replicate = together[name][index]
            over_classes = name in ("auc", "average_precision", "balanced_accuracy", "f1_macro")
            if value is None or (over_classes and not complete):
                assert np.isnan(in_replicate), name
            else:
                assert in_replicate == pytest.approx(value, abs=1e-9), name


@settings(deadline=None, max_examples=50)
@given(data=scored(2))
def test_youden_threshold_is_the_best_there_is(data: Arrays) -> None:
    labels, p, weights = data
    threshold = youden_threshold(labels, p[:, 1], weights)
    if len({*labels[weights > 0].tolist()}) < 2:
        assert threshold is None
        return
    tried = {str(t): float(t) for t in [*np.unique(p[:, 1]), 0.0, 1.1]} | {"best": threshold or 0}
    values = task_metrics(labels, p, weights_N=weights, thresholds=tried).values
    index = {
        t: (values[f"sensitivity_at_{t}"] or 0) + (values[f"specificity_at_{t}"] or 0)
        for t in tried
    }
    assert index["best"] == pytest.approx(max(index.values()))


def test_youden_threshold_lies_between_its_neighbours() -> None:
    found = youden_threshold(np.array([0, 0, 1, 1, -1]), np.array([0.1, 0.2, 0.8, 0.9, 0.5]))
    assert found == 0.5
    # Both 0.05 (up to 0.1) and 0.85 (0.8 to 0.9) reach 0.5: the one nearest to one half.
    tied = youden_threshold(np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.8, 0.9]))
    assert tied == pytest.approx(0.15)
