"""Every YAML file that is shipped can be used, and every job has its entry point and config."""

from pathlib import Path

import pytest
from ray.runtime_env import RuntimeEnv

from crane_ray.cli.main import VERBS
from crane_ray.cli.submission import JOBS
from crane_ray.cohort.tasks import load_task_set, task_set_names
from crane_ray.config import read_yaml
from crane_ray.runtime.search_jobs import SEARCHABLE, TuneJob
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.search.space import parse_space

FOLDER = Path(__file__).parents[2] / "jobs"
CONFIGS = sorted(FOLDER.glob("configs/*.yaml"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_those_of_their_verb(config: Path) -> None:
    job = JOBS[config.stem].load(config)
    assert job == type(job).model_validate(job.model_dump())
    if isinstance(job, TuneJob):
        assert isinstance(job.space, dict)
        assert parse_space(job.space, TrainJob, SEARCHABLE).domains


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_each_has_an_entry_point_that_runs_its_verb(config: Path) -> None:
    assert config.stem in VERBS
    entry = (FOLDER / f"{config.stem}.py").read_text()
    assert f'run(["{config.stem}", *sys.argv[1:]])' in entry


@pytest.mark.parametrize("name", task_set_names())
def test_shipped_task_sets_load_under_their_name(name: str) -> None:
    assert load_task_set(name).name == name


def test_each_verb_of_the_way_from_slides_to_diagnoses_has_a_config() -> None:
    verbs = {"patch", "extract", "train", "evaluate", "tune", "heatmap", "assess"}
    assert {config.stem for config in CONFIGS} == verbs


def test_the_shipped_runtime_environment_is_one_of_rays() -> None:
    tree = read_yaml(FOLDER / "runtime_env.yaml")
    assert RuntimeEnv(**tree).env_vars() == tree["env_vars"]
    assert "working_dir" not in tree  # it is the job's own
    assert {"cardiac-mtl", "cardiac-grade"} <= set(task_set_names())
