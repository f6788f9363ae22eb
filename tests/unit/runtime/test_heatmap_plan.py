"""What a heatmap job finds: features that fit its networks, slides, folds; and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from crane_ray.errors import ConfigError, StoreError
from crane_ray.features.encoder import EncoderInfo
from crane_ray.features.recipe import Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.maps.folder import MapsFolder
from crane_ray.mil.checkpoints import load_checkpoint, save_published
from crane_ray.runtime.heatmap_inputs import choose_features, load_networks
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.heatmap_plan import make_plan
from crane_ray.runtime.heatmaps import begin_folder
from tests.unit.features.small_store import INFO, SPEC, make_store
from tests.unit.maps.small_maps import SmallMaps, make_small_maps, put_features, put_network


@pytest.fixture
def small(tmp_path: Path) -> SmallMaps:
    return make_small_maps(tmp_path)


def add_store(small: SmallMaps, name: str, **encoder: object) -> str:
    info = EncoderInfo.model_validate({**INFO.model_dump(), "name": name, **encoder})
    root = str(small.work / "features" / name)
    FeatureStore.open_or_create(root, Recipe(patch=SPEC, encoder=info, dtype="float32"))
    return root


def features_of(job: HeatmapJob) -> str:
    return choose_features(job, load_networks(job)).root


def publish(small: SmallMaps, path: Path) -> str:
    save_published(
        str(path), load_checkpoint(str(small.run / "s_0_checkpoint.safetensors")).network
    )
    return str(path)


def test_the_store_that_networks_were_trained_on_is_found(small: SmallMaps) -> None:
    add_store(small, "another")
    assert features_of(small.job()) == str(small.store)


def test_of_a_published_checkpoint_the_only_store_is_taken_and_of_several_none(
    small: SmallMaps, tmp_path: Path
) -> None:
    model = publish(small, tmp_path / "clam.pt")
    assert features_of(small.job(model=model)) == str(small.store)
    other = add_store(small, "another")
    with pytest.raises(ConfigError, match="2 stores of the workspace") as refused:
        features_of(small.job(model=model))
    assert str(small.store) in str(refused.value)
    assert f"{other}: another, 12 numbers a patch" in str(refused.value)
    assert features_of(small.job(model=model, features=other)) == other


def test_networks_of_another_recipe_or_length_are_refused(small: SmallMaps, tmp_path: Path) -> None:
    put_network(tmp_path / "other_s1", 0, recipe="0123456789abcdef")
    job = small.job(model=str(tmp_path / "other_s1"))
    with pytest.raises(ConfigError, match="recipe 0123456789abcdef, which no store") as refused:
        make_plan(job)
    assert str(small.store) in str(refused.value)
    with pytest.raises(ConfigError, match="trained on features of quadrants"):
        make_plan(small.job(model=str(tmp_path / "other_s1"), features=str(small.store)))
    put_network(tmp_path / "wide_s1", 0, dim=20)
    with pytest.raises(ConfigError, match=r"gives 12 numbers a patch, the network .* takes 20"):
        make_plan(small.job(model=str(tmp_path / "wide_s1")))


def test_all_slides_with_features_are_mapped_and_the_others_named(small: SmallMaps) -> None:
    plan = make_plan(small.job())
    assert plan.tasks.keys() == {"a", "b"}
    assert {task.folds for task in plan.tasks.values()} == {(0, 1)}
    assert plan.notes == []
    store = FeatureStore.open(str(small.store))
    store.index.write(row for row in store.index.read().values() if row.slide_id == "a")
    plan = make_plan(small.job())
    assert plan.tasks.keys() == {"a"}
    assert plan.notes == [
        "1 slide of the workspace without features, and so without maps: b",
    ]
    asked = make_plan(small.job(slides=["b"]))
    assert "no features of it" in asked.failed["b"]


def test_slides_can_be_named_singly_and_in_a_table(small: SmallMaps, tmp_path: Path) -> None:
    assert make_plan(small.job(slides=["b.svs"])).tasks.keys() == {"b"}
    table = tmp_path / "some.csv"
    table.write_text("slide_id,label\na.tif,x\n,\n")
    assert make_plan(small.job(slides_of=str(table))).tasks.keys() == {"a"}
    with pytest.raises(ConfigError, match=r"1 slide neither in workspace .*: nobody; there are a"):
        make_plan(small.job(slides=["a", "nobody"]))
    table.write_text("slide\na\n")
    with pytest.raises(ConfigError, match="no column slide_id; it has slide"):
        make_plan(small.job(slides_of=str(table)))


def test_held_out_slides_are_looked_at_by_networks_that_did_not_learn_from_them(
    small: SmallMaps,
) -> None:
    plan = make_plan(small.job(held_out=True))
    assert {slide: task.folds for slide, task in plan.tasks.items()} == {"a": (0,), "b": (1,)}
    some = make_plan(small.job(held_out=True, folds="1"))
    assert some.tasks.keys() == {"b"}
    assert some.notes == ["1 slide in no test part, and with --held-out without maps: a"]
    with pytest.raises(ConfigError, match=r"--held-out: .* is one checkpoint"):
        make_plan(small.job(model=str(small.run / "s_0_checkpoint.safetensors"), held_out=True))
    for path in small.run.glob("splits_*.csv"):
        path.unlink()
    with pytest.raises(ConfigError, match="--held-out: splits"):
        make_plan(small.job(held_out=True))


def test_a_slide_that_was_never_patched_here_fails_alone(small: SmallMaps) -> None:
    rows = small.workspace.read_slides()
    small.workspace.write_slides([rows["a"]])
    plan = make_plan(small.job())
    assert plan.tasks.keys() == {"a"}
    assert "is not in" in plan.failed["b"]
    (small.work / "slides.parquet").unlink()
    with pytest.raises(StoreError, match=r"no slides.parquet.*crane-ray import coords"):
        make_plan(small.job())


def test_what_decides_a_map_is_in_its_fingerprint(small: SmallMaps) -> None:
    def fingerprint(**settings: object) -> str:
        return make_plan(small.job(**settings)).tasks["a"].fingerprint()

    before = fingerprint()
    assert fingerprint() == before
    assert fingerprint(cluster__num_cpus=1, max_failures=3) == before
    held_out = fingerprint(held_out=True)
    assert held_out == fingerprint(folds="0") != before
    others = [fingerprint(maps__cmap="viridis"), held_out]
    put_network(small.run, 1, seed=1)
    assert len({before, *others, fingerprint()}) == 4


def test_a_folder_of_pt_files_alone_is_refused(small: SmallMaps, tmp_path: Path) -> None:
    (tmp_path / "pt_files").mkdir()
    torch.save(torch.from_numpy(small.features["a"]), tmp_path / "pt_files" / "a.pt")
    with pytest.raises(ConfigError, match="without coordinates"):
        make_plan(small.job(features=str(tmp_path / "pt_files")))


def test_maps_of_other_networks_stay_unless_they_may_be_overwritten(
    small: SmallMaps, tmp_path: Path
) -> None:
    folder = MapsFolder(str(tmp_path / "maps"))
    begin_folder(folder, make_plan(small.job()).header, overwrite=False)
    begin_folder(folder, make_plan(small.job(maps__cmap="jet")).header, overwrite=False)
    score = tmp_path / "maps" / "scores" / "a.parquet"
    score.parent.mkdir()
    score.touch()
    own = tmp_path / "maps" / "mine.txt"
    own.touch()
    other = make_plan(small.job(folds="0")).header
    with pytest.raises(ConfigError, match="holds maps of other networks"):
        begin_folder(folder, other, overwrite=False)
    assert score.exists()
    begin_folder(folder, other, overwrite=True)
    assert not score.exists()
    assert own.exists()
    assert folder.read_header() == other


def test_folders_are_called_as_runs_and_checkpoints(small: SmallMaps) -> None:
    work = str(small.work)
    assert small.job().folder == f"{work}/heatmaps/run_s1"
    assert small.job(dense__overlap=0.5).folder == f"{work}/heatmaps/run_s1-dense"
    one = small.job(model="/results/clam_s1/s_3_checkpoint.pt")
    assert one.folder == f"{work}/heatmaps/clam_s1-s_3_checkpoint"
    dotted = small.job(model="/results/exp_v1.2_s1")
    assert dotted.folder == f"{work}/heatmaps/exp_v1.2_s1"


def test_ranks_among_coarse_patches_need_dense_ones(small: SmallMaps) -> None:
    with pytest.raises(ConfigError, match="give --overlap"):
        small.job(maps__scale="reference")
    assert small.job(maps__scale="reference", dense__overlap=0.5).dense.overlap == 0.5


def test_features_are_told_apart_by_what_they_are(small: SmallMaps) -> None:
    before = make_plan(small.job()).tasks["a"].fingerprint()
    shutil.rmtree(small.store)
    changed = {one: values + np.float32(1) for one, values in small.features.items()}
    put_features(make_store(small.store), small.workspace, changed)
    assert make_plan(small.job()).tasks["a"].fingerprint() != before
