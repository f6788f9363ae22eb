import numpy as np
import pytest

from crane_ray.errors import ConfigError
from crane_ray.evaluation.averaging import by_case, ensemble
from crane_ray.evaluation.predictions import Predictions, softmax
from tests.unit.evaluation.made_up import BINARY, THREE, predict, table_of


def test_the_ensemble_is_the_mean_over_the_folds_that_have_the_slide() -> None:
    both = Predictions.concat(
        [
            table_of([[0.2, 0.8], [0.5, 0.5]], [1, 0], slides=["a", "b"], cases=["x", "y"]),
            table_of([[0.6, 0.4]], [1], slides=["a"], cases=["x"], fold=1),
            table_of([[0.9, 0.1]], [1], slides=["a"], cases=["x"], fold=2, split="train"),
        ]
    )
    mean = ensemble(both)
    assert mean.folds() == [-1]
    test = mean.select(split="test").arrays("amr")
    assert test.slide_ids_N.tolist() == ["a", "b"]
    assert test.labels_N.tolist() == [1, 0]
    np.testing.assert_allclose(test.probabilities_NC, [[0.4, 0.6], [0.5, 0.5]])
    np.testing.assert_allclose(softmax(test.logits_NC), test.probabilities_NC)
    np.testing.assert_allclose(
        mean.select(split="train").arrays("amr").probabilities_NC, [[0.9, 0.1]]
    )


def test_an_ensemble_in_the_table_is_not_averaged_again() -> None:
    folds = Predictions.concat([predict(task, fold=f) for task in (BINARY, THREE) for f in (0, 1)])
    once = ensemble(folds)
    assert ensemble(Predictions.concat([folds, once])).table.equals(once.table)


def test_folds_with_two_labels_for_a_slide_are_refused() -> None:
    labels = [0, 1]
    folds = [
        table_of([[0.5, 0.5]], [label], slides=["a"], cases=["x"], fold=fold)
        for fold, label in enumerate(labels)
    ]
    with pytest.raises(ConfigError, match=r"test slide a of case x, task amr: label 0 .* 1"):
        ensemble(Predictions.concat(folds))


def test_a_label_that_only_one_fold_has_stays() -> None:
    folds = [
        table_of([[0.5, 0.5]], [label], slides=["a"], cases=["x"], fold=fold)
        for fold, label in enumerate([-1, 0])
    ]
    assert ensemble(Predictions.concat(folds)).arrays("amr").labels_N.tolist() == [0]


def test_a_case_is_the_mean_of_its_slides_with_their_largest_label() -> None:
    slides = table_of(
        [[0.1, 0.9], [0.7, 0.3], [0.3, 0.7], [0.5, 0.5], [1.0 - 1e-60, 1e-60]],
        [0, 1, -1, -1, 0],
        slides=["a", "b", "c", "d", "e"],
        cases=["y", "y", "y", "x", "z"],
    )
    cases = by_case(slides).arrays("amr")
    assert cases.case_ids_N.tolist() == ["x", "y", "z"]
    assert cases.slide_ids_N.tolist() == ["", "", ""]
    assert cases.labels_N.tolist() == [-1, 1, 0]
    np.testing.assert_allclose(
        cases.probabilities_NC, [[0.5, 0.5], [1.1 / 3, 1.9 / 3], [1.0, 0.0]], atol=1e-12
    )
    assert np.isfinite(cases.logits_NC).all()


def test_cases_are_told_apart_by_fold_split_and_task() -> None:
    parts = [
        predict(task, 3, fold=fold, split=split, slides_of_case=2)
        for task in (BINARY, THREE)
        for fold in (0, 1)
        for split in ("val", "test")
    ]
    cases = by_case(Predictions.concat(parts))
    assert len(cases) == 3 * len(parts)
    one = by_case(parts[5]).table
    assert cases.select(task="grade", fold=0, split="test").table.equals(one)


def test_bags_that_are_cases_already_stay() -> None:
    cases = by_case(predict(BINARY, slides_of_case=3))
    assert by_case(cases).table.equals(cases.table)


def test_a_case_with_slides_and_a_row_of_its_own_is_refused() -> None:
    slides = predict(BINARY, slides_of_case=2)
    with pytest.raises(ConfigError, match="is there 2 times"):
        by_case(Predictions.concat([slides, by_case(slides)]))


def test_nothing_averages_to_nothing() -> None:
    empty = Predictions.concat([])
    assert len(ensemble(empty)) == 0
    assert len(by_case(empty)) == 0
