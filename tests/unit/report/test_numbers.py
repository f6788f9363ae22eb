"""The numbers of each drawing, against scikit-learn and the evaluation."""

import re

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.evaluation.averaging import ensemble
from crane_ray.evaluation.calibration import calibrated_probabilities, reliability_table
from crane_ray.evaluation.predictions import Predictions
from crane_ray.report.calibration_chart import calibration_chart, reliability
from crane_ray.report.confusion_chart import confusion, confusion_chart
from crane_ray.report.curve_charts import (
    ClassCurves,
    class_curves,
    precision_recall_chart,
    roc_chart,
)
from crane_ray.report.curves import precision_recall_curve, roc_curve
from crane_ray.report.distribution_chart import NUM_BINS, distribution
from crane_ray.report.forest_chart import forest_chart, forest_rows, groups_left_out
from crane_ray.report.mistakes import mistakes_of, num_mistakes
from tests.unit.evaluation.made_up import table_of
from tests.unit.report.made_up import BINARY, THREE, run_of, task_of, two_folds


def mean_area(series: list[ClassCurves]) -> float:
    areas = [one.area for one in series]
    return float(np.mean([area for area in areas if area is not None]))


@pytest.mark.parametrize("task", [BINARY, THREE])
def test_the_legend_s_area_is_the_measured_one(task: TaskSpec) -> None:
    found = task_of(two_folds(task), task)
    series = class_curves(found, roc_curve, "auc")
    overall = found.overall("auc")
    assert overall is not None
    assert mean_area(series) == pytest.approx(overall.value)
    for one in series:
        assert one.measured is not None
        assert one.area == pytest.approx(one.measured.value)
    series = class_curves(found, precision_recall_curve, "average_precision")
    overall = found.overall("average_precision")
    assert overall is not None
    assert mean_area(series) == pytest.approx(overall.value)


def test_two_classes_have_one_curve_and_more_have_one_each() -> None:
    assert [one.name for one in class_curves(task_of(two_folds()), roc_curve, "auc")] == ["amr"]
    three = class_curves(task_of(two_folds(THREE), THREE), roc_curve, "auc")
    assert [one.name for one in three] == ["low", "middle", "high"]
    assert len({(one.look.dash, one.look.mark) for one in three}) == 3


def test_the_prevalence_is_that_of_the_labelled_rows() -> None:
    (one,) = class_curves(task_of(two_folds()), precision_recall_curve, "average_precision")
    assert one.prevalence == 0.5


def test_reliability_is_the_evaluation_s_before_and_after_each_folds_temperature() -> None:
    found = task_of(two_folds(skill=0.6))
    bins = reliability(found)
    rows = found.rows
    assert bins.before == reliability_table(rows.labels_N, rows.probabilities_NC)
    scaled = np.concatenate([
        calibrated_probabilities(found.of_fold(fold).logits_NC, found.temperatures[fold])
        for fold in (0, 1)
    ])  # fmt: skip
    labels = np.concatenate([found.of_fold(fold).labels_N for fold in (0, 1)])
    assert bins.after == reliability_table(labels, scaled)
    assert sum(it.num_slides for it in bins.after or ()) == len(rows)


def test_without_a_val_part_nothing_is_scaled_and_the_drawing_says_so() -> None:
    found = task_of(two_folds().select(split="test"))
    assert reliability(found).after is None
    assert "no labelled val part" in calibration_chart(found)


@pytest.mark.parametrize("task", [BINARY, THREE])
def test_confusion_counts_are_scikit_learns(task: TaskSpec) -> None:
    rows = task_of(two_folds(task, skill=0.5), task).rows
    expected = confusion_matrix(rows.labels_N, rows.probabilities_NC.argmax(axis=1))
    assert confusion(rows).tolist() == expected.tolist()


def test_the_matrix_is_told_in_words() -> None:
    chart = confusion_chart(task_of(
        table_of([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]], [0, 0, 1], slides=["a", "b", "c"],
                 cases=["A", "B", "C"]),
    ))  # fmt: skip
    assert "of 2 no_amr, 1 as no_amr, 1 as amr; of 1 amr, 0 as no_amr, 1 as amr" in chart


@pytest.mark.parametrize("task", [BINARY, THREE])
def test_histograms_have_every_row_once_in_its_class(task: TaskSpec) -> None:
    found = task_of(two_folds(task), task)
    counts = distribution(found)
    assert counts.shape == (task.num_classes, NUM_BINS)
    assert counts.sum(axis=1).tolist() == np.bincount(found.rows.labels_N).tolist()


def test_a_certain_probability_is_in_the_last_bin() -> None:
    found = task_of(table_of([[1e-12, 1.0]], [1], slides=["a"], cases=["A"]))
    assert distribution(found)[1, -1] == 1


def test_errors_are_the_most_confident_ones_and_each_slide_is_there_once() -> None:
    parts = [
        table_of([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]], [1, 1, 1], slides=["a", "b", "c"],
                 cases=["A", "B", "C"]),
        table_of([[0.95, 0.05], [0.4, 0.6], [0.6, 0.4]], [1, 1, 1], slides=["a", "b", "c"],
                 cases=["A", "B", "C"], fold=1),
    ]  # fmt: skip
    found = task_of(Predictions.concat(parts))
    errors = mistakes_of(found)
    assert [(it.slide_id, it.fold, it.other_folds, it.num_folds) for it in errors] == [
        ("a", 1, 1, 2), ("b", 0, 0, 2), ("c", 1, 0, 2),
    ]  # fmt: skip
    assert errors[0].probability == pytest.approx(0.95)
    assert errors[0].probability_of_true == pytest.approx(0.05)
    assert (errors[0].true, errors[0].predicted) == ("amr", "no_amr")
    assert num_mistakes(found) == 4
    assert mistakes_of(found, most=1) == errors[:1]


def test_rows_without_a_label_and_the_ensemble_s_are_no_errors() -> None:
    made = table_of([[0.9, 0.1], [0.9, 0.1]], [MISSING, 1], slides=["a", "b"], cases=["A", "B"])
    found = task_of(Predictions.concat([made, ensemble(made)]))
    assert [it.slide_id for it in mistakes_of(found)] == ["b"]
    assert num_mistakes(found) == 1


def test_a_forest_has_all_folds_and_the_groups_that_have_the_metric() -> None:
    predictions = two_folds()
    cases = predictions.arrays("amr").case_ids_N
    # In group C every case has one class, so that there is no AUC.
    site = {case: "C" if case.endswith(("4", "6")) else "A" for case in cases}
    run = run_of(predictions, by={"site": site})
    found = run.of_task(0)
    assert found is not None
    rows = forest_rows(found, "auc")
    assert [row.name for row in rows] == ["all, mean of 2 folds", "fold 0", "fold 1", "site=A"]
    assert groups_left_out(found, "auc") == (1, 0)
    assert [row.name for row in forest_rows(found, "accuracy")][-2:] == ["site=A", "site=C"]
    overall = found.overall("auc")
    assert rows[0].measured == overall


@pytest.mark.parametrize("skill", [0.0, 1.0, 8.0])
def test_the_axis_of_a_forest_ends_where_shares_do(skill: float) -> None:
    chart = forest_chart(task_of(two_folds(skill=skill)), "auc", "AUC")
    axis = re.findall(r'text-anchor="middle">([\d.]+)<', chart)
    assert axis
    assert all(0 <= float(tick) <= 1 for tick in axis)


def test_an_ensemble_has_a_curve_of_its_own() -> None:
    made = two_folds()
    found = task_of(Predictions.concat([made, ensemble(made)]))
    assert "ensemble" in roc_chart(found)
    assert "ensemble" in precision_recall_chart(found)
    assert found.folds == [0, 1]
