import csv
import io
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray import storage
from crane_ray.search.leaderboard import SCHEMA_KEY, Leaderboard, Trial
from tests.unit.search.made_up import board, made_up_search, trial

VALUES = st.none() | st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf)
STATUSES = st.sampled_from(["done", "stopped", "failed", "unfinished"])
PARAMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@st.composite
def boards(draw: st.DrawFn) -> Leaderboard:
    facts = draw(st.lists(st.tuples(VALUES, STATUSES), max_size=12))
    trials = [trial(number, value, status=status) for number, (value, status) in enumerate(facts)]
    mode = draw(st.sampled_from(["max", "min"]))
    return board(*draw(st.permutations(trials)), mode=mode)


def with_params(*params: Mapping[str, Any]) -> Leaderboard:
    return board(*(trial(n, 0.9 - n / 100, params=held) for n, held in enumerate(params)))


@given(boards())
def test_ranks_go_by_value_and_ties_by_number(leaderboard: Leaderboard) -> None:
    ranked = leaderboard.ranked()
    assert sorted(ranked, key=id) == sorted(leaderboard.trials, key=id)
    scores = [one.score for one in ranked]
    num = sum(score is not None for score in scores)
    assert None not in scores[:num]
    sign = -1 if leaderboard.mode == "max" else 1
    keys = [(sign * one.score, one.number) for one in ranked[:num] if one.score is not None]
    assert keys == sorted(keys)
    rest = [one.number for one in ranked[num:]]
    assert rest == sorted(rest)


@given(boards())
def test_the_best_is_done_or_stopped_and_no_other_of_those_is_better(
    leaderboard: Leaderboard,
) -> None:
    fair = [
        one.value
        for one in leaderboard.trials
        if one.status in ("done", "stopped") and one.value is not None and math.isfinite(one.value)
    ]
    best = leaderboard.best
    if best is None:
        assert not fair
        return
    assert best.status in ("done", "stopped")
    assert best.value == (max(fair) if leaderboard.mode == "max" else min(fair))


def test_a_failed_trial_has_no_rank_whatever_it_had_reached() -> None:
    leaderboard = board(trial(0, 0.7), trial(1, 0.99, status="failed"))
    assert leaderboard.best is leaderboard.trials[0]
    assert leaderboard.frame()["rank"].tolist() == [1, pd.NA]
    assert [row["rank"] for row in leaderboard.rows(5)] == ["1", ""]


def test_a_stopped_trial_ranks_by_its_value_like_any_other() -> None:
    leaderboard = board(trial(0, 0.7), trial(1, 0.8, status="stopped"))
    assert leaderboard.best is leaderboard.trials[1]


@pytest.mark.parametrize(("mode", "gain"), [("max", 0.25), ("min", 0.0)])
def test_gain_is_positive_where_the_best_is_better_than_the_default(mode: str, gain: float) -> None:
    leaderboard = board(trial(0, 0.5), trial(1, 0.75), mode=mode, baseline="trial-000")
    assert leaderboard.gain == gain


def test_there_is_no_gain_without_the_default_configs_value() -> None:
    assert board(trial(0, 0.5)).gain is None
    assert board(trial(0, 0.5), trial(1, None), baseline="trial-001").gain is None
    assert board(trial(0, 0.5), baseline="elsewhere").baseline_trial is None


def test_two_trials_of_one_id_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="trial_id"):
        board(trial(0, 0.5), replace(trial(1, 0.5), trial_id="trial-000"))


def test_the_frame_has_a_row_a_trial_and_a_column_a_param_and_metric() -> None:
    leaderboard = made_up_search()
    frame = leaderboard.frame()
    assert list(frame.columns) == [
        "rank", "trial_id", "number", "status", "value", "model.name", "optim.lr",
        "model.dropout", "instances.num_sampled", "bags.level", "val_loss", "auc slide-task",
        "epochs", "seconds", "error",
    ]  # fmt: skip
    assert len(frame) == len(leaderboard.trials)
    assert frame["value"][0] == leaderboard.best.value  # type: ignore[union-attr]
    assert str(frame["instances.num_sampled"].dtype) == "Int64"
    assert str(frame["optim.lr"].dtype) == "float64"


def test_names_that_are_taken_are_told_apart() -> None:
    one = trial(0, 0.5, params={"value": 3, "val_loss": 1}, metrics={"val_loss": 0.2})
    frame = board(one).frame()
    assert frame["value"][0] == 0.5
    assert frame["value (param)"][0] == 3
    assert frame["val_loss"][0] == 1
    assert frame["val_loss (metric)"][0] == 0.2


@given(st.lists(PARAMS, min_size=1, max_size=5))
def test_every_param_is_read_back_from_parquet(values: list[Any]) -> None:
    memory = "memory://leaderboards/property"
    with_params(*({"model.x": value} for value in values)).write(memory)
    table = pq.read_table(io.BytesIO(storage.read_bytes(f"{memory}/leaderboard.parquet")))
    column = table.column("model.x").to_pylist()
    if (table.field("model.x").metadata or {}).get(b"encoding") == b"json":
        column = [None if text is None else json.loads(text) for text in column]
        assert [type(value) for value in column] == [type(value) for value in values]
    assert column == values


def test_a_param_of_several_types_is_json_in_parquet_and_plain_in_csv(tmp_path: Path) -> None:
    leaderboard = with_params({"a": "1"}, {"a": 1}, {"a": True}, {"a": None}, {})
    leaderboard.write(str(tmp_path))
    table = pq.read_table(tmp_path / "leaderboard.parquet")
    assert table.column("a").to_pylist() == ['"1"', "1", "true", None, None]
    assert pd.read_csv(tmp_path / "leaderboard.csv", dtype=str)["a"].tolist()[:3] == [
        "1", "1", "True",
    ]  # fmt: skip


@pytest.mark.parametrize("values", [[2**70, 1], [2**60 + 1, 0.5], [-(2**63), 2**63 - 1]])
def test_whole_numbers_lose_no_digit_in_parquet(values: list[float], tmp_path: Path) -> None:
    with_params(*({"a": value} for value in values)).write(str(tmp_path))
    column = pq.read_table(tmp_path / "leaderboard.parquet").column("a").to_pylist()
    assert [json.loads(value) if type(value) is str else value for value in column] == values


def test_the_parquet_file_says_what_it_is_of(tmp_path: Path) -> None:
    made_up_search(mode="min").write(str(tmp_path))
    table = pq.read_table(tmp_path / "leaderboard.parquet")
    about = json.loads(table.schema.metadata[SCHEMA_KEY])
    assert about == {"format": 1, "metric": "loss, val", "mode": "min", "baseline": "a1b2_00000"}
    assert table.column("rank").to_pylist()[-1] is None


def test_the_csv_file_has_every_digit(tmp_path: Path) -> None:
    leaderboard = made_up_search()
    leaderboard.write(str(tmp_path))
    with open(tmp_path / "leaderboard.csv", newline="") as file:
        values = [row["value"] for row in csv.DictReader(file)]
    assert [float(text) for text in values if text] == [one.score for one in leaderboard.scored]


@pytest.mark.parametrize("trials", [(), (trial(0, None),)], ids=["empty", "all failed"])
def test_a_search_without_values_is_written_too(trials: tuple[Trial, ...], tmp_path: Path) -> None:
    leaderboard = board(*trials)
    leaderboard.write(str(tmp_path))
    assert leaderboard.best is None
    assert pq.read_table(tmp_path / "leaderboard.parquet").num_rows == len(trials)


def test_rows_leave_out_what_never_differs() -> None:
    leaderboard = with_params({"a.lr": 0.1, "a.b": 7}, {"a.lr": None, "a.b": 7})
    assert leaderboard.rows(1) == [
        {"rank": "1", "trial": "trial-000", "status": "done", "value": "0.9000", "a.lr": "0.1",
         "epochs": "10", "time": "12 s"}
    ]  # fmt: skip
    assert leaderboard.rows(9)[1]["a.lr"] == "none"


@pytest.mark.parametrize(
    ("values", "differ"),
    [([1, 1.0], False), ([1, True], True), ([0, False], True), ([math.nan, math.nan], False),
     ([None, "none"], True), (["1", 1], True)],
)  # fmt: skip
def test_what_differs_is_what_a_config_would_tell_apart(values: list[Any], differ: bool) -> None:
    leaderboard = with_params(*({"a": value} for value in values))
    assert bool(leaderboard.varied_paths()) is differ


def test_a_param_that_a_trial_lacks_differs() -> None:
    assert with_params({"a": None}, {}).varied_paths() == ("a",)
