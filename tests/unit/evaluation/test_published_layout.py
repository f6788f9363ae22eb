import ast
import io
import math
import pickle
import pickletools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crane_ray.errors import ConfigError
from crane_ray.evaluation.averaging import by_case, ensemble
from crane_ray.evaluation.metrics import task_metrics
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.published_layout import (
    write_evaluation,
    write_experiment,
    write_fold_results,
    write_split_copy,
    write_summary,
)
from tests.unit.evaluation.made_up import BINARY, THREE, predict, table_of


@pytest.fixture(scope="module")
def experiment() -> Predictions:
    return Predictions.concat(
        [
            predict(task, fold=fold, split=split)
            for task in (BINARY, THREE)
            for fold in (0, 1, 2)
            for split in ("val", "test")
        ]
    )


def auc_acc(predictions: Predictions, task: str, fold: int, split: str) -> tuple[float, float]:
    rows = predictions.select(fold=fold, split=split).arrays(task)
    values = task_metrics(rows.labels_N, rows.probabilities_NC).values
    assert values["auc"] is not None
    assert values["accuracy"] is not None
    return values["auc"], values["accuracy"]


def test_the_settings_are_a_dictionary_on_one_line(tmp_path: Path) -> None:
    write_experiment(str(tmp_path), "amr", {"lr": 2e-4, "opt": "adam", "seed": 1})
    text = (tmp_path / "experiment_amr.txt").read_text()
    assert ast.literal_eval(text) == {"lr": 2e-4, "opt": "adam", "seed": 1}
    write_split_copy(str(tmp_path), 3, b",train,val,test\n")
    assert (tmp_path / "splits_3.csv").read_bytes() == b",train,val,test\n"


def test_a_fold_s_pickle_of_one_task(tmp_path: Path, experiment: Predictions) -> None:
    write_fold_results(str(tmp_path), experiment, [BINARY], fold=1)
    results = pickle.loads((tmp_path / "split_1_results.pkl").read_bytes())
    rows = experiment.select(fold=1, split="test").arrays("amr")
    assert list(results) == list(rows.slide_ids_N)
    for index, slide in enumerate(rows.slide_ids_N):
        entry = results[slide]
        assert set(entry) == {"slide_id", "prob", "label"}
        assert entry["slide_id"].shape == ()
        assert str(entry["slide_id"]) == slide
        assert entry["prob"].dtype == np.float64
        np.testing.assert_array_equal(entry["prob"], rows.probabilities_NC[index : index + 1])
        assert entry["label"] == rows.labels_N[index]


def test_a_fold_s_pickle_of_several_tasks(tmp_path: Path, experiment: Predictions) -> None:
    unlabelled = table_of([[0.3, 0.7]], [-1], slides=["u"], cases=["u"], fold=1)
    write_fold_results(
        str(tmp_path), Predictions.concat([experiment, unlabelled]), [THREE, BINARY], fold=1
    )
    results = pickle.loads((tmp_path / "split_1_results.pkl").read_bytes())
    entry = results["test-case4-slide4"]
    assert (entry["label_task1"], entry["label_task2"]) == (1, 0)
    assert (entry["prob_task1"].shape, entry["prob_task2"].shape) == ((1, 3), (1, 2))
    assert set(results["u"]) == {"slide_id", "prob_task2", "label_task2"}
    assert results["u"]["label_task2"] == -1


def test_the_pickle_names_nothing_that_another_numpy_lacks(
    tmp_path: Path, experiment: Predictions
) -> None:
    write_fold_results(str(tmp_path), experiment, [BINARY], fold=0)
    listing = io.StringIO()
    pickletools.dis((tmp_path / "split_0_results.pkl").read_bytes(), out=listing)
    assert "_core" not in listing.getvalue()
    assert "'numpy'" in listing.getvalue()


def test_a_fold_without_test_predictions_is_told(tmp_path: Path, experiment: Predictions) -> None:
    with pytest.raises(ConfigError, match="fold 5: no test predictions"):
        write_fold_results(str(tmp_path), experiment, [BINARY], fold=5)


def test_summary_of_one_task(tmp_path: Path, experiment: Predictions) -> None:
    write_summary(str(tmp_path), experiment, [BINARY], folds=[0, 1, 2], num_folds=3)
    summary = pd.read_csv(tmp_path / "summary.csv", index_col=0)
    assert list(summary) == ["folds", "test_auc", "val_auc", "test_acc", "val_acc"]
    for fold, row in summary.iterrows():
        test = auc_acc(experiment, "amr", int(str(fold)), "test")
        val = auc_acc(experiment, "amr", int(str(fold)), "val")
        assert tuple(row) == pytest.approx((fold, test[0], val[0], test[1], val[1]))


def test_summary_of_several_tasks_and_of_some_folds(
    tmp_path: Path, experiment: Predictions
) -> None:
    write_summary(str(tmp_path), experiment, [BINARY, THREE], folds=[1, 2], num_folds=3)
    summary = pd.read_csv(tmp_path / "summary_partial_1_3.csv", index_col=0)
    assert list(summary) == ["folds"] + [
        f"task{number}_{split}_{metric}"
        for number in (1, 2)
        for metric in ("auc", "acc")
        for split in ("test", "val")
    ]
    auc, accuracy = auc_acc(experiment, "grade", 2, "val")
    assert summary["task2_val_auc"][1] == pytest.approx(auc)
    assert summary["task2_val_acc"][1] == pytest.approx(accuracy)
    assert not (tmp_path / "summary.csv").exists()


def test_an_undefined_number_of_the_summary_is_blank(tmp_path: Path) -> None:
    rows = table_of([[0.3, 0.7]], [1], slides=["a"], cases=["a"])
    write_summary(str(tmp_path), rows, [BINARY], folds=[0], num_folds=1)
    assert (tmp_path / "summary.csv").read_text().splitlines() == [
        ",folds,test_auc,val_auc,test_acc,val_acc",
        "0,0,,,1.0,",
    ]


def test_evaluation_of_one_task(tmp_path: Path, experiment: Predictions) -> None:
    test = experiment.select(split="test")
    write_evaluation(str(tmp_path), Predictions.concat([test, ensemble(test)]), [BINARY])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fold_0.csv",
        "fold_1.csv",
        "fold_2.csv",
        "summary.csv",
    ]
    frame = pd.read_csv(tmp_path / "fold_1.csv")
    assert list(frame) == ["slide_id", "Y", "Y_hat", "p_0", "p_1"]
    rows = test.select(fold=1).arrays("amr")
    assert frame["slide_id"].tolist() == rows.slide_ids_N.tolist()
    assert frame["Y"].tolist() == rows.labels_N.tolist()
    assert frame["Y_hat"].tolist() == rows.probabilities_NC.argmax(axis=1).tolist()
    np.testing.assert_allclose(frame[["p_0", "p_1"]].to_numpy(), rows.probabilities_NC)
    summary = pd.read_csv(tmp_path / "summary.csv", index_col=0)
    assert list(summary) == ["folds", "test_auc", "test_acc"]
    assert tuple(summary.iloc[2]) == pytest.approx((2, *auc_acc(test, "amr", 2, "test")))


def test_evaluation_of_several_tasks_at_patient_level(
    tmp_path: Path, experiment: Predictions
) -> None:
    unlabelled = table_of([[0.3, 0.7]], [-1], slides=["u"], cases=["u"])
    test = Predictions.concat([experiment.select(split="test"), unlabelled])
    write_evaluation(str(tmp_path), by_case(test), [BINARY, THREE])
    frame = pd.read_csv(tmp_path / "fold_0.csv").set_index("case_id")
    assert list(frame) == [
        "Y_task1", "Y_hat_task1", "p0_task1", "p1_task1",
        "Y_task2", "Y_hat_task2", "p0_task2", "p1_task2", "p2_task2",
    ]  # fmt: skip
    assert len(frame) == 13
    assert math.isnan(frame["Y_task1"]["u"])
    assert frame["Y_hat_task1"]["u"] == 1
    assert frame.loc["u"].drop(["Y_hat_task1", "p0_task1", "p1_task1"]).isna().all()
    assert frame["Y_task2"]["test-case5"] == 2
    summary = pd.read_csv(tmp_path / "summary.csv", index_col=0)
    assert summary["task2_test_auc"][1] == pytest.approx(auc_acc(test, "grade", 1, "test")[0])
