"""What the configs of train and evaluate take, refuse and mean."""

from pathlib import Path
from typing import Any

import pytest

from crane_ray.errors import ConfigError
from crane_ray.runtime.evaluation_jobs import EvaluateJob
from crane_ray.runtime.study_jobs import TrainJob
from tests.unit.runtime.small_study import SmallStudy

STUDY = SmallStudy(Path("/none"), ())


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (None, None),
        ("0-2", [0, 1, 2]),
        ("7,0,3", [0, 3, 7]),
        ("1,0-2", [0, 1, 2]),
        ("4-4", [4]),
        (3, [3]),  # as YAML reads it
    ],
)
def test_folds(text: Any, numbers: list[int] | None) -> None:
    assert STUDY.job(Path("r"), folds=text).fold_numbers() == numbers


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"folds": "4-1"}, "4-1 runs backwards; write 1-4"),
        ({"folds": "first"}, "write folds as 0-4 or 0,3,7"),
        ({"folds": "0-99999"}, "write folds as 0-4 or 0,3,7"),
        ({"resume": True, "overwrite": True}, "give one"),
        ({"grouped_folds": True, "workers__count": 2}, "--grouped-folds trains on one device"),
        ({"grouped_folds": True, "training__bags_per_step": 4}, "takes one bag a step"),
        ({"workers__count": 4, "training__bags_per_step": 2}, "at least one bag each"),
        ({"workers__count": 2, "workers__min_count": 3}, "min_count 3 is more than count 2"),
        ({"bags__sources": {"a": "x"}}, "one of the two"),
        ({"bags__features": None}, "give --features FOLDER"),
        ({"splits": " "}, "a folder is needed"),
        ({"exp_code": "a/b"}, "exp_code"),
        ({"training__epoch": 3}, "did you mean training.epochs?"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        STUDY.job(Path("r"), **settings)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "bags"),
    [
        ({}, 1),
        ({"training__bags_per_step": 4}, 4),
        ({"workers__count": 3}, 3),
        ({"workers__count": 3, "training__bags_per_step": 4}, 4),
    ],
)
def test_bags_of_a_step_are_part_of_the_experiment(settings: dict[str, Any], bags: int) -> None:
    """So that elastic workers, however many are left, take the steps of all."""
    assert STUDY.job(Path("r"), **settings).experiment.training.bags_per_step == bags


def test_paths_are_absolute_and_uris_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers run elsewhere."""
    monkeypatch.chdir(tmp_path)
    job = TrainJob.load(
        overrides=[
            ("task", "own.yaml"), ("bags.labels", "l.csv"), ("bags.sources", {"a": "f"}),
            ("splits", "s"), ("results", "s3://bucket/results"),
        ]
    )  # fmt: skip
    found = (job.task, job.bags.labels, job.bags.sources["a"], job.splits, job.results)
    assert found == (
        *(str(tmp_path / name) for name in ("own.yaml", "l.csv", "f", "s")),
        "s3://bucket/results",
    )
    assert TrainJob.model_validate(job.model_dump(mode="json")) == job
    other = EvaluateJob.load(
        overrides=[("model", "m"), ("bags.labels", "l"), ("bags.features", "f")]
    )
    assert (other.model, other.task) == (str(tmp_path / "m"), None)
