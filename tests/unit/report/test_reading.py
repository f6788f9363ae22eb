"""Runs read from their folders: those of today, and older ones that lack files."""

import json
from pathlib import Path

import pytest

from crane_ray.cohort.splits import read_splits
from crane_ray.config import Config
from crane_ray.errors import ConfigError, StoreError
from crane_ray.evaluation.summary import evaluate
from crane_ray.manifest import RunManifest
from crane_ray.mil.history import read_history
from crane_ray.report.reading import read_run
from crane_ray.runtime.fold_training import train_folds
from crane_ray.runtime.folds import FoldKey
from crane_ray.runtime.results import write_results
from crane_ray.runtime.tracking import _TensorBoard
from tests.unit.report.made_up import BINARY, two_folds
from tests.unit.runtime.small_study import SmallStudy, make_study, work_of

FEW_FOLDS = (0, 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training of two folds, as a driver writes it."""
    study: SmallStudy = make_study(tmp_path_factory.mktemp("study"))
    job = study.job(tmp_path_factory.mktemp("results"))
    work = work_of(job, splits=read_splits(job.splits, FEW_FOLDS))
    tracker = _TensorBoard()

    def tell(message: dict[str, object]) -> None:
        if message["kind"] == "epoch":
            tracker.epoch(work.folders[1], message)

    outcomes = train_folds(work, [FoldKey(1, fold) for fold in FEW_FOLDS], tell=tell)
    tracker.close()
    write_results(job, work, outcomes)
    folder = Path(work.folders[1])
    (folder / "config.yaml").write_text(job.to_yaml())
    RunManifest.start("train", job).finish("done").save(str(folder / "manifest.json"))
    return folder


def test_all_of_a_training_is_read(run: Path) -> None:
    found = read_run(str(run))
    assert (found.kind, found.name, found.split) == ("training", "own_s1", "test")
    assert [task.classes for task in found.tasks] == [("a", "b")]
    assert found.named_classes
    assert [course.fold for course in found.courses] == [0, 1]
    assert [len(course.history) for course in found.courses] == [4, 4]
    assert found.courses[0].outcome["num_test"] == 4
    assert set(found.checkpoints or {}) == {"0", "1"}
    assert all(len(print_) == 16 for print_ in (found.checkpoints or {}).values())
    assert found.predictions is not None and found.evaluation is not None
    assert found.config is not None and found.config["model"]["hidden_dim"] == 8


def test_the_course_of_a_run_that_did_not_keep_it_comes_from_its_events(run: Path) -> None:
    kept = run / "folds" / "0" / "history.json"
    expected = read_history(str(kept.parent))
    text = kept.read_text()
    kept.unlink()
    try:
        found = read_run(str(run)).courses[0].history
    finally:
        kept.write_text(text)
    assert [epoch.epoch for epoch in found] == [0, 1, 2, 3]
    for one, other in zip(found, expected, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-6)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-6)
        assert one.val_auc == pytest.approx(other.val_auc, rel=1e-6)


def test_events_that_are_cut_short_give_the_epochs_before(run: Path, tmp_path: Path) -> None:
    from crane_ray.report.event_files import read_events

    (source,) = (run / "0").glob("*.tfevents.*")
    data = source.read_bytes()
    for size in (0, 5, len(data) // 2, len(data) - 3):
        (tmp_path / source.name).write_bytes(data[:size])
        assert len(read_events(str(tmp_path))) <= 4
    (tmp_path / source.name).write_bytes(b"\xff" * 400)
    assert read_events(str(tmp_path)) == ()
    assert read_events(str(tmp_path / "gone")) == ()


def test_predictions_alone_have_numbered_classes(tmp_path: Path) -> None:
    predictions = two_folds()
    predictions.to_parquet(str(tmp_path / "predictions.parquet"))
    evaluate(predictions, (BINARY,), num_replicates=0).write(str(tmp_path))
    (tmp_path / "config.yaml").write_text("split: test\n")
    found = read_run(str(tmp_path))
    assert found.kind == "evaluation"
    assert not found.named_classes
    assert found.tasks[0].classes == ("class 0", "class 1")


def test_the_tasks_of_an_evaluation_are_those_of_its_manifest(tmp_path: Path) -> None:
    facts = {"tasks": [BINARY.model_dump(mode="json")],
             "checkpoints": {"0": {"path": "/gone", "fingerprint": "f0"}}}  # fmt: skip
    manifest = RunManifest.start("evaluate", Config()).finish("done", facts=facts)
    manifest.save(str(tmp_path / "manifest.json"))
    found = read_run(str(tmp_path))
    assert (found.kind, found.tasks) == ("evaluation", (BINARY,))
    assert found.checkpoints == {"0": "f0"}
    assert found.predictions is None


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.yaml and no manifest\.json"):
        read_run(str(tmp_path))


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml", "s_0_checkpoint.json"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.yaml").write_text("split: test\n")
    (tmp_path / name).write_text("{")
    with pytest.raises(StoreError, match=name):
        read_run(str(tmp_path))


def test_headers_of_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("split: test\n")
    (tmp_path / "other.json").write_text(json.dumps({"tasks": "none"}))
    assert read_run(str(tmp_path)).tasks == ()
