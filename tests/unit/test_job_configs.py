"""The shipped configs of jobs are configs of their verbs."""

from pathlib import Path

import pytest

from crane_ray.cli.submission import JOBS
from crane_ray.runtime.search_jobs import SEARCHABLE, TuneJob
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.search.space import parse_space

FOLDER = Path(__file__).resolve().parents[2] / "jobs"


@pytest.mark.parametrize("verb", sorted(path.stem for path in (FOLDER / "configs").iterdir()))
def test_a_shipped_config_is_one_of_its_verb(verb: str) -> None:
    job = JOBS[verb].load(FOLDER / "configs" / f"{verb}.yaml")
    assert (FOLDER / f"{verb}.py").exists()
    if isinstance(job, TuneJob):
        assert isinstance(job.space, dict)
        assert parse_space(job.space, TrainJob, SEARCHABLE).domains
