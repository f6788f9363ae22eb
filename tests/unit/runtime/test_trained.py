"""Networks found again, features that fit them, and what they then say."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.errors import ConfigError
from crane_ray.evaluation.predictions import Predictions, softmax
from crane_ray.mil.checkpoints import Checkpoint, load_checkpoint
from crane_ray.runtime.fold_training import train_folds
from crane_ray.runtime.folds import FoldKey, FoldWork
from crane_ray.runtime.trained import (
    find_checkpoints,
    folds_without_network,
    predict_bags,
    require_features,
    seen_in_training,
    val_predictions,
)
from tests.unit.runtime.small_study import DIM, make_study, work_of

KEY = FoldKey(1, 0)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FoldWork:
    study = make_study(tmp_path_factory.mktemp("study"))
    job = study.job(study.root / "results", training__precision=request.param)
    work = work_of(job)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train_folds(work, [KEY])
    torch.set_num_threads(before)
    return work


@pytest.fixture
def checkpoint(trained: FoldWork) -> Checkpoint:
    return load_checkpoint(find_checkpoints(trained.folders[1])[0])


def test_a_network_says_again_what_its_run_said(trained: FoldWork, checkpoint: Checkpoint) -> None:
    pack = trained.data.pack()
    (again,) = predict_bags(
        checkpoint,
        trained.data.part(trained.splits[0].test, pack),
        pack,
        tasks=trained.tasks,
        fold=0,
        split="test",
        level="slide",
    )
    own = Predictions.from_parquet(f"{trained.folder(KEY)}/predictions.parquet")
    own = own.select(split="test")
    assert again.table["slide_id"].to_pylist() == own.table["slide_id"].to_pylist()
    logits = [predictions.arrays("kind").logits_NC for predictions in (again, own)]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-6)


def test_features_of_another_length_are_refused(trained: FoldWork, checkpoint: Checkpoint) -> None:
    pack = trained.data.pack()
    wider = replace(checkpoint, dim=DIM + 1)
    with pytest.raises(ConfigError, match=f"vectors of {DIM} numbers, the network takes {DIM + 1}"):
        predict_bags(
            wider, trained.data.bags, pack, tasks=trained.tasks, fold=0, split="test", level="slide"
        )


def test_what_temperatures_are_fitted_to_is_of_the_bags_that_are_judged(tmp_path: Path) -> None:
    slides = Predictions.concat(
        Predictions.from_logits(
            [[0.0, 3.0], [0.0, 1.0], [2.0, 0.0]], [1, 1, 0], fold=2, split=split, task="kind",
            slide_ids=["S0", "S1", "S2"], case_ids=["C0", "C0", "C2"],
        )
        for split in ("val", "test")
    )  # fmt: skip
    slides.to_parquet(str(tmp_path / "predictions.parquet"))
    assert val_predictions(str(tmp_path), "slide").table.equals(slides.select(split="val").table)
    cases = val_predictions(str(tmp_path), "case").arrays("kind")
    assert cases.case_ids_N.tolist() == ["C0", "C2"]
    assert set(cases.splits_N) == {"val"}
    p_NC = slides.select(split="val").arrays("kind").probabilities_NC
    np.testing.assert_allclose(softmax(cases.logits_NC)[0], p_NC[:2].mean(axis=0))
    for nothing in (tmp_path / "none", tmp_path / "predictions.parquet"):
        assert not len(val_predictions(str(nothing), "case"))


def recipe(fingerprint: str, encoder: str) -> dict[str, Any]:
    return {"recipe_fingerprint": fingerprint, "recipe": {"encoder": {"name": encoder}}}


@pytest.mark.parametrize(
    ("trained_on", "given", "told"),
    [
        ({"features": recipe("aa", "uni")}, {"features": recipe("aa", "uni")}, None),
        ({"features": recipe("aa", "uni")}, {"features": {"root": "/pt_files"}}, None),
        ({"features": {"root": "/pt_files"}}, {"features": recipe("aa", "uni")}, None),
        ({"x": recipe("aa", "uni"), "y": recipe("bb", "uni")}, {"f": recipe("bb", "uni")}, None),
        (
            {"features": recipe("aa", "uni")},
            {"f": recipe("aa", "uni"), "g": recipe("bb", "conch")},
            "trained on features of uni (recipe aa), those of g are conch (recipe bb)",
        ),
    ],
)
def test_features_of_another_recipe_are_refused(
    checkpoint: Checkpoint, trained_on: Any, given: Any, told: str | None
) -> None:
    checkpoint = replace(checkpoint, provenance={"features_of": trained_on})
    if told is None:
        require_features(checkpoint, "c.safetensors", given)
    else:
        with pytest.raises(ConfigError) as caught:
            require_features(checkpoint, "c.safetensors", given)
        assert told in str(caught.value)


def test_checkpoints_are_found_ours_first(tmp_path: Path) -> None:
    for name in ("s_0_checkpoint.pt", "s_0_checkpoint.safetensors", "s_10_checkpoint.pt", "s_x.pt"):
        (tmp_path / name).touch()
    found = find_checkpoints(str(tmp_path))
    assert [Path(path).name for path in found.values()] == [
        "s_0_checkpoint.safetensors",
        "s_10_checkpoint.pt",
    ]
    assert list(find_checkpoints(str(tmp_path), [10])) == [10]
    with pytest.raises(ConfigError, match="no checkpoint of fold 3; it has 0, 10"):
        find_checkpoints(str(tmp_path), [0, 3])
    with pytest.raises(ConfigError, match="no s_0_checkpoint"):
        find_checkpoints(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("name", "folds", "fold"),
    [
        ("s_3_checkpoint.pt", None, 3),
        ("s_3_checkpoint.pt", [3], 3),
        ("other.pt", None, 0),
        ("other.pt", [2], 2),
    ],
)
def test_one_checkpoint_is_judged_on_the_parts_of_its_own_fold(
    tmp_path: Path, name: str, folds: list[int] | None, fold: int
) -> None:
    path = tmp_path / name
    path.touch()
    assert find_checkpoints(str(path), folds) == {fold: str(path)}


@pytest.mark.parametrize(
    ("name", "folds"), [("s_3_checkpoint.pt", [0]), ("s_3_checkpoint.pt", [3, 4]), ("x.pt", [0, 1])]
)
def test_another_fold_of_one_checkpoint_is_refused(
    tmp_path: Path, name: str, folds: list[int]
) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="the folder of the run"):
        find_checkpoints(str(tmp_path / name), folds)


def test_folds_of_a_run_that_left_no_network_are_told_with_the_reason(tmp_path: Path) -> None:
    for fold in range(4):
        (tmp_path / "folds" / str(fold)).mkdir(parents=True)
        (tmp_path / "folds" / str(fold) / "begun.json").write_text("{}")
    (tmp_path / "folds" / "1" / "outcome.json").write_text('{"failure": "val loss is NaN"}')
    (tmp_path / "splits_5.csv").touch()
    assert folds_without_network(str(tmp_path), [0, 1, 2, 3, 5]) == ()
    (told,) = folds_without_network(str(tmp_path), [0, 3])
    assert (told.severity, told.names) == ("warning", ("1", "2", "5"))
    assert "3 folds of 5 without a network (fold 1: val loss is NaN; fold 2: it did not end" in (
        told.message
    )
    assert folds_without_network(str(tmp_path / "s_0_checkpoint.pt"), [0]) == (), "one by itself"


def test_slides_that_a_run_learned_from_are_told(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    study.put_split(0, train=["S0.svs", "S1"], val=["S2"], test=["S3", "S4"])
    for fold in (1, 2):
        (study.splits / f"splits_{fold}.csv").unlink()
    run = str(study.splits)
    (told,) = seen_in_training(run, ["S0", "S2", "S3", "new"])
    assert (told.severity, told.names) == ("warning", ("S0", "S2"))
    assert seen_in_training(run, ["S3", "new"]) == ()
    assert seen_in_training(str(study.features), ["S0"]) == (), "a run without splits"
    assert seen_in_training(str(study.labels), ["S0"]) == (), "a checkpoint by itself"
