"""The maps of one slide: what is written, what stays where pixels are gone, what is refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from crane_ray.errors import SlideError
from crane_ray.maps.attending import attend
from crane_ray.maps.bags import BagPlace, open_bag
from crane_ray.maps.folder import MapsFolder
from crane_ray.maps.percentiles import percentiles
from crane_ray.maps.scores import read_scores
from crane_ray.maps.slide_maps import map_slide, score_slide
from crane_ray.runtime.heatmap_plan import Plan, make_plan
from crane_ray.slides.patch_files import read_patches
from tests.unit.features.small_store import NUM_PATCHES, files_below
from tests.unit.maps.small_maps import SmallMaps, make_small_maps


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SmallMaps:
    return make_small_maps(tmp_path_factory.mktemp("maps"))


def plan_of(small: SmallMaps, out: Path, **settings: object) -> Plan:
    return make_plan(small.job(out=str(out), **settings))


def test_scores_are_those_of_the_networks_on_the_stored_features(
    small: SmallMaps, tmp_path: Path
) -> None:
    plan = plan_of(small, tmp_path)
    row = map_slide(plan.tasks["a"], plan.work)
    assert (row.status, row.reason, row.num_patches) == ("ok", "", NUM_PATCHES)
    expected = attend(plan.work.networks((0, 1)), small.features["a"])
    found = read_scores(MapsFolder(str(tmp_path)).scores("a"))
    np.testing.assert_array_equal(found.raw_HN, expected.raw_HN)
    np.testing.assert_allclose(found.of("amr"), percentiles(expected.raw_HN[1]), atol=1e-7)
    grid = read_patches(small.workspace.patches("a"), "a")
    np.testing.assert_array_equal(found.xy, grid.xy)
    assert (found.footprint_px, found.dimensions, found.mpp) == (64, (512, 512), 0.5)
    assert row.probabilities()["cell"] == pytest.approx(expected.probabilities["cell"], abs=1e-5)


def test_made_again_every_file_is_the_same(small: SmallMaps, tmp_path: Path) -> None:
    for out in ("once", "again"):
        plan = plan_of(small, tmp_path / out, maps__clam_scores=True)
        map_slide(plan.tasks["b"], plan.work)
    once = files_below(tmp_path / "once")
    assert once == files_below(tmp_path / "again")
    kinds = {name.split("/")[0] for name in once}
    assert kinds == {"scores", "clam", "pictures", "regions", "patches"}


def test_files_of_earlier_settings_do_not_stay(small: SmallMaps, tmp_path: Path) -> None:
    plan = plan_of(small, tmp_path, maps__formats=["png"])
    map_slide(plan.tasks["a"], plan.work)
    plan = plan_of(small, tmp_path, maps__formats=["jpg"], maps__samples=[])
    map_slide(plan.tasks["a"], plan.work)
    names = {Path(name).name for name in files_below(tmp_path)}
    assert names == {"a.parquet", "cell.jpg", "amr.jpg", "cell.geojson", "amr.geojson"}


def test_a_slide_whose_file_is_gone_keeps_its_scores_and_regions(
    small: SmallMaps, tmp_path: Path
) -> None:
    plan = plan_of(small, tmp_path)
    task = plan.tasks["a"].model_copy(update={"uri": "/gone/a.tif"})
    row = map_slide(task, plan.work)
    assert (row.status, row.num_patches, row.fingerprint) == ("failed", NUM_PATCHES, "")
    assert "/gone/a.tif (its scores and regions are there all the same)" in row.reason
    assert row.probabilities().keys() == {"cell", "amr"}
    kinds = {name.split("/")[0] for name in files_below(tmp_path)}
    assert kinds == {"scores", "regions"}


def test_on_an_empty_canvas_a_slide_whose_file_is_gone_has_its_maps_too(
    small: SmallMaps, tmp_path: Path
) -> None:
    plan = plan_of(small, tmp_path, maps__blank_canvas=True)
    task = plan.tasks["a"].model_copy(update={"uri": "/gone/a.tif"})
    assert map_slide(task, plan.work).status == "failed"
    assert "pictures/a/cell.jpg" in files_below(tmp_path)


def test_features_of_other_patches_are_refused(small: SmallMaps, tmp_path: Path) -> None:
    plan = plan_of(small, tmp_path)
    task = plan.tasks["a"].model_copy(update={"bag": plan.tasks["b"].bag})
    grid = read_patches(small.workspace.patches("a"), "a")
    assert map_slide(task, plan.work).status == "ok"  # slides with patches at the same places
    fewer = task.bag.model_copy(update={"num_patches": len(grid) - 1})
    row = map_slide(task.model_copy(update={"bag": fewer}), plan.work)
    assert row.status == "failed"
    assert f"has {len(grid)} patches, its features are of {len(grid) - 1} patches" in row.reason
    assert "--replace-stale" in row.reason


def test_a_dense_map_is_ranked_among_the_coarse_one_and_diagnosed_by_it(
    small: SmallMaps, tmp_path: Path
) -> None:
    plan = plan_of(small, tmp_path)
    coarse = score_slide(plan.tasks["a"], plan.work)
    task = plan.tasks["b"].model_copy(update={"reference": plan.tasks["a"].bag})
    dense = score_slide(task, plan.work)
    assert dense.diagnosis.probabilities["amr"] == pytest.approx(
        coarse.diagnosis.probabilities["amr"]
    )
    for row in range(2):
        expected = percentiles(dense.scores.raw_HN[row], coarse.scores.raw_HN[row])
        np.testing.assert_allclose(dense.scores.percentile_HN[row], expected, atol=1e-7)


def test_clams_h5_files_give_the_maps_of_the_store(small: SmallMaps, tmp_path: Path) -> None:
    clam = tmp_path / "clam"
    write_h5(clam / "h5_files" / "a.h5", small, "a")
    stored = plan_of(small, tmp_path / "stored")
    filed = plan_of(small, tmp_path / "filed", features=str(clam))
    for plan in (stored, filed):
        assert map_slide(plan.tasks["a"], plan.work).status == "ok"
    assert filed.tasks.keys() == {"a"}
    assert files_below(tmp_path / "stored") == files_below(tmp_path / "filed")


def write_h5(path: Path, small: SmallMaps, slide_id: str) -> None:
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file["features"] = small.features[slide_id]
        file["coords"] = read_patches(small.workspace.patches(slide_id), slide_id).xy


def test_features_without_coordinates_are_refused(small: SmallMaps, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["features"] = small.features["a"]
    with (
        pytest.raises(SlideError, match="without coordinates have no place"),
        open_bag(BagPlace(name="a", h5=str(path))),
    ):
        pass
    with h5py.File(path, "a") as file:
        file["coords"] = np.full((NUM_PATCHES, 2), -1)
    with open_bag(BagPlace(name="a", h5=str(path))) as bag, pytest.raises(SlideError, match="pt"):
        bag.require_coordinates("features")


def test_a_task_crosses_processes_as_it_is(small: SmallMaps, tmp_path: Path) -> None:
    task = plan_of(small, tmp_path).tasks["a"]
    back = type(task).model_validate_json(task.model_dump_json())
    assert back == task
    assert back.fingerprint() == task.fingerprint()
    assert json.loads(task.model_dump_json())["bag"]["store"] == str(small.store)
