"""The table a patient: calibrated means over folds, decisions, and who is graded."""

import numpy as np
import pandas as pd
import pytest

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.evaluation.assessment import (
    assessment_table,
    calibrated_ensemble,
    of_all_cases,
    with_grades,
)
from crane_ray.evaluation.calibration import fit_temperature
from crane_ray.evaluation.predictions import Predictions, softmax

CELL = TaskSpec(name="cell", column="c", classes=("no_cell", "cell"))
GRADE = TaskSpec(name="grade", column="g", classes=("low", "high"))
NO_VAL = Predictions.concat([])


def cases(logits: list[list[float]], fold: int, split: str = "external") -> Predictions:
    names = [f"case_{place}" for place in range(len(logits))]
    labels = [place % 2 for place in range(len(logits))]
    return Predictions.from_logits(
        np.array(logits), labels, fold=fold, split=split, task="cell",
        slide_ids=[""] * len(logits), case_ids=names,
    )  # fmt: skip


def test_without_val_it_is_the_mean_of_the_folds_and_says_that_it_is_not_calibrated() -> None:
    first, second = [[0.0, 2.0], [1.0, 0.0]], [[0.0, 1.0], [3.0, 0.0]]
    both = Predictions.concat([cases(first, 0), cases(second, 1)])
    found, calibrated = calibrated_ensemble(both, NO_VAL, CELL)
    expected = (softmax(np.array(first)) + softmax(np.array(second))) / 2
    np.testing.assert_allclose([found["case_0"], found["case_1"]], expected, rtol=1e-12)
    assert not calibrated


def test_each_fold_has_the_temperature_of_its_own_val_part() -> None:
    overconfident = [[0.0, 6.0], [0.0, 6.0], [6.0, 0.0], [0.0, 6.0], [6.0, 0.0], [0.0, 6.0]]
    calm = [[0.0, 0.4], [0.0, 0.4], [0.4, 0.0], [0.0, 0.4], [0.4, 0.0], [0.0, 0.4]]
    val = Predictions.concat([cases(overconfident, 0, "val"), cases(calm, 1, "val")])
    asked = Predictions.concat([cases([[0.0, 6.0]], 0), cases([[0.0, 0.4]], 1)])
    found, calibrated = calibrated_ensemble(asked, val, CELL)
    each = []
    for fold, logits in enumerate(([0.0, 6.0], [0.0, 0.4])):
        rows = val.select(fold=fold).arrays("cell")
        fitted = fit_temperature(rows.labels_N, rows.logits_NC)
        assert fitted is not None
        each.append(softmax(np.array([logits]) / fitted.value)[0])
    np.testing.assert_allclose(found["case_0"], np.mean(each, axis=0), rtol=1e-12)
    assert calibrated
    assert found["case_0"][1] < softmax(np.array([[0.0, 6.0]]))[0, 1], "it was overconfident"


def test_a_fold_without_val_leaves_the_whole_uncalibrated() -> None:
    val = cases([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], 0, "val")
    alone, calibrated = calibrated_ensemble(cases([[0.0, 1.0]], 0), val, CELL)
    assert calibrated
    assert alone["case_0"].sum() == pytest.approx(1)
    asked = Predictions.concat([cases([[0.0, 1.0]], 0), cases([[0.0, 1.0]], 1)])
    assert not calibrated_ensemble(asked, val, CELL)[1]


def test_decisions_are_the_more_probable_class_or_follow_a_threshold() -> None:
    probabilities = {"cell": {"b": np.array([0.7, 0.3]), "a": np.array([0.4, 0.6])}}
    table = assessment_table([CELL], probabilities, {})
    assert table["case_id"].tolist() == ["a", "b"]
    assert table["p_cell_cell"].tolist() == [0.6, 0.3]
    assert table["decision_cell"].tolist() == ["cell", "no_cell"]
    careful = assessment_table([CELL], probabilities, {"cell": 0.3})
    assert careful["decision_cell"].tolist() == ["cell", "cell"]


@pytest.mark.parametrize("decision", ["no_cell", "cell"])
def test_only_cases_with_a_finding_are_graded(decision: str) -> None:
    table = pd.DataFrame({"case_id": ["a", "b"], "decision_cell": [decision, "cell"]})
    grades = assessment_table(
        [GRADE], {"grade": {"a": np.array([0.2, 0.8]), "b": np.array([0.9, 0.1])}}, {}
    )
    found = with_grades(table, grades, {"cell": "no_cell"}).set_index("case_id")
    assert found.loc["b", "decision_grade"] == "low"
    assert found.loc["b", "p_grade_high"] == 0.1
    if decision == "cell":
        assert found.loc["a", "decision_grade"] == "high"
    else:
        assert found.loc["a", ["decision_grade", "p_grade_low", "p_grade_high"]].isna().all()


def test_any_of_several_findings_calls_for_a_grade() -> None:
    table = pd.DataFrame(
        {
            "case_id": ["none", "cell", "amr", "both"],
            "decision_cell": ["no_cell", "cell", "no_cell", "cell"],
            "decision_amr": ["no_amr", "no_amr", "amr", "amr"],
        }
    )
    low = dict.fromkeys(table["case_id"], np.array([0.9, 0.1]))
    grades = assessment_table([GRADE], {"grade": low}, {})
    found = with_grades(table, grades, {"cell": "no_cell", "amr": "no_amr"})
    assert found["decision_grade"].isna().tolist() == [True, False, False, False]


def test_every_case_is_a_row_blank_where_no_slide_could_be_used() -> None:
    table = assessment_table([CELL], {"cell": {"B": np.array([0.2, 0.8])}}, {})
    slides = {"A": ["s1"], "B": ["s2", "s3"]}
    whole = of_all_cases(table, slides, {"s1": "cut short", "s3": "no tissue"})
    assert whole["case_id"].tolist() == ["A", "B"]
    assert whole["num_slides"].tolist() == [0, 1]
    assert whole["num_left_out"].tolist() == [1, 1]
    assert whole["left_out"].tolist() == ["s1: cut short", "s3: no tissue"]
    assert whole.iloc[0][["decision_cell", "p_cell_no_cell", "p_cell_cell"]].isna().all()
    assert whole.iloc[1][["decision_cell", "p_cell_cell"]].to_list() == ["cell", 0.8]
    columns = list(whole.columns)
    assert columns.index("decision_cell") < columns.index("p_cell_no_cell"), "in reading order"


def test_of_no_case_that_could_be_assessed_all_are_blank() -> None:
    nothing = assessment_table([CELL], {"cell": {}}, {"cell": 0.5})
    grades = assessment_table([GRADE], {"grade": {}}, {})
    whole = of_all_cases(
        with_grades(nothing, grades, {"cell": "no_cell"}), {"A": ["s1"]}, {"s1": "cut short"}
    )
    assert whole.iloc[0][["decision_cell", "decision_grade", "p_grade_high"]].isna().all()
    assert whole["num_slides"].tolist() == [0]
