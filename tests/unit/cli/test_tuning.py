"""What a person is told of a search: mistakes before anything starts, its course, its end."""

from typing import Any

import pytest
from rich.console import Console

from crane_ray.cli import tuning_console
from crane_ray.cli.main import call
from crane_ray.cli.tuning_console import LiveTrials, TrialLines, print_search
from crane_ray.runtime.search_course import SearchSummary
from crane_ray.search.leaderboard import Leaderboard, Trial
from tests.unit.runtime.small_study import SmallStudy

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Console:
    console = Console(record=True, width=160)
    monkeypatch.setattr(tuning_console, "console", console)
    return console


def told(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert call(words) == 2
    out = capsys.readouterr()
    text = out.out + out.err
    assert "Traceback" not in text
    return " ".join(text.split())


def make_trial(number: int, status: Any = "done", value: float | None = 0.5, **more: Any) -> Trial:
    params = {"training.optim.lr": 10.0 ** -(number + 2), "model.name": "crane"}
    return Trial(f"t{number}", number, params, status, value, {}, 7, 61.0, **more)


def test_a_space_with_mistakes(study: SmallStudy, capsys: pytest.CaptureFixture[str]) -> None:
    space = study.root / "space.yaml"
    space.write_text("model.droput: {uniform: [0, 1]}\noptim.lr: {loguniform: [1e-5, 0]}\n")
    words = told(capsys, study.words(study.root / "r", "--space", str(space), verb="tune"))
    assert "did you mean model.dropout?" in words
    assert "space optim.lr: loguniform from 1e-05 to 0" in words
    assert not (study.root / "r").exists()


def test_no_space_at_all(study: SmallStudy, capsys: pytest.CaptureFixture[str]) -> None:
    words = told(capsys, study.words(study.root / "r", verb="tune"))
    assert "space: missing; give --space" in words


def test_a_search_that_is_there_already(
    study: SmallStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study.root / "r" / "own_search"
    folder.mkdir(parents=True)
    space = {"model.dropout": {"uniform": [0, 0.5]}}
    (folder / "config.yaml").write_text(study.search(study.root / "r", space).to_yaml())
    path = study.root / "space.yaml"
    path.write_text("model.dropout: {uniform: [0, 0.4]}\n")
    words = study.words(study.root / "r", "--space", str(path), verb="tune")
    assert "--resume goes on with it, --overwrite begins it anew" in told(capsys, words)
    assert "began with another space" in told(capsys, [*words, "--resume"])


def test_lines_tell_each_trial_once(screen: Console) -> None:
    lines = TrialLines()
    lines.begin("searching 2 settings", 3, "val auc")
    for trial in (
        make_trial(0, "unfinished"),
        make_trial(0, value=0.91234),
        make_trial(0, value=0.91234),
        make_trial(1, "stopped"),
        make_trial(2, "failed", None, error="the loss is nan [at] bag S1"),
    ):
        lines.trial(trial)
    text = screen.export_text()
    assert "searching 2 settings: 3 trials" in text
    assert text.count("trial 0: done after 7 epochs, 0.9123, lr 0.01, name crane") == 1
    assert "trial 1: stopped" in text
    assert "(the loss is nan [at] bag S1)" in text


def test_the_table_has_what_runs_and_what_ended_last(screen: Console) -> None:
    live = LiveTrials()
    live.begin("searching", 20, "val auc")
    for number in range(8):
        live.trial(make_trial(number))
    live.trial(make_trial(8, "unfinished"))
    live.end()
    text = screen.export_text()
    assert "8 of 20 trials over" in text
    assert "training" in text
    table = text[text.rindex("8 of 20 trials over") :]
    assert "lr 1e-10" in table, "the one that runs"
    assert "lr 1e-09" in table, "the last that ended"
    assert "lr 0.01" not in table, "one that ended long ago"


def test_the_end_names_the_best_the_default_and_the_next_step(screen: Console) -> None:
    board = Leaderboard(
        "val auc",
        "max",
        (
            make_trial(0, value=0.8),
            make_trial(1, value=0.9),
            make_trial(2, "failed", None, error="the loss is nan"),
        ),
        "t0",
    )
    print_search(SearchSummary("/r/own_search", {"/r/own_search": board}, seconds=61))
    text = screen.export_text()
    assert "the config as it was: 0.8000, the best trial: 0.9000" in text
    assert "failed trial 2: the loss is nan" in text
    assert "next: crane-ray train --config /r/own_search/best.yaml" in text


def test_a_search_in_which_nothing_trains(screen: Console) -> None:
    board = Leaderboard("val auc", "max", (make_trial(0, "failed", None, error="no"),))
    summary = SearchSummary("/r/own_search", {"/r/own_search": board})
    print_search(summary)
    assert not summary.has_best
    assert "no trial could be trained" in screen.export_text()
