"""Which verbs can be submitted, and what is sent."""

from typing import Any

import click
import pytest
from click.testing import CliRunner

from crane_ray.cli.main import VERBS, cli
from crane_ray.cli.submission import JOBS, command
from crane_ray.runtime.exchange_jobs import ExportJob
from crane_ray.runtime.study_jobs import TrainJob

NOT_SUBMITTED = {"demo", "encoders", "jobs", "plan", "report", "splits", "submit", "view"}
"""Verbs that run where they are typed."""


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
    assert {verb.split()[0] for verb in JOBS} == set(VERBS) - NOT_SUBMITTED


@pytest.mark.parametrize("verb", JOBS)
def test_a_submitted_verb_has_the_options_of_the_verb_itself(verb: str) -> None:
    at: Any = command
    itself: Any = cli
    for word in verb.split():
        at = at.get_command(click.Context(at), word)
        itself = itself.get_command(click.Context(itself), word)
    local = {"address", "cpus", "help"}
    options = [option for option in itself.params if isinstance(option, click.Option)]
    own = {option.name for option in options} - local
    assert own <= {option.name for option in at.params}


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
