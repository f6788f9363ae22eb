"""Which verbs can be submitted, and what is sent."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from crane_ray.cli.main import VERBS, cli
from crane_ray.cli.submission import JOBS, TYPED, command
from crane_ray.runtime.exchange_jobs import ExportJob
from crane_ray.runtime.job_paths import paths_of
from crane_ray.runtime.study_jobs import TrainJob

LEFT_OUT: dict[str, set[str]] = {"splits": {"check", "features"}, "plan": set()}
"""Options that a submitted verb has not, where it is not the CPUs of a local Ray: splits are drawn
as a job, and checked here; plan's CPUs are those it plans for."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What was handed to the Jobs API."""
    calls: list[tuple[str, Any]] = []

    def submit(verb: str, job: Any, *_: Any) -> int:
        calls.append((verb, job))
        return 0

    monkeypatch.setattr("crane_ray.runtime.submission.submit_job", submit)
    return calls


def test_every_verb_that_works_on_a_cohort_can_be_submitted() -> None:
    assert {verb.split()[0] for verb in JOBS} == set(VERBS) - TYPED


@pytest.mark.parametrize("verb", JOBS)
def test_a_submitted_verb_has_the_options_of_the_verb_itself(verb: str) -> None:
    at: Any = command
    itself: Any = cli
    for word in verb.split():
        at = at.get_command(click.Context(at), word)
        itself = itself.get_command(click.Context(itself), word)
    local = {"address", "help"} | LEFT_OUT.get(verb, {"cpus"})
    options = [option for option in itself.params if isinstance(option, click.Option)]
    own = {option.name for option in options} - local
    assert own <= {option.name for option in at.params}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["view"], "view is not submitted; it runs where it is typed"),
        (["import", "heatmap"], "import heatmap is not submitted"),
        (["extrct"], "no verb extrct; did you mean extract?"),
    ],
)
def test_what_cannot_be_submitted_is_told(words: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["submit", *words])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "results"),
    [
        (["splits", "--labels", "l.csv", "--task", "cardiac-mtl"], "splits/cardiac-mtl_100"),
        (["assess", "--model", "m", "--cases", "c.csv", "--features", "f"], "assessment"),
        (["demo"], "crane-demo"),
    ],
)
def test_results_go_to_the_directory_of_the_command_unless_another_is_named(
    words: list[str],
    results: str,
    sent: list[tuple[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never to the one that a job has on its node, which goes with the job."""
    monkeypatch.chdir(tmp_path)
    address = ["--address", "http://head:8265"]
    CliRunner().invoke(cli, ["submit", *words, *address], catch_exceptions=False)
    ((_, job),) = sent
    assert str(tmp_path / results) in {one.path for one in paths_of(job).paths}


def test_files_that_splits_and_reports_read_are_those_of_the_command(
    sent: list[tuple[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    task = "name: own\ntasks: [{name: a, column: b, classes: [c, d]}]\n"
    (tmp_path / "own.yaml").write_text(task)
    splits = ["splits", "--labels", "l.csv", "--task", "own.yaml", "--locked-test", "locked.csv"]
    address = ["--address", "http://head:8265"]
    for words in (splits, ["report", "--run", "r", "--maps", "m"]):
        CliRunner().invoke(cli, ["submit", *words, *address], catch_exceptions=False)
    found = [{one.key: one.path for one in paths_of(job).paths} for _, job in sent]
    names = {"labels": "l.csv", "task": "own.yaml", "locked_test": "locked.csv"}
    names["out"] = "splits/own_100"
    assert found[0] == {key: str(tmp_path / name) for key, name in names.items()}
    assert found[1] == {"run": str(tmp_path / "r"), "maps": str(tmp_path / "m")}


def test_verbs_of_two_words_are_sent_as_such(sent: list[tuple[str, Any]]) -> None:
    words = ["submit", "export", "clam", "--address", "http://head:8265", "--store", "/s"]
    result = CliRunner().invoke(cli, [*words, "--to", "/t"], standalone_mode=False)
    assert result.exception is None
    ((verb, job),) = sent
    assert verb == "export clam"
    assert job == ExportJob(store="/s", to="/t")


def test_training_is_sent_with_its_whole_config(sent: list[tuple[str, Any]]) -> None:
    words = [
        "submit",
        "train",
        "--address",
        "http://head:8265",
        "--task",
        "cardiac-mtl",
        "--labels",
        "/l.csv",
    ]
    words += ["--features", "/f", "--splits", "/s", "--workers", "4", "--resume"]
    CliRunner().invoke(cli, words, standalone_mode=False, catch_exceptions=False)
    ((verb, job),) = sent
    assert verb == "train"
    assert isinstance(job, TrainJob)
    assert (job.workers.count, job.resume, job.bags.labels) == (4, True, "/l.csv")
