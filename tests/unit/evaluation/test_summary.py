import csv
import json
from pathlib import Path

import numpy as np
import pytest

from crane_ray.cohort.tasks import TaskSpec
from crane_ray.errors import ConfigError, StoreError
from crane_ray.evaluation.averaging import by_case, ensemble
from crane_ray.evaluation.calibration import calibrated_probabilities, fit_temperature
from crane_ray.evaluation.measurements import COLUMNS, Evaluation, metrics_rows
from crane_ray.evaluation.metrics import task_metrics
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.ranking import youden_threshold
from crane_ray.evaluation.summary import evaluate
from tests.unit.evaluation.made_up import BINARY, THREE, predict, table_of

FEW = 40
"""Replicates, where a test does not look at the width of intervals."""


def experiment(*tasks: TaskSpec, folds: int = 3) -> Predictions:
    return Predictions.concat(
        [
            predict(task, 24, fold=fold, split=split, slides_of_case=2)
            for task in tasks
            for fold in range(folds)
            for split in ("train", "val", "test")
        ]
    )


def test_values_are_the_metrics_of_the_fold_s_rows() -> None:
    both = experiment(BINARY, THREE)
    evaluation = evaluate(both, (BINARY, THREE), num_replicates=FEW)
    for task in (BINARY, THREE):
        for fold in (0, 1, 2):
            for split in ("train", "val", "test"):
                rows = both.select(fold=fold, split=split).arrays(task.name)
                given = (rows.labels_N, rows.probabilities_NC)
                expected = task_metrics(*given, classes=task.classes).values
                for metric, value in expected.items():
                    at = {"task": task.name, "split": split, "fold": str(fold)}
                    found = evaluation.find(metric, **at)
                    assert found.value == pytest.approx(value)
                    assert (found.num_slides, found.num_cases) == (48, 24)
                    assert found.num_valid == FEW
                    assert found.low is not None
                    assert found.high is not None
                    # A class that is never mistaken has no spread.
                    assert found.low < found.high or found.value in (0, 1)


def test_mean_and_deviation_are_over_folds_without_the_ensemble() -> None:
    folds = experiment(BINARY)
    both = Predictions.concat([folds, ensemble(folds)])
    evaluation = evaluate(both, (BINARY,), num_replicates=FEW)
    values = [evaluation.find("auc", task="amr", fold=str(fold)).value for fold in (0, 1, 2)]
    given = [value for value in values if value is not None]
    mean = evaluation.find("auc", task="amr")
    assert mean.value == pytest.approx(np.mean(given))
    assert mean.low is not None
    assert mean.high is not None
    assert mean.low < np.mean(given) < mean.high
    spread = evaluation.find("auc", task="amr", fold="sd")
    assert spread.value == pytest.approx(np.std(given, ddof=1))
    assert (spread.low, spread.high) == (None, None)
    together = ensemble(folds).select(split="test").arrays("amr")
    found = evaluation.find("auc", task="amr", fold="ensemble")
    assert found.value == task_metrics(together.labels_N, together.probabilities_NC).values["auc"]


def test_one_fold_has_no_mean() -> None:
    evaluation = evaluate(experiment(BINARY, folds=1), (BINARY,), num_replicates=0)
    assert {row.fold for row in evaluation.measurements} == {"0"}
    assert {row.low for row in evaluation.measurements} == {None}
    assert not any(row.note for row in evaluation.measurements if row.split == "test")


def test_temperature_and_threshold_come_from_the_fold_s_own_val_part() -> None:
    both = experiment(BINARY)
    evaluation = evaluate(both, (BINARY,), num_replicates=FEW, thresholds={"amr": 0.9})
    for fold in (0, 1, 2):
        val = both.select(fold=fold, split="val").arrays("amr")
        test = both.select(fold=fold, split="test").arrays("amr")
        temperature = fit_temperature(val.labels_N, val.logits_NC)
        threshold = youden_threshold(val.labels_N, val.probabilities_NC[:, 1])
        assert temperature is not None
        assert threshold is not None
        where = {"task": "amr", "fold": str(fold)}
        for metric, value in (("temperature", temperature.value), ("threshold", threshold)):
            assert evaluation.find(metric, split="val", **where).value == value
        p_NC = calibrated_probabilities(test.logits_NC, temperature.value)
        calibrated = task_metrics(test.labels_N, p_NC).values
        at = {"youden": threshold, "given": 0.9}
        plain = task_metrics(test.labels_N, test.probabilities_NC, thresholds=at).values
        for metric in ("ece", "brier", "log_loss"):
            found = evaluation.find(f"{metric}_calibrated", **where)
            assert found.value == pytest.approx(calibrated[metric])
            assert found.value != pytest.approx(plain[metric])
            assert found.low is not None
        for metric in ("sensitivity", "specificity"):
            for name in at:
                assert evaluation.find(f"{metric}_at_{name}", **where).value == pytest.approx(
                    plain[f"{metric}_at_{name}"]
                )
    note = evaluation.find("ece_calibrated", task="amr", fold="1", split="val").note
    assert note == "fitted on val, where 24 of these cases are"
    assert evaluation.find("ece_calibrated", task="amr", fold="1").note == ""


def test_cases_of_test_that_are_in_val_too_are_told() -> None:
    shared = table_of([[0.4, 0.6]] * 2, [0, 1], slides=["a", "b"], cases=["x", "y"], split="val")
    test = table_of([[0.4, 0.6]] * 2, [0, 1], slides=["c", "d"], cases=["x", "z"])
    evaluation = evaluate(Predictions.concat([shared, test]), (BINARY,), num_replicates=0)
    for metric in ("brier_calibrated", "specificity_at_youden"):
        note = evaluation.find(metric, task="amr", fold="0").note
        assert note.endswith("fitted on val, where 1 of these cases are")
    assert evaluation.find("brier", task="amr", fold="0").note == ""


def test_without_a_val_part_calibrated_numbers_are_not_made_up() -> None:
    external = Predictions.concat([predict(BINARY, fold=f, split="external") for f in (0, 1)])
    evaluation = evaluate(external, (BINARY,), num_replicates=FEW)
    for metric in ("ece_calibrated", "sensitivity_at_youden"):
        found = evaluation.find(metric, task="amr", split="external", fold="0")
        assert found.value is None
        assert found.note == "no labelled val part in fold 0"
        mean = evaluation.find(metric, task="amr", split="external")
        assert (mean.value, mean.note) == (None, "undefined in fold 0, 1")


def test_val_with_one_class_gives_no_threshold() -> None:
    val = table_of(
        [[0.4, 0.6], [0.9, 0.1]], [1, 1], slides=["a", "b"], cases=["a", "b"], split="val"
    )
    both = Predictions.concat([val, predict(BINARY)])
    evaluation = evaluate(both, (BINARY,), num_replicates=FEW)
    found = evaluation.find("specificity_at_youden", task="amr", fold="0")
    assert (found.value, found.note) == (None, "val of fold 0 has one class alone")
    assert evaluation.find("brier_calibrated", task="amr", fold="0").value is not None


def test_a_fold_without_a_class_is_left_out_of_the_mean_and_named() -> None:
    one_class = table_of(
        [[0.2, 0.8], [0.6, 0.4]], [1, 1], slides=["a", "b"], cases=["a", "b"], fold=7
    )
    both = Predictions.concat([predict(BINARY, fold=0), predict(BINARY, fold=1), one_class])
    evaluation = evaluate(both, (BINARY,), num_replicates=FEW)
    alone = evaluation.find("auc", task="amr", fold="7")
    assert (alone.value, alone.low, alone.num_valid) == (None, None, 0)
    assert alone.note == "only class amr is present"
    values = [evaluation.find("auc", task="amr", fold=fold).value for fold in ("0", "1")]
    mean = evaluation.find("auc", task="amr")
    assert mean.value == pytest.approx(np.mean([value for value in values if value is not None]))
    assert mean.note.startswith("undefined in fold 7")
    assert mean.low is not None
    assert evaluation.find("accuracy", task="amr").note == ""


def test_a_deviation_needs_two_folds_that_have_the_metric() -> None:
    one_class = table_of([[0.2, 0.8]], [1], slides=["a"], cases=["a"], fold=7)
    evaluation = evaluate(
        Predictions.concat([predict(BINARY), one_class]), (BINARY,), num_replicates=0
    )
    spread = evaluation.find("auc", task="amr", fold="sd")
    assert (spread.value, spread.note) == (None, "undefined in fold 7; needs two folds")
    assert evaluation.find("accuracy", task="amr", fold="sd").value is not None


def test_a_threshold_of_zero_is_one() -> None:
    evaluation = evaluate(predict(BINARY), (BINARY,), thresholds={"amr": 0.0}, num_replicates=0)
    where = {"task": "amr", "fold": "0"}
    assert evaluation.find("sensitivity_at_given", **where).value == 1
    assert evaluation.find("specificity_at_given", **where).value == 0


def test_a_class_that_a_part_lacks_is_told_beside_the_macro_numbers() -> None:
    rows = predict(THREE, 20)
    some = rows.arrays("grade")
    kept = Predictions(rows.table.filter((some.labels_N != 1).tolist()))
    found = evaluate(kept, (THREE,), num_replicates=FEW).find("auc", task="grade", fold="0")
    assert found.value is not None
    assert found.note.startswith("over the classes present; absent: middle")


def test_rows_without_a_label_are_left_out() -> None:
    labelled = predict(BINARY)
    unlabelled = table_of([[0.2, 0.8]], [-1], slides=["u"], cases=["u"])
    with_them = evaluate(Predictions.concat([labelled, unlabelled]), (BINARY,), num_replicates=FEW)
    assert with_them == evaluate(labelled, (BINARY,), num_replicates=FEW)
    nothing = evaluate(unlabelled, (BINARY,), num_replicates=FEW)
    assert {row.value for row in nothing.measurements} == {None}
    assert {(row.num_slides, row.num_cases) for row in nothing.measurements} == {(0, 0)}
    assert nothing.find("auc", task="amr", fold="0").note == "no labelled slides"
    assert all(row.note for row in nothing.measurements)


def test_subgroups_are_the_rows_of_their_slides_or_cases() -> None:
    rows = predict(BINARY, 30)
    arrays = rows.arrays("amr")
    sites = {
        slide: "A" if index < 8 else "B" for index, slide in enumerate(arrays.slide_ids_N[:20])
    }
    sexes = {case: "fm"[index % 2] for index, case in enumerate(sorted(arrays.case_ids_N))}
    evaluation = evaluate(rows, (BINARY,), by={"site": sites, "sex": sexes}, num_replicates=FEW)
    found = {
        group: evaluation.find("accuracy", task="amr", fold="0", group=group)
        for group in ("", "site=A", "site=B", "site=(none)", "sex=f", "sex=m")
    }
    assert [row.num_slides for row in found.values()] == [30, 8, 12, 10, 15, 15]
    assert found["site=A"].note == "small group: 8 cases"
    assert found["site=B"].note == ""
    first = task_metrics(arrays.labels_N[:8], arrays.probabilities_NC[:8]).values["accuracy"]
    assert found["site=A"].value == first
    assert {row.group for row in evaluation.measurements} == set(found)


def test_a_slide_s_own_value_goes_before_its_case_s() -> None:
    rows = table_of([[0.2, 0.8]] * 2, [0, 1], slides=["s", "t"], cases=["c", "c"])
    evaluation = evaluate(rows, (BINARY,), by={"site": {"c": "A", "t": "B"}}, num_replicates=0)
    groups = {row.group: row.num_slides for row in evaluation.measurements}
    assert groups == {"": 2, "site=A": 1, "site=B": 1}


def test_an_empty_cell_is_a_group_of_its_own() -> None:
    rows = table_of([[0.2, 0.8]] * 2, [0, 1], slides=["s", "t"], cases=["c", "d"])
    for sites, groups in (({"s": "A", "t": ""}, {"A", "(none)"}), ({"s": ""}, {"(none)"})):
        evaluation = evaluate(rows, (BINARY,), by={"site": sites}, num_replicates=0)
        found = {row.group for row in evaluation.measurements if row.group}
        assert found == {f"site={group}" for group in groups}


def test_a_subgroup_table_of_other_slides_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"groups by site: none of the 12 slides .* is in the"):
        evaluate(predict(BINARY), (BINARY,), by={"site": {"other": "A"}})


def test_tasks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="task grade: no predictions of it; there are: amr"):
        evaluate(predict(BINARY), (THREE,))
    other = THREE.model_copy(update={"name": "amr"})
    with pytest.raises(ConfigError, match=r"task amr: predictions of 2 classes, the task has 3"):
        evaluate(predict(BINARY), (other,))
    with pytest.raises(ConfigError, match=r"threshold of task grade: not a task of two classes"):
        evaluate(predict(THREE), (THREE,), thresholds={"grade": 0.5})
    with pytest.raises(ConfigError, match=r"threshold of task amr: 1.5 is no probability"):
        evaluate(predict(BINARY), (BINARY,), thresholds={"amr": 1.5})


def test_case_bags_count_cases_alone() -> None:
    cases = by_case(predict(BINARY, 14, slides_of_case=3))
    found = evaluate(cases, (BINARY,), num_replicates=FEW).find("auc", task="amr", fold="0")
    assert (found.num_slides, found.num_cases) == (None, 14)


def test_the_same_seed_gives_the_same_evaluation() -> None:
    rows = predict(BINARY, 20)
    first = evaluate(rows, (BINARY,), num_replicates=FEW, seed=4)
    assert first == evaluate(rows, (BINARY,), num_replicates=FEW, seed=4)
    assert first.measurements != evaluate(rows, (BINARY,), num_replicates=FEW, seed=5).measurements


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return evaluate(experiment(BINARY, THREE), (BINARY, THREE), num_replicates=FEW, seed=9)


def test_metrics_json_and_csv_say_the_same(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.write(str(tmp_path / "run"))
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert (tree["format"], tree["num_replicates"], tree["seed"]) == (1, FEW, 9)
    with (tmp_path / "run" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0]) == COLUMNS
    assert len(lines) == len(evaluation.measurements)
    for line in lines:
        node = tree["tasks"][line["task"]][line["split"]][line["fold"]][line["metric"]]
        for name in ("value", "low", "high"):
            assert (float(line[name]) if line[name] else None) == node[name]
        assert (int(line["num_slides"]), int(line["num_cases"])) == (
            node["num_slides"],
            node["num_cases"],
        )


def test_metrics_json_is_read_back(evaluation: Evaluation, tmp_path: Path) -> None:
    assert Evaluation.read(str(tmp_path)) is None
    evaluation.write(str(tmp_path))
    read = Evaluation.read(str(tmp_path))
    assert read is not None
    assert set(read.measurements) == set(evaluation.measurements)
    assert read.tree() == evaluation.tree()
    (tmp_path / "metrics.json").write_text('{"format": 1}')
    with pytest.raises(StoreError, match=r"metrics\.json"):
        Evaluation.read(str(tmp_path))


def test_groups_lie_beside_the_tasks_in_metrics_json() -> None:
    rows = predict(BINARY)
    sites = dict.fromkeys(rows.arrays("amr").case_ids_N, "A")
    tree = evaluate(rows, (BINARY,), by={"site": sites}, num_replicates=0).tree()
    whole = tree["tasks"]["amr"]["test"]["0"]["auc"]["value"]
    assert tree["groups"]["site=A"]["amr"]["test"]["0"]["auc"]["value"] == whole


def test_rows_to_show(evaluation: Evaluation) -> None:
    rows = metrics_rows(evaluation)
    assert [(row["task"], row["fold"]) for row in rows] == [
        (task, fold) for task in ("amr", "grade") for fold in ("0", "1", "2", "mean", "sd")
    ]
    found = evaluation.find("auc", task="grade", fold="1")
    assert rows[6]["AUC"] == f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    assert (rows[6]["slides"], rows[6]["cases"], rows[6]["group"]) == ("48", "24", "all")
    assert "[" not in rows[4]["AUC"]
    short = metrics_rows(evaluation, folds=False)
    assert [row["fold"] for row in short] == ["mean", "sd"] * 2
    assert metrics_rows(evaluation, split="external") == []


def test_an_undefined_number_shows_as_a_dash() -> None:
    rows = table_of([[0.2, 0.8]], [1], slides=["a"], cases=["a"])
    (row,) = metrics_rows(evaluate(rows, (BINARY,), num_replicates=FEW), folds=False)
    assert row["AUC"] == "-"
    assert row["accuracy"] == "1.000"


def test_a_measurement_that_is_not_there(evaluation: Evaluation) -> None:
    with pytest.raises(ConfigError, match="auc of task amr, fold 9, test, group all: not among"):
        evaluation.find("auc", task="amr", fold="9")


def test_replicates_that_lack_a_class_and_single_cases_are_told() -> None:
    few = table_of(
        [[0.1, 0.9], *([[0.8, 0.2]] * 4)], [1, 0, 0, 0, 0], slides=[*"abcde"], cases=[*"abcde"]
    )
    found = evaluate(few, (BINARY,), num_replicates=FEW).find("auc", task="amr", fold="0")
    assert 0 < found.num_valid < FEW
    assert found.note == f"interval of {found.num_valid} of {FEW} replicates"
    one = table_of([[0.2, 0.8]] * 2, [0, 1], slides=["a", "b"], cases=["c", "c"])
    alone = evaluate(one, (BINARY,), num_replicates=FEW).find("auc", task="amr", fold="0")
    assert (alone.value, alone.low, alone.note) == (0.5, None, "a single case: no interval")
