from pathlib import Path
from typing import Any

import pytest

from crane_ray.errors import ConfigError
from crane_ray.runtime.search_jobs import SEARCHABLE
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.search.domains import Choice, Span
from crane_ray.search.space import Space, apply, parse_space, read_space, space_names, value_at


def parse(**tree: Any) -> Space:
    named = {path.replace("__", "."): distribution for path, distribution in tree.items()}
    return parse_space(named, TrainJob, SEARCHABLE)


def refusal(**tree: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(**tree)
    return str(caught.value)


UNIT = {"uniform": [0, 0.5]}


def test_the_end_of_a_path_is_enough_where_it_is_clear() -> None:
    space = parse(optim__lr=UNIT, dropout=UNIT, level={"choice": ["slide", "case"]})
    assert list(space.domains) == ["training.optim.lr", "model.dropout", "bags.level"]
    assert parse(training__optim__lr=UNIT).domains == {"training.optim.lr": Span(0, 0.5)}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("name", "could be model.name or training.optim.name; write which"),
        ("model.droput", "no such setting; did you mean model.dropout?"),
        ("optim.leaning_rate", "no such setting"),
        ("model", "is a group of settings: model.name,"),
        ("results", "cannot be searched; settings that can vary: bags.features"),
        ("splits", "cannot be searched"),
        ("workers.count", "cannot be searched"),
    ],
)
def test_paths_that_are_wrong(path: str, words: str) -> None:
    assert words in refusal(**{path: UNIT})


def test_all_mistakes_are_told_at_once() -> None:
    text = refusal(droput=UNIT, lr={"normal": [0, 1]}, optim__lr={"uniform": [1, 0]})
    assert text.count("\n") == 2
    assert "space droput" in text
    assert "space lr" in text
    assert "space optim.lr" in text
    assert "is there already" in refusal(lr=UNIT, optim__lr=UNIT)
    assert "it is empty" in refusal()


def test_combinations_show_every_choice_with_every_other_and_both_ends_of_spans() -> None:
    space = parse(
        model__name={"choice": ["crane", "clam_sb"]}, size={"choice": ["small", "big"]}, lr=UNIT
    )
    found = list(space.combinations())
    pairs = {(values["model.name"], values["model.size"]) for values in found if len(values) == 2}
    assert pairs == {(name, size) for name in ("crane", "clam_sb") for size in ("small", "big")}
    assert {values.get("training.optim.lr") for values in found} == {None, 0, 0.5}


def test_very_many_choices_are_tried_one_by_one() -> None:
    many = {"choice": list(range(1, 40))}
    space = parse(hidden_dim=many, attention_dim=many, patience=many)
    found = list(space.combinations())
    assert len(found) < 1000
    for path in space.domains:
        assert {values[path] for values in found if path in values} == set(range(1, 40))


def test_the_size_of_a_space() -> None:
    assert parse(size={"choice": ["small", "big"]}, gated={"choice": [True, False]}).size == 4
    assert parse(size={"choice": ["small", "big"]}, lr=UNIT).size is None


def test_a_config_with_some_settings_replaced() -> None:
    tree = {"model": {"dropout": 0.25, "name": "crane"}, "splits": "s"}
    changed = apply(tree, {"model.dropout": 0.1, "splits": "t"})
    assert changed == {"model": {"dropout": 0.1, "name": "crane"}, "splits": "t"}
    assert tree["model"] == {"dropout": 0.25, "name": "crane"}
    assert value_at(changed, "model.dropout") == 0.1


def test_values_beyond_a_span_are_moved_into_it() -> None:
    space = Space({"a": Span(0, 0.5), "b": Choice(("x", "y"))})
    assert space.clipped({"a": 0.57, "b": "y"}) == {"a": 0.5, "b": "y"}
    assert space.holds({"a": 0.5, "b": "y"})
    assert not space.holds({"a": 0.57, "b": "y"})
    assert not space.holds({"a": 0.5, "b": "z"})


@pytest.mark.parametrize("name", space_names())
def test_shipped_spaces_hold_the_published_recipe(name: str) -> None:
    space = read_space(name, TrainJob, SEARCHABLE)
    fields = {"task": name, "bags": {"labels": "l", "features": "f"}, "splits": "s"}
    tree = TrainJob.model_validate(fields).model_dump(mode="json")
    assert space.holds({path: value_at(tree, path) for path in space.domains})
    for values in space.combinations():
        TrainJob.model_validate(apply(tree, values))


def test_a_space_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("optim.lr: {loguniform: [1e-5, 1e-3]}\n")
    space = read_space(str(path), TrainJob, SEARCHABLE)
    assert space.domains == {"training.optim.lr": Span(1e-5, 1e-3, log=True)}
    with pytest.raises(ConfigError, match="no such space; shipped: cardiac-grade, cardiac-mtl"):
        read_space("cardiac", TrainJob, SEARCHABLE)
    with pytest.raises(ConfigError, match="No such file or directory"):
        read_space(str(tmp_path / "other.yaml"), TrainJob, SEARCHABLE)
