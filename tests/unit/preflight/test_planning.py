"""The arithmetic of a plan, and the cohorts and rates it comes from."""

import json
from pathlib import Path

import numpy as np
import pytest

from crane_ray.errors import ConfigError
from crane_ray.features.store import CHUNK_ROWS as STORE_CHUNK_ROWS
from crane_ray.preflight import planning
from crane_ray.preflight.cohort_size import counted_patches, estimated_patches
from crane_ray.preflight.measuring import measure_decoding
from crane_ray.preflight.planning import CohortSize, Group, groups_of, make_plan, store_bytes
from crane_ray.preflight.rates import NodeRates, RatesFile, read_rates, write_rates
from crane_ray.runtime.planning import run_plan
from crane_ray.runtime.preflight_jobs import PlanJob
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.testing.pyramids import write_pyramid

HOUR = 3600


def gpu_rates(node: str, cpus: float = 8, gpus: float = 2) -> NodeRates:
    return NodeRates(node=node, cpus=cpus, gpus=gpus, decode=1000, encode=3000, on_gpu=True)


def cpu_rates(node: str) -> NodeRates:
    return NodeRates(node=node, cpus=64, gpus=0, decode=1000, encode=20, on_gpu=False)


def test_gpus_that_are_fed_set_the_pace() -> None:
    cohort = CohortSize((6000 * HOUR,), slide_bytes=HOUR * 10**6)
    plan = make_plan(cohort, [Group(8, 2, 3000, 1000)], dim=1024)
    assert (plan.wall_hours, plan.gpu_hours, plan.gpu_hours_held) == (1, 2, 2)
    assert (plan.cpus_per_gpu, plan.cpus_there_per_gpu, plan.decoding_limits) == (3, 4, False)
    assert plan.cpu_hours == 8
    assert plan.read_bytes_a_second == 10**6


def test_gpus_that_starve_are_held_for_longer_than_they_compute() -> None:
    plan = make_plan(CohortSize((6000 * HOUR,)), [Group(3, 2, 3000, 1000)], dim=1024)
    assert plan.decoding_limits
    assert plan.patches_a_second == 3000
    assert (plan.wall_hours, plan.gpu_hours, plan.gpu_hours_held) == (2, 2, 4)


def test_a_core_without_gpu_does_both_one_after_the_other() -> None:
    plan = make_plan(CohortSize((1000,)), [Group(4, 0, 20, 20)], dim=8)
    assert plan.patches_a_second == pytest.approx(40)
    assert (plan.gpu_hours, plan.cpus_per_gpu) == (None, None)


def test_groups_share_the_patches_by_their_pace() -> None:
    groups = [Group(8, 1, 3000, 1000), Group(8, 1, 1000, 1000)]
    plan = make_plan(CohortSize((4000 * HOUR,)), groups, dim=8)
    assert plan.wall_hours == 1
    assert plan.gpu_hours == pytest.approx(2)
    assert plan.cpus_per_gpu == 3  # of the hungriest


def test_an_unknown_rate_of_decoding_stays_unknown() -> None:
    plan = make_plan(CohortSize((1000,)), [Group(1, 1, 3000, None)], dim=8)
    assert (plan.cpus_per_gpu, plan.decoding_limits) == (None, False)


def test_nodes_without_gpu_take_no_part_where_others_have_one() -> None:
    both = RatesFile(encoder="e", dim=8, nodes=(cpu_rates("cpu"), gpu_rates("gpu")))
    assert groups_of(both) == [Group(8, 2, 3000, 1000)]
    cpus = RatesFile(encoder="e", dim=8, nodes=(cpu_rates("cpu"),))
    assert groups_of(cpus) == [Group(64, 0, 20, 1000)]


def test_storage_is_what_a_store_takes(tmp_path: Path) -> None:
    from crane_ray.features.store import SlideHeader
    from crane_ray.features.stores.zarr import FORMAT

    assert planning.CHUNK_ROWS == STORE_CHUNK_ROWS
    counts, dim = (300, 1300), 64
    for count in counts:
        header = SlideHeader(str(count), count, dim, "float16", 512, {})
        path = FORMAT.path(str(tmp_path), str(count))
        xy = np.zeros((count, 2), dtype=np.int32)
        FORMAT.write(path, header, 0, np.zeros((count, dim), dtype=np.float16), xy)
    there = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    estimate = store_bytes(counts, dim, "float16")
    assert 0 <= estimate - there < 2 * planning.SLIDE_BYTES
    assert store_bytes((100,), 64, "float32") - store_bytes((100,), 64, "float16") == 100 * 64 * 2


def test_patches_are_counted_in_the_table_and_the_rest_is_told(tmp_path: Path) -> None:
    rows = [
        SlideRow("a", "/a", "ok", num_patches=10, size=5),
        SlideRow("b", "/b", "ok", num_patches=20, size=6),
        SlideRow("c", "/c", "no_tissue", num_patches=0, size=7),
        SlideRow("d", "/d", "failed", reason="broken"),
    ]
    Workspace(str(tmp_path)).write_slides(rows)
    cohort = counted_patches(str(tmp_path))
    assert (cohort.num_patches, cohort.slide_bytes) == ((10, 20), 11)
    assert "1 failed, 1 no tissue" in cohort.basis
    with pytest.raises(ConfigError, match=r"no slides\.parquet; run crane-ray patch first"):
        counted_patches(str(tmp_path / "none"))


def test_an_estimate_from_sizes_says_that_it_is_one(tmp_path: Path) -> None:
    image = np.full((1024, 2048, 3), 200, dtype=np.uint8)
    write_pyramid(tmp_path / "a.tif", image, mpp=0.25)
    (tmp_path / "broken.tif").write_bytes(b"no slide")
    whole = estimated_patches(str(tmp_path), patch_px=256, mpp=0.5, tissue_share=1)
    assert whole.num_patches == (8, 8)  # 2 x 4 of 512 px, and the mean for the broken one
    for words in ("an estimate", "without looking for tissue", "upper limit", "could not be"):
        assert words in whole.basis
    part = estimated_patches(str(tmp_path), patch_px=256, mpp=0.5, tissue_share=0.25)
    assert part.num_patches == (2, 2)
    assert "upper limit" not in part.basis
    (tmp_path / "a.tif").unlink()
    with pytest.raises(ConfigError, match="none of its 1 slides can be looked at"):
        estimated_patches(str(tmp_path), patch_px=256, mpp=0.5, tissue_share=1)


def test_rates_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = str(tmp_path / "rates.json")
    rates = RatesFile(encoder="e", dim=8, nodes=(gpu_rates("a"),))
    write_rates(path, rates)
    assert read_rates(path) == rates
    Path(path).write_text(json.dumps({"encoder": "e", "nodes": []}))
    with pytest.raises(ConfigError, match="not what crane-ray doctor --rates-out writes"):
        read_rates(path)
    Path(path).write_text("import os")
    with pytest.raises(ConfigError, match=r"no JSON \(Expecting value"):
        read_rates(path)


def test_a_plan_for_another_cluster_uses_what_was_measured(tmp_path: Path) -> None:
    path = str(tmp_path / "rates.json")
    write_rates(path, RatesFile(encoder="e", dim=8, nodes=(gpu_rates("a"), cpu_rates("b"))))
    Workspace(str(tmp_path)).write_slides([SlideRow("a", "/a", "ok", num_patches=100)])
    here = run_plan(PlanJob(work=str(tmp_path), rates=path))
    assert here.plan.patches_a_second == 6000
    there = run_plan(PlanJob(work=str(tmp_path), rates=path, gpus=8, cpus=16))
    assert there.plan.patches_a_second == 16_000
    assert there.plan.decoding_limits
    without = run_plan(PlanJob(work=str(tmp_path), rates=path, gpus=0, cpus=10, dim=4))
    assert (without.plan.gpu_hours, without.plan.store_bytes) == (None, 100 * 16 + 3000)


def test_what_a_plan_lacks_is_named(tmp_path: Path) -> None:
    Workspace(str(tmp_path)).write_slides([SlideRow("a", "/a", "ok", num_patches=100)])
    work, path = str(tmp_path), str(tmp_path / "rates.json")
    for given, words in (
        ({"work": work, "slides": work}, "one cohort is needed"),
        ({"work": work}, "a rate is needed"),
        ({"work": work, "patches_a_second": 10}, "a cluster is needed"),
    ):
        with pytest.raises(ValueError, match=words):
            PlanJob.model_validate(given)
    with pytest.raises(ConfigError, match="--cpus N is needed"):
        run_plan(PlanJob(work=work, patches_a_second=10, gpus=1))
    write_rates(path, RatesFile(encoder="e", dim=8, nodes=(cpu_rates("b"),)))
    with pytest.raises(ConfigError, match="does not say how fast a GPU encodes"):
        run_plan(PlanJob(work=work, rates=path, gpus=1))


def test_decoding_is_measured_on_this_machine() -> None:
    assert measure_decoding(seconds=0) > 50
