"""Attention maps of a cohort on a real local Ray: outcomes, reruns, interruptions, dense maps."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from crane_ray.errors import ConfigError
from crane_ray.features.store import FeatureStore
from crane_ray.maps.attending import attend
from crane_ray.maps.folder import MapsFolder, list_maps
from crane_ray.maps.scores import read_scores
from crane_ray.mil.checkpoints import load_checkpoint
from crane_ray.runtime.extraction import run_extraction
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.heatmaps import run_heatmaps
from crane_ray.runtime.jobs import ExtractJob, PatchJob
from crane_ray.runtime.patching import run_patching
from crane_ray.runtime.reporting import Silent
from crane_ray.slides.workspace import Workspace
from crane_ray.testing.cohorts import SyntheticCohort
from tests.ray.helpers import SLOW, tree_digest
from tests.unit.maps.small_maps import make_small_maps, put_network

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


class Impatient(Silent):
    """Interrupts the run after its first slide."""

    def advance(self, *, slides: int = 0, patches: int = 0, failures: int = 0) -> None:
        raise KeyboardInterrupt


def test_a_run_that_is_interrupted_and_has_a_bad_slide_ends_like_one_that_has_not(
    tmp_path: Path,
) -> None:
    small = make_small_maps(tmp_path, num_slides=3)
    job = small.job(maps__samples=[{"name": "top", "k": 2}])
    folder = MapsFolder(job.folder)
    bad = tmp_path / "work" / "slides_in" / "c.tif"
    shutil.move(bad, tmp_path / "c.tif")
    with pytest.raises(KeyboardInterrupt):
        run_heatmaps(job, Impatient())
    assert len(folder.read_index()) == 1
    summary = run_heatmaps(job)
    assert summary.done + summary.skipped == 2
    assert [slide.slide_id for slide in summary.failures] == ["c"]
    assert str(bad) in summary.failures[0].reason
    networks = [load_checkpoint(str(path)) for path in sorted(small.run.glob("*.safetensors"))]
    for slide_id, features in small.features.items():
        expected = attend(networks, features)
        found = read_scores(folder.scores(slide_id))
        np.testing.assert_allclose(found.raw_HN, expected.raw_HN, atol=1e-6)
        row = folder.read_index()[slide_id]
        assert row.probabilities()["amr"] == pytest.approx(expected.probabilities["amr"], abs=1e-5)
    shutil.move(tmp_path / "c.tif", bad)
    mended = run_heatmaps(job)
    assert (mended.done, mended.skipped, mended.failures) == (1, 2, [])
    assert [maps.root for maps in list_maps(str(small.work))] == [folder.root]
    undisturbed = job.model_copy(update={"out": str(tmp_path / "undisturbed")})
    run_heatmaps(undisturbed)
    for kind in ("scores", "pictures", "regions", "patches"):
        once = tree_digest(tmp_path / "undisturbed" / kind)
        assert once == tree_digest(Path(folder.root, kind))
    with pytest.raises(ConfigError, match="other networks"):
        run_heatmaps(small.job(folds="0", out=folder.root))


@pytest.mark.chaos
def test_a_slide_that_kills_its_worker_is_given_up_and_recorded(tmp_path: Path) -> None:
    small = make_small_maps(tmp_path, num_slides=3)
    summary = run_heatmaps(small.job(reader="crane_test_plugins.crashing_reader", maps__samples=[]))
    assert summary.done == 2
    assert [slide.slide_id for slide in summary.failures] == ["c"]
    assert "its worker died" in summary.failures[0].reason


def test_dense_maps_lie_on_the_same_tissue_and_tell_the_same_diagnosis(
    cohort: SyntheticCohort, tmp_path: Path
) -> None:
    work = str(tmp_path / "work")
    patching = {
        "slides.source": str(cohort.slides[0].path), "work": work, "patch.size_px": 128,
        "tissue.preset": "bwh_biopsy", "pictures": False,
    }  # fmt: skip
    run_patching(PatchJob.load(None, patching.items()))
    extraction = {"work": work, "encoder.name": SLOW, "encoder.weights": "random"}
    run_extraction(ExtractJob.load(None, extraction.items()))
    store = FeatureStore.open(Workspace(work).features + "/slow_colour")
    put_network(tmp_path / "run_s1", 0, recipe=store.header.recipe_fingerprint)
    put_network(tmp_path / "run_s1", 1, recipe=store.header.recipe_fingerprint)
    common = {"work": work, "model": str(tmp_path / "run_s1"), "maps.samples": []}
    coarse = HeatmapJob.load(None, common.items())
    dense = HeatmapJob.load(
        None, {**common, "dense.overlap": 0.5, "maps.scale": "reference"}.items()
    )
    for job in (coarse, dense):
        assert run_heatmaps(job).failures == []
    slide_id = cohort.slides[0].slide_id
    rows = [MapsFolder(job.folder).read_index()[slide_id] for job in (coarse, dense)]
    assert rows[0].predictions == rows[1].predictions
    one, many = (read_scores(MapsFolder(job.folder).scores(slide_id)) for job in (coarse, dense))
    assert len(many) > 3 * len(one)
    places = {tuple(xy): row for row, xy in enumerate(many.xy.tolist())}
    at = [places[tuple(xy)] for xy in one.xy.tolist()]  # the lattice has the coarse one in it
    np.testing.assert_allclose(many.raw_HN[:, at], one.raw_HN, atol=2e-3)
    np.testing.assert_allclose(many.percentile_HN[:, at], one.percentile_HN, atol=0.1)
    assert MapsFolder(dense.folder).read_header().dense
    assert run_heatmaps(dense).skipped == 1
    with pytest.raises(ConfigError, match=r"slow_colour with the weights of the stored features"):
        run_heatmaps(
            HeatmapJob.load(
                None,
                {**common, "dense.overlap": 0.75, "dense.weights": "/no/such.pt"}.items(),
            )
        )
