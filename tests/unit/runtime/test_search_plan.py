"""Everything that can be wrong with a search is found before it starts."""

from pathlib import Path
from typing import Any

import pytest

from crane_ray.errors import ConfigError
from crane_ray.runtime.search_plan import SearchPlan, plan_search
from tests.unit.runtime.small_study import SmallStudy, make_study

SPACE = {"model.dropout": {"uniform": [0, 0.5]}, "optim.lr": {"loguniform": [1e-4, 1e-2]}}


@pytest.fixture
def study(tmp_path: Path) -> SmallStudy:
    return make_study(tmp_path / "study")


def plan(study: SmallStudy, space: dict[str, Any] | None = None, **settings: Any) -> SearchPlan:
    return plan_search(study.search(study.root / "results", space or SPACE, **settings))


def refusal(study: SmallStudy, space: dict[str, Any] | None = None, **settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(study, space, **settings)
    return str(caught.value)


def test_a_plain_search_takes_the_first_fold(study: SmallStudy) -> None:
    assert list(plan(study).splits) == [0]
    assert list(plan(study, folds="1-2").splits) == [1, 2]
    assert list(plan(study, nested=True, objective__inner_folds=2).splits) == [0, 1, 2]


def test_values_that_no_config_can_have(study: SmallStudy) -> None:
    space = {
        "model.dropout": {"uniform": [0, 1.5]},
        "model.name": {"choice": ["crane", "clam_bs"]},
        "optim.lr": {"uniform": [-1, 1]},
    }
    text = refusal(study, space)
    assert "model.dropout: 1.5" in text
    assert "did you mean clam_sb?" in text
    assert "training.optim.lr: -1.0" in text


def test_choices_that_do_not_go_together(study: SmallStudy) -> None:
    space = {
        "model.name": {"choice": ["crane", "mean_pool"]},
        "model.size": {"choice": ["small", "big"]},
        "model.attention_dim": {"choice": [None, 8]},
    }
    text = refusal(study, space)
    assert "both are the width of the attention" in text
    assert "mean_pool has no attention" in text


def test_features_that_are_not_there(study: SmallStudy) -> None:
    nowhere = str(study.root / "nowhere")
    text = refusal(study, {"bags.features": {"choice": [str(study.features), nowhere]}})
    assert nowhere in text


def test_bag_levels_and_stores_can_be_chosen(study: SmallStudy) -> None:
    space = {"bags.level": {"choice": ["slide", "case"]}}
    found = plan(study, space)
    assert {one.config.level for one in found.studies.values()} == {"slide", "case"}


def test_a_grid_needs_choices(study: SmallStudy) -> None:
    assert "has no list of values" in refusal(study, search__searcher="grid")
    choices = {"model.dropout": {"choice": [0.0, 0.5]}}
    assert plan(study, choices, search__searcher="grid").space.size == 2
    text = refusal(study, choices, search__searcher="grid", search__trials=7)
    assert "a grid has 2 trials" in text


def test_population_based_training_changes_what_can_change(study: SmallStudy) -> None:
    names = {**SPACE, "model.hidden_dim": {"choice": [8, 16]}}
    text = refusal(study, names, scheduler__name="pbt")
    assert "model.hidden_dim cannot change while a network trains" in text
    assert plan(study, SPACE, scheduler__name="pbt")
    with pytest.raises(ConfigError, match="cannot take over another one's weights"):
        study.search(study.root, SPACE, scheduler__name="pbt", workers__count=2)
    with pytest.raises(ConfigError, match="leave --searcher out"):
        study.search(study.root, SPACE, scheduler__name="pbt", search__searcher="optuna")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"nested": True}, "--nested searches by inner folds; give --inner-folds K"),
        ({"grouped_folds": True}, "a search trains each trial by itself"),
        ({"seeds": 2}, "a search trains with one seed"),
    ],
)
def test_options_that_do_not_fit(study: SmallStudy, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        study.search(study.root, SPACE, **settings)


def test_the_default_config_is_tried_first_where_the_space_holds_it(study: SmallStudy) -> None:
    job = study.search(study.root, SPACE)
    found = plan_search(job)
    assert job.baseline(found.space) == {"model.dropout": 0.0, "training.optim.lr": 0.01}
    far = {"optim.lr": {"uniform": [0.5, 1]}}
    assert study.search(study.root, far).baseline(plan(study, far).space) is None


def test_inner_folds_are_by_patient_and_leave_the_test_part_out(study: SmallStudy) -> None:
    found = plan(study)
    outer = found.splits[0]
    inner = found.inner_splits(0, 3, seed=1)
    seen = {*outer.train, *outer.val}
    case_of = {"S0": "C0", "S1": "C0"}
    for split in inner.values():
        assert {*split.train, *split.val} == seen
        cases = [{case_of.get(slide, slide) for slide in part} for part in (split.train, split.val)]
        assert not cases[0] & cases[1]
        assert split.test == ()
    in_val = [slide for split in inner.values() for slide in split.val]
    assert sorted(in_val) == sorted(seen), "each case is in one val part"
    found.check_parts(inner)
    for one in found.parts_of(inner).values():
        assert set(one.cohort.slide_ids) == seen


def test_val_parts_that_say_nothing(study: SmallStudy) -> None:
    study.put_split(0, train=study.slide_ids[:8], val=["S8", "S10"], test=["S12", "S13"])
    found = plan(study)
    with pytest.raises(ConfigError, match=r"val auc \(kind\) is undefined in its val part"):
        found.check_parts(found.splits)
    by_loss = plan(study, objective__metric="loss")
    by_loss.check_parts(by_loss.splits)
    study.put_split(0, train=study.slide_ids[:8], test=["S12", "S13"])
    found = plan(study)
    with pytest.raises(ConfigError, match="its val part has no bag with features and labels"):
        found.check_parts(found.splits)


def test_metrics_and_tasks_that_are_not_there(study: SmallStudy) -> None:
    assert "--metric acu" in refusal(study, objective__metric="acu")
    assert "there are: kind" in refusal(study, objective__task="other")
