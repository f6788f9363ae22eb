"""What folds left behind, gathered: whole runs, runs in part, and runs of which nothing came."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from crane_ray.errors import ConfigError
from crane_ray.evaluation.predictions import Predictions
from crane_ray.runtime.fold_training import train_folds
from crane_ray.runtime.folds import FoldKey
from crane_ray.runtime.results import subgroups, write_results
from tests.unit.runtime.small_study import SmallStudy, make_study, work_of


@pytest.fixture
def study(tmp_path: Path) -> Iterator[SmallStudy]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield make_study(tmp_path / "study")
    torch.set_num_threads(before)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.*") if "checkpoint" not in path.name}


def test_of_a_run_with_a_failed_fold_the_others_are_there(study: SmallStudy) -> None:
    study.put_split(1, train=[], val=["S1"], test=["S2"])
    job = study.job(study.root / "r", by=["site"])
    work = work_of(job)
    outcomes = train_folds(work, [FoldKey(1, fold) for fold in range(3)])
    rows = write_results(job, work, outcomes)
    run = Path(work.folders[1])
    assert {row["fold"] for row in rows} == {"0", "2", "mean", "sd"}
    assert {row["group"] for row in rows} == {"all", "site=north", "site=south"}
    assert Predictions.from_parquet(str(run / "predictions.parquet")).folds() == [0, 2]
    assert names(run) == {
        "predictions.parquet", "metrics.csv", "metrics.json", "experiment_own.txt",
        "summary_partial_0_3.csv", "splits_0.csv", "splits_2.csv", "split_0_results.pkl",
        "split_2_results.pkl",
    }  # fmt: skip
    summary = pd.read_csv(run / "summary_partial_0_3.csv")
    assert summary["folds"].tolist() == [0, 2]
    numbers = json.loads((run / "metrics.json").read_text())["tasks"]["kind"]["test"]
    assert summary["test_auc"].tolist() == [numbers[fold]["auc"]["value"] for fold in "02"]


def test_some_folds_of_an_experiment_are_a_partial_summary(study: SmallStudy) -> None:
    job = study.job(study.root / "r", folds="1-2")
    work = work_of(job)
    write_results(job, work, train_folds(work, [FoldKey(1, 1), FoldKey(1, 2)]))
    assert "summary_partial_1_3.csv" in names(Path(work.folders[1]))


def test_rows_of_several_seeds_say_whose_they_are(study: SmallStudy) -> None:
    job = study.job(study.root / "r", seeds=2)
    work = work_of(job)
    rows = write_results(job, work, train_folds(work, [FoldKey(1, 0), FoldKey(2, 0)]))
    assert [row["seed"] for row in rows] == ["1", "2"]


@pytest.mark.parametrize("train", [[], ["S1", "S2", "S3"]])
def test_runs_without_any_prediction(study: SmallStudy, train: list[str]) -> None:
    """All folds failed, or none has a val or test part."""
    study.put_split(0, train=train)
    job = study.job(study.root / "r", folds="0", training__stopping__enabled=False)
    work = work_of(job)
    outcomes = train_folds(work, [FoldKey(1, 0)])
    assert bool(outcomes[0].failure) == (not train)
    assert write_results(job, work, outcomes) == []
    assert names(Path(work.folders[1])) == {"experiment_own.txt"}


def test_splits_of_booleans_are_kept_as_lists(study: SmallStudy) -> None:
    (study.splits / "splits_0.csv").unlink()
    flags = ["S2,True,False,False", "S3,True,False,False", "S4,False,True,False"]
    text = "\n".join([",train,val,test", *flags, "S5,False,False,True"]) + "\n"
    (study.splits / "splits_0_bool.csv").write_text(text)
    job = study.job(study.root / "r", folds="0")
    work = work_of(job)
    write_results(job, work, train_folds(work, [FoldKey(1, 0)]))
    copy = (Path(work.folders[1]) / "splits_0.csv").read_text()
    assert copy.splitlines() == [",train,val,test", "0,S2,S4,S5", "1,S3,,"]


def test_subgroups_are_those_of_slides_and_cases(study: SmallStudy) -> None:
    data = work_of(study.job(study.root / "r")).data
    assert subgroups(data, []) is None
    found = subgroups(data, ["site"])
    assert found is not None
    assert found["site"]["S1"] == found["site"]["C0"] == "north"
    assert found["site"]["S12"] == found["site"]["C12"] == "south"
    with pytest.raises(ConfigError, match="no column hospital"):
        subgroups(data, ["hospital"])
