"""Paths that only the submitting machine has are told from those that the cluster sees."""

from pathlib import Path
from typing import Any

import pytest

from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.job_paths import JobPath, cohort_of, paths_of, problems, use_copies
from crane_ray.runtime.jobs import ExtractJob, PatchJob
from crane_ray.runtime.study_jobs import TrainJob


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """A folder that is there when a job is submitted."""
    for name in ("slides", "features", "splits"):
        (tmp_path / "home" / name).mkdir(parents=True)
    (tmp_path / "home" / "labels.csv").write_text("case_id\n")
    (tmp_path / "home" / "mine.yaml").write_text("name: mine\n")
    return tmp_path / "home"


def elsewhere(laptop: Path, paths: tuple[JobPath, ...]) -> list[str]:
    """The problems on a machine without that folder."""
    laptop.rename(laptop.with_name("gone"))
    return problems(paths)


def train(laptop: Path, **more: Any) -> TrainJob:
    tree = {
        "task": str(laptop / "mine.yaml"),
        "bags": {"labels": str(laptop / "labels.csv"), "features": str(laptop / "features")},
        "splits": str(laptop / "splits"),
        "results": str(laptop / "results"),
    }
    return TrainJob.model_validate(tree | more)


def test_where_the_cluster_sees_the_same_files_nothing_is_said(laptop: Path) -> None:
    assert problems(paths_of(train(laptop)).paths) == []
    job = PatchJob.model_validate(
        {"slides": {"source": str(laptop / "slides" / "*.svs")}, "work": str(laptop / "new/work")}
    )
    assert problems(paths_of(job).paths) == []


def test_each_path_of_the_submitting_machine_is_named(laptop: Path) -> None:
    lines = elsewhere(laptop, paths_of(train(laptop)).paths)
    keys = [line.split()[0] for line in lines]
    assert keys == ["bags.labels", "bags.features", "splits", "results"]
    assert all("on the machine you submit from, and not on the cluster" in line for line in lines)
    assert f"would be made in {laptop}" in lines[-1]


def test_a_path_that_is_nowhere_is_told_apart() -> None:
    job = HeatmapJob(work="s3://b/work", model="/nowhere/at/all")
    (line,) = problems(paths_of(job).paths)
    assert line.startswith("model /nowhere/at/all: is neither on the cluster nor on the machine")


def test_folders_of_globs_and_of_new_work_count(laptop: Path) -> None:
    job = PatchJob.model_validate(
        {"slides": {"source": str(laptop / "slides" / "*.svs")}, "work": str(laptop / "new/work")}
    )
    slides, work = elsewhere(laptop, paths_of(job).paths)
    assert slides.startswith("slides.source") and f"its folder {laptop}/slides" in slides
    assert work.startswith("work") and f"would be made in {laptop}" in work


def test_paths_that_only_the_cluster_has_are_its_own_affair(tmp_path: Path) -> None:
    job = ExtractJob(work="/only-on-the-cluster/work")
    assert paths_of(job).paths == ()
    job = ExtractJob.model_validate(
        {"work": str(tmp_path), "encoder": {"weights": str(tmp_path / "uni.bin")}}
    )
    found = {one.key: one for one in paths_of(job).paths}
    assert not found["encoder.weights"].here
    (tmp_path / "uni.bin").touch()  # as on the cluster
    assert problems(tuple(found.values())) == []


def test_uris_and_names_are_no_paths() -> None:
    tree: dict[str, Any] = {"work": "s3://b/work", "encoder": {"weights": "imagenet"}}
    assert paths_of(ExtractJob.model_validate(tree)).paths == ()
    tree = {"work": "gs://b/work", "encoders": ["uni_v1", {"name": "a", "weights": "hf-hub:x/y"}]}
    assert paths_of(ExtractJob.model_validate(tree)).paths == ()


def test_weights_of_several_encoders_and_features_of_several_sources(tmp_path: Path) -> None:
    tree: dict[str, Any] = {"work": "s3://b/w", "encoders": [{"name": "uni_v1", "weights": "/u"}]}
    assert [one.key for one in paths_of(ExtractJob.model_validate(tree)).paths] == [
        "encoders.0.weights"
    ]
    bags = {"labels": "s3://b/l.csv", "sources": {"a": "/nowhere/a", "b": "s3://b/f"}}
    job = train(tmp_path, bags=bags, task="cardiac-mtl", splits="s3://b/s", results="s3://b/r")
    assert [one.key for one in paths_of(job).paths] == ["bags.sources.a"]


def test_a_copy_is_used_where_the_file_itself_is_not_seen(
    laptop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = train(laptop)
    paths = paths_of(job).paths
    tree = job.model_dump(mode="json")
    assert not use_copies(tree, paths)
    elsewhere(laptop, paths)
    monkeypatch.chdir(tmp_path)  # of the job, where its copy is
    (tmp_path / "task-mine.yaml").write_text("name: mine\n")
    tree["results"] = str(tmp_path / "results")
    assert use_copies(tree, paths)
    assert Path(tree["task"]).parent == tmp_path / "results"
    assert Path(tree["task"]).read_text() == "name: mine\n"
    tree["results"] = "s3://b/results"
    assert use_copies(tree, paths)
    assert Path(tree["task"]) == tmp_path / "task-mine.yaml"


def test_the_cohort_in_words() -> None:
    job = AssessJob.model_validate(
        {"model": "/m", "slides": {"source": "/new/slides.csv"}, "work": "/new/work"}
    )
    assert cohort_of(job) == {"work": "/new/work", "slides": "/new/slides.csv", "model": "/m"}
