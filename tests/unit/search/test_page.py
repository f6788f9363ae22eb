import base64
import hashlib
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.search.importance import measure_importance
from crane_ray.search.leaderboard import Leaderboard
from crane_ray.search.page import search_page
from tests.unit.pages.reader import Reader
from tests.unit.search.made_up import board, made_up_search, trial

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def page_of(leaderboard: Leaderboard, **facts: str) -> str:
    importance = measure_importance(leaderboard)
    return search_page(leaderboard, title="Search of kidneys", facts=facts, importance=importance)


def read(leaderboard: Leaderboard, **facts: str) -> Reader:
    reader = Reader(page_of(leaderboard, **facts))
    assert reader.open == []
    return reader


def test_the_page_has_all_its_parts() -> None:
    reader = read(made_up_search(), Searcher="Optuna (TPE), seed 1")
    heads = ("Params and objective", "History", "Learning curves", "Importance", "Best config",
             "Leaderboard", "What went wrong", "About this search")  # fmt: skip
    assert all(head in reader.text for head in heads)
    assert reader.names.count("svg") == 4
    assert "Optuna (TPE), seed 1" in reader.text
    assert "loss is nan in epoch 2" in reader.text


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_summary_says_what_was_gained(mode: str) -> None:
    leaderboard = made_up_search(mode=mode)
    best, default, gain = leaderboard.best, leaderboard.baseline_trial, leaderboard.gain
    assert best is not None and default is not None and gain is not None
    text = read(leaderboard).text
    assert f"Best{best.value:.4f}trial {best.number}" in text
    assert f"Default config{default.value:.4f}trial 0" in text
    assert f"Gain+{gain:.4f}over the default config" in text
    assert "Trials2413\u00a0done, 7\u00a0stopped, 3\u00a0failed, 1\u00a0unfinished" in text
    assert "The best of 20 values" in text


def test_a_search_that_gained_nothing_says_so() -> None:
    leaderboard = board(trial(0, 0.9), trial(1, 0.8), baseline="trial-000")
    text = read(leaderboard).text
    assert "Gain0.0000no trial beat the default config" in text


def test_the_leaderboard_has_a_row_a_trial_best_first() -> None:
    leaderboard = made_up_search()
    rows = [row for row in read(leaderboard).rows if len(row) == 13]
    assert rows[0][:4] == ["rank", "trial", "status", "macro AUC, val"]
    numbers = [row[1].removesuffix(", default") for row in rows[1:]]
    assert numbers == [str(one.number) for one in leaderboard.ranked()]
    assert [row[0] for row in rows[1:]].count("\u2013") == 4


def test_the_best_config_stands_beside_the_default_to_the_last_digit() -> None:
    leaderboard = made_up_search()
    best = leaderboard.best
    assert best is not None
    rows = read(leaderboard).rows
    assert ["param", "best", "default"] in rows
    assert ["optim.lr", repr(best.params["optim.lr"]), "5e-05"] in rows
    assert ["model.name", "crane", "clam_sb"] in rows


def test_a_param_that_a_trial_does_not_have_is_a_dash() -> None:
    rows = read(board(trial(0, 0.6, params={"a": None}), trial(1, 0.5, params={}))).rows
    assert [row[4] for row in rows if len(row) == 7] == ["a", "none", "\u2013"]


def test_only_what_differs_from_the_default_config_is_bold() -> None:
    same, other = {"a": 1, "b": 2}, {"a": 1, "b": 3}
    trials = (trial(0, 0.5, params=same), trial(1, 0.6, params=other))
    page = page_of(board(*trials, baseline="trial-000"))
    assert page.count('class="changed"') == 1
    assert '<td class="changed"><code>3</code></td>' in page


def test_text_that_could_be_something_else_is_quoted() -> None:
    params = {"a": "1", "b": "none", "c": None, "d": "clam_sb", "e": True}
    rows = read(board(trial(0, 0.5, params=params))).rows
    assert rows[1:6] == [["a", '"1"'], ["b", '"none"'], ["c", "none"], ["d", "clam_sb"],
                         ["e", "true"]]  # fmt: skip


def test_text_from_the_search_is_never_markup() -> None:
    leaderboard = board(
        trial(0, 0.5, params={EVIL: EVIL, "b": 1}, metrics={EVIL: 0.1}),
        trial(1, 0.6, params={EVIL: "x" + EVIL, "b": 2}, trial_id=EVIL),
        trial(2, None, params={"b": 3}, error=EVIL),
        *(trial(n, n / 9, params={EVIL: str(n % 3), "b": n}) for n in range(3, 12)),
    )
    leaderboard = replace(leaderboard, metric=EVIL, baseline="trial-000")
    importance = measure_importance(leaderboard)
    assert importance.shares is not None
    page = search_page(leaderboard, title=EVIL, facts={EVIL: EVIL}, importance=importance)
    reader = Reader(page)
    assert reader.names.count("script") == 1
    assert "img" not in reader.names
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert EVIL in reader.text


@settings(max_examples=15)
@given(st.text(st.characters()), st.text(st.characters()))
def test_any_text_makes_a_whole_page(one: str, other: str) -> None:
    leaderboard = replace(
        board(trial(0, 0.5, params={one: other}), trial(1, 0.4, params={one: None}, error=other)),
        metric=other,
    )
    reader = Reader(search_page(leaderboard, title=one, facts={one: other}, importance=None))
    assert reader.open == []
    assert reader.names.count("script") == 1


def test_the_policy_lets_the_pages_own_script_run_and_no_other() -> None:
    page = page_of(made_up_search())
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy == [
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    ]


def test_the_page_fetches_nothing() -> None:
    reader = read(made_up_search())
    assert {"link", "img", "iframe", "a", "image", "use"}.isdisjoint(reader.names)
    named = {name for name, _ in reader.attributes}
    assert {"src", "href", "srcset", "action", "style"}.isdisjoint(named)
    page = page_of(made_up_search())
    addresses = set(re.findall(r"\w+://[^\"'\s)]*", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert "url(" not in page and "@import" not in page


def test_ids_are_one_elements_only_and_what_is_named_by_them_is_there() -> None:
    attributes = read(made_up_search()).attributes
    ids = [value for name, value in attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    for name, value in attributes:
        if name == "aria-labelledby":
            assert set((value or "").split()) <= set(ids)


@pytest.mark.parametrize(
    ("leaderboard", "said"),
    [
        (board(), "no trial has a value"),
        (board(trial(0, None, error="out of memory")), "out of memory"),
        (board(trial(0, 0.5)), "One trial for the highest macro AUC, val."),
        (board(trial(0, 0.5, params={}), trial(1, 0.5, params={})), "The best of 2 values"),
        (board(trial(0, None), trial(1, 0.5), baseline="trial-000"), "Default confignonetrial 0"),
    ],
    ids=["empty", "all failed", "one", "ties without params", "default failed"],
)
def test_searches_with_little_in_them_have_a_page(leaderboard: Leaderboard, said: str) -> None:
    assert said in read(leaderboard).text
