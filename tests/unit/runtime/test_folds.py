"""Folds without Ray: what they leave behind, what they go on from, and what makes them fail."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.cohort.splits import Split
from crane_ray.errors import ConfigError, StoreError
from crane_ray.evaluation.predictions import Predictions
from crane_ray.mil.checkpoints import load_checkpoint
from crane_ray.mil.history import read_history
from crane_ray.mil.loop import train
from crane_ray.mil.workers import Worker
from crane_ray.runtime import fold_training
from crane_ray.runtime.fold_training import train_folds
from crane_ray.runtime.folds import (
    FoldKey,
    FoldWork,
    begin_fold,
    ended_folds,
    read_outcome,
    require_same_fold,
)
from tests.unit.runtime.small_study import DIM, SmallStudy, make_study, work_of

KEY = FoldKey(1, 0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> SmallStudy:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(work: FoldWork, key: FoldKey = KEY) -> bytes:
    path = Path(work.folders[key.seed], f"s_{key.fold}_checkpoint.safetensors")
    return path.read_bytes()


class Stopped(Exception):
    """A worker that dies."""


def test_a_fold_leaves_networks_predictions_and_its_outcome(
    study: SmallStudy, tmp_path: Path
) -> None:
    work = work_of(study.job(tmp_path))
    messages: list[dict[str, Any]] = []
    (outcome,) = train_folds(work, [KEY], tell=messages.append)
    assert (outcome.num_train, outcome.num_val, outcome.num_test) == (8, 4, 4)
    assert outcome.epochs == 4
    assert not outcome.failure
    assert read_outcome(work, KEY) == outcome
    assert ended_folds(work.folders[1]) == {0}
    assert [m["epoch"] for m in messages if m["kind"] == "epoch"] == [0, 1, 2, 3]
    history = read_history(work.folder(KEY))
    told = [m for m in messages if m["kind"] == "epoch"]
    assert [(it.epoch, it.train_loss, it.val_loss) for it in history] == [
        (m["epoch"], m["train_loss"], m["val_loss"]) for m in told
    ]
    assert [it.val_auc for it in history] == [m["val_auc"] for m in told]
    assert history[outcome.best_epoch].val_loss == outcome.best_loss
    predictions = Predictions.from_parquet(f"{work.folder(KEY)}/predictions.parquet")
    assert predictions.splits() == ["test", "val"]
    arrays = predictions.select(split="test").arrays("kind")
    assert set(arrays.slide_ids_N) == set(work.splits[0].test)
    ours = load_checkpoint(f"{work.folders[1]}/s_0_checkpoint.safetensors")
    published = load_checkpoint(f"{work.folders[1]}/s_0_checkpoint.pt")
    assert ours.dim == published.dim == DIM
    assert ours.provenance["fingerprint"] == outcome.fingerprint
    ours_state, published_state = ours.network.state_dict(), published.network.state_dict()
    assert all(torch.equal(ours_state[name], published_state[name]) for name in ours_state)
    assert not Path(work.state_path(KEY)).exists()


@pytest.mark.parametrize("after", [0, 2])
def test_a_killed_fold_goes_on_from_its_last_epoch_and_ends_as_if_nothing_had_been(
    study: SmallStudy, tmp_path: Path, after: int
) -> None:
    whole = work_of(study.job(tmp_path / "whole", model__dropout=0.25))
    train_folds(whole, [KEY])
    work = work_of(study.job(tmp_path / "killed", model__dropout=0.25))
    seen: list[int] = []

    def tell(message: dict[str, Any]) -> None:
        if message["kind"] == "epoch":
            seen.append(message["epoch"])
            if message["epoch"] == after + 1 and seen.count(message["epoch"]) == 1:
                raise Stopped

    with pytest.raises(Stopped):
        train_folds(work, [KEY], tell=tell)
    assert read_outcome(work, KEY) is None
    train_folds(work, [KEY], tell=tell)
    assert seen == [*range(after + 2), *range(after + 1, 4)]
    assert weights(work) == weights(whole)
    assert read_history(work.folder(KEY)) == read_history(whole.folder(KEY))


def test_a_fold_that_ended_is_not_trained_again(study: SmallStudy, tmp_path: Path) -> None:
    work = work_of(study.job(tmp_path))
    first = train_folds(work, [KEY])
    messages: list[dict[str, Any]] = []
    assert train_folds(work, [KEY], tell=messages.append) == first
    assert not messages


def test_grouped_folds_are_what_folds_alone_are(study: SmallStudy, tmp_path: Path) -> None:
    alone, together = (work_of(study.job(tmp_path / name, seeds=2)) for name in ("a", "b"))
    keys = [FoldKey(seed, fold) for seed in (1, 2) for fold in (0, 1, 2)]
    for one, two in zip(
        train_folds(alone, keys), train_folds(together, keys, grouped=True), strict=True
    ):
        assert replace(two, seconds=0, best_loss=0) == replace(one, seconds=0, best_loss=0)
        parts = [
            Predictions.from_parquet(f"{work.folder(one.key)}/predictions.parquet").arrays("kind")
            for work in (alone, together)
        ]
        np.testing.assert_allclose(parts[0].logits_NC, parts[1].logits_NC, atol=1e-5)
    seeds = [weights(alone, FoldKey(seed, 0)) for seed in (1, 2)]
    assert seeds[0] != seeds[1]


def test_workers_fail_together(study: SmallStudy, tmp_path: Path) -> None:
    """One that cannot read its features would let the others wait for it."""

    class OneOfTwo(Worker):
        world = 2

        def gather(self, value: Any) -> list[Any]:
            return [value, ConfigError("no room on the other node")]

    with pytest.raises(ConfigError, match="no room on the other node"):
        train_folds(work_of(study.job(tmp_path)), [KEY], worker=OneOfTwo())


def test_bags_of_cases(study: SmallStudy, tmp_path: Path) -> None:
    split = Split(tuple(f"S{n}" for n in range(4, 12)), ("S12", "S13"), ("S0", "S1", "S2", "S3"))
    work = work_of(study.job(tmp_path, bags__level="case"), splits={0: split})
    (outcome,) = train_folds(work, [KEY])
    assert outcome.num_test == 3
    arrays = Predictions.from_parquet(f"{work.folder(KEY)}/predictions.parquet")
    test = arrays.select(split="test").arrays("kind")
    assert sorted(test.case_ids_N) == ["C0", "C2", "C3"]
    assert set(test.slide_ids_N) == {""}


def test_a_bag_that_overflows_ends_its_fold_by_name_and_others_go_on(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path, num_folds=2)
    study.put_features("S3", np.full((3, DIM), 3e38, dtype=np.float32))
    study.put_split(0, train=["S0", "S3", "S4"], val=["S5", "S6"], test=["S7"])
    study.put_split(1, train=["S0", "S1", "S4", "S5"], val=["S8", "S9"], test=["S7"])
    work = work_of(study.job(tmp_path / "results"))
    bad, good = train_folds(work, [FoldKey(1, 0), FoldKey(1, 1)])
    assert bad.failure.startswith("fold 0: the loss is ")
    assert "at bag S3" in bad.failure
    assert not good.failure
    assert not list(Path(work.folders[1]).glob("s_0*"))
    assert weights(work, FoldKey(1, 1))


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(("early", "val"), [(False, ()), (False, ("S5",)), (True, ("S5", "S6"))])
def test_a_learning_rate_without_measure_is_a_failure_whenever_it_strikes(
    study: SmallStudy, tmp_path: Path, epochs: int, early: bool, val: tuple[str, ...]
) -> None:
    """Of one training bag the loss is finite before the step that spoils the weights."""
    job = study.job(
        tmp_path,
        training__optim__lr=1e38,
        training__epochs=epochs,
        training__stopping__enabled=early,
    )
    work = work_of(job, splits={0: Split(("S3",), val, ("S7",))})
    (outcome,) = train_folds(work, [KEY])
    assert re.search(r"(bag|bags) S[357]\b.*lower --lr", outcome.failure), outcome.failure
    assert not list(Path(work.folders[1]).glob("s_0*"))


def test_the_best_weights_are_kept_and_not_the_last(study: SmallStudy, tmp_path: Path) -> None:
    """Slides whose classes are the other way round: what is learnt makes them worse."""
    text = study.labels.read_text()
    flipped = [(f"S{n}.svs,{'ab'[n % 2]}", f"S{n}.svs,{'ba'[n % 2]}") for n in (12, 13)]
    labels = tmp_path / "labels.csv"
    for before, after in flipped:
        assert before in text
        text = text.replace(before, after)
    labels.write_text(text)
    split = Split(tuple(f"S{n}" for n in range(2, 10)), ("S12", "S13"), ("S14",))
    settings = {"bags__labels": str(labels), "training__epochs": 12}
    work = work_of(study.job(tmp_path / "r", **settings), splits={0: split})
    (outcome,) = train_folds(work, [KEY])
    assert outcome.best_epoch < 11
    predictions = Predictions.from_parquet(f"{work.folder(KEY)}/predictions.parquet")
    val = predictions.select(split="val").arrays("kind")
    loss = -np.log(val.probabilities_NC[np.arange(2), val.labels_N]).mean()
    assert loss == pytest.approx(outcome.best_loss, abs=1e-6)


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"val": ["S1"], "test": ["S2"]}, "its training part has no bag"),
        ({"train": ["S1", "S2"], "test": ["S3"]}, "its val part has no bag"),
    ],
)
def test_a_part_that_is_needed_and_empty_fails_that_fold_alone(
    tmp_path: Path, parts: dict[str, list[str]], told: str
) -> None:
    study = make_study(tmp_path, num_folds=2)
    study.put_split(0, **parts)
    work = work_of(study.job(tmp_path / "results"))
    bad, good = train_folds(work, [FoldKey(1, 0), FoldKey(1, 1)])
    assert told in bad.failure
    assert not good.failure


def test_a_fold_that_a_gpu_cannot_hold_fails_and_others_go_on(
    study: SmallStudy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(runs: Any, *rest: Any, **named: Any) -> None:
        if runs[0].bags.fold == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB\nDetails")
        train(runs, *rest, **named)

    monkeypatch.setattr(fold_training, "train", full)
    work = work_of(study.job(tmp_path))
    bad, good = train_folds(work, [FoldKey(1, 0), FoldKey(1, 1)])
    assert bad.failure.startswith("fold 0: the GPU's memory is too small (CUDA out of memory. Trie")
    assert "Details" not in bad.failure
    assert not good.failure


def test_an_empty_test_part_is_no_failure(study: SmallStudy, tmp_path: Path) -> None:
    split = Split(("S1", "S2", "S3", "S4"), ("S5", "S6"), ())
    work = work_of(study.job(tmp_path), splits={0: split})
    (outcome,) = train_folds(work, [KEY])
    assert not outcome.failure
    assert outcome.num_test == 0
    predictions = Predictions.from_parquet(f"{work.folder(KEY)}/predictions.parquet")
    assert predictions.splits() == ["val"]


def test_slides_that_cannot_be_used_are_left_out_with_their_reasons(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    nan = np.ones((4, DIM), dtype=np.float32)
    nan[2, 1] = np.nan
    study.put_features("S5", nan)
    study.put_features("S6", np.ones((4, DIM + 2), dtype=np.float32))
    study.put_features("S7", np.ones((0, DIM), dtype=np.float32))
    (study.features / "pt_files" / "S8.pt").write_bytes(b"no features")
    (outcome,) = train_folds(work_of(study.job(tmp_path / "results")), [KEY])
    assert not outcome.failure
    reasons = {slide.slide_id: slide.reason for slide in outcome.left_out}
    assert list(reasons) == ["S5", "S6", "S7", "S8"]
    assert "the first is patch 2" in reasons["S5"]
    assert f"{DIM + 2} numbers, those of most slides {DIM}" in reasons["S6"]
    assert "no patches" in reasons["S7"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"training__optim__lr": 0.02}, "another training.optim.lr (0.01, now 0.02);"),
        ({"workers__count": 2}, "another training.bags_per_step (1, now 2);"),
        ({"bags__level": "case"}, "another bag level;"),
        ({"model__name": "clam_sb", "training__epochs": 5}, "model.name (crane, now clam_sb), "),
    ],
)
def test_another_fold_of_the_same_name_is_refused_by_what_differs(
    study: SmallStudy, tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    begin_fold(work_of(study.job(tmp_path)), KEY)
    require_same_fold(work_of(study.job(tmp_path, workers__cpus=2)), KEY)
    with pytest.raises(StoreError) as caught:
        require_same_fold(work_of(study.job(tmp_path, **settings)), KEY)
    assert told in str(caught.value)
    assert "--overwrite" in str(caught.value)


def test_another_table_split_or_features_are_another_fold(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    job = study.job(tmp_path / "results")
    begin_fold(work_of(job), KEY)
    text = study.labels.read_text()
    study.labels.write_text(text.replace("C9,S9.svs,b", "C9,S9.svs,a"))
    with pytest.raises(StoreError, match="with another labels;"):
        require_same_fold(work_of(job), KEY)
    study.labels.write_text(text)
    require_same_fold(work_of(job), KEY)
    began = work_of(job).splits[0]
    fewer = {"train": began.train[1:]}, {"val": began.val[1:]}, {"test": began.test[1:]}
    for change in fewer:  # also of test alone: predictions that are kept would be of another part
        study.put_split(0, **{"train": began.train, "val": began.val, "test": began.test, **change})
        with pytest.raises(StoreError, match="with another split;"):
            require_same_fold(work_of(job), KEY)
    require_same_fold(work_of(job), FoldKey(1, 1))  # which has not begun
    study.put_features("S5", np.ones((4, DIM), dtype=np.float32))
    with pytest.raises(StoreError, match="features"):
        require_same_fold(work_of(job), KEY)


def test_weights_do_not_depend_on_what_else_trains(study: SmallStudy, tmp_path: Path) -> None:
    first, second = (work_of(study.job(tmp_path / name)) for name in "ab")
    train_folds(first, [FoldKey(1, 0), FoldKey(1, 1)])
    train_folds(second, [FoldKey(1, 1)])
    assert weights(first, FoldKey(1, 1)) == weights(second, FoldKey(1, 1))
