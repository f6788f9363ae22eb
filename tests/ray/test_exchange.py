"""Stores to CLAM's files and back, and foreign coordinates to features, on a real local Ray."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from crane_ray.errors import ConfigError, StoreError
from crane_ray.features.clam_files import clam_file
from crane_ray.features.store import FeatureStore
from crane_ray.runtime.coords_import import run_import_coords
from crane_ray.runtime.exchange import run_export
from crane_ray.runtime.exchange_jobs import ExportJob, ImportCoordsJob, ImportFeaturesJob
from crane_ray.runtime.extraction import run_extraction
from crane_ray.runtime.feature_import import run_import_features
from crane_ray.runtime.jobs import ExtractJob, PatchJob, VerifyJob
from crane_ray.runtime.patching import run_patching
from crane_ray.runtime.verification import run_verification
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.workspace import Workspace
from crane_ray.testing.cohorts import SyntheticCohort
from tests.ray.helpers import SLOW, tree_digest
from tests.unit.features.test_clam_files import make_slide, put_slide

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]

NUM_SLIDES = 5


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of six slides, none of which is like another."""
    root = tmp_path_factory.mktemp("exchange") / "store"
    store, _ = make_slide(root)
    for number in range(NUM_SLIDES):
        rng = np.random.default_rng(number)
        features = rng.normal(size=(5 + 7 * number, 12)).astype(np.float16)
        xy = rng.integers(0, 9999, (len(features), 2)).astype(np.int32)
        put_slide(store, f"slide {number}", features, xy)
    return root


@pytest.fixture(scope="session")
def exported(made: Path, tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """That store as CLAM's files."""
    folder = tmp_path_factory.mktemp("exported")
    summary = run_export(ExportJob(store=str(made), to=str(folder)))
    assert (summary.done, summary.skipped, summary.failures) == (NUM_SLIDES + 1, 0, [])
    return folder


def import_job(source: Path, store: Path, **more: Any) -> ImportFeaturesJob:
    settings = {"source": str(source), "store": str(store), "encoder": "quadrants"}
    return ImportFeaturesJob.load(overrides=[*settings.items(), *more.items()])


def require_equal(one: FeatureStore, other: FeatureStore) -> None:
    assert one.slide_ids() == other.slide_ids()
    for slide_id in one.slide_ids():
        left, right = one.read(slide_id), other.read(slide_id)
        np.testing.assert_array_equal(left.features, right.features)
        np.testing.assert_array_equal(left.xy, right.xy)


def test_out_to_clam_and_in_again(made: Path, exported: Path, tmp_path: Path) -> None:
    root = tmp_path / "back"
    first = run_import_features(import_job(exported, root, layout="parquet"))
    assert (first.done, first.skipped, first.failures) == (NUM_SLIDES + 1, 0, [])
    require_equal(FeatureStore.open(str(root)), FeatureStore.open(str(made)))
    before = tree_digest(root / "slides")
    again = run_import_features(import_job(exported, root, layout="parquet"))
    assert (again.done, again.skipped, again.patches) == (0, NUM_SLIDES + 1, 0)
    assert tree_digest(root / "slides") == before
    checked = run_verification(VerifyJob(store=str(root)))
    assert (checked.done, checked.failures) == (NUM_SLIDES + 1, [])
    manifest = json.loads(Path(again.manifest).read_text())
    assert (manifest["outcome"], manifest["counts"]["skipped"]) == ("done", NUM_SLIDES + 1)


def test_an_export_takes_what_is_asked_for_and_repeats_nothing(
    made: Path, exported: Path, tmp_path: Path
) -> None:
    before = tree_digest(exported / "pt_files")
    again = run_export(ExportJob(store=str(made), to=str(exported)))
    assert (again.done, again.skipped, again.patches) == (0, NUM_SLIDES + 1, 0)
    assert tree_digest(exported / "pt_files") == before
    few = ExportJob.load(overrides=[("store", str(made)), ("to", str(tmp_path)),
                                    ("formats", "pt"), ("slides", "slide 1, slide 2")])  # fmt: skip
    assert run_export(few).done == 2
    files = [path.name for path in tmp_path.rglob("*") if path.suffix in {".pt", ".h5"}]
    assert sorted(files) == ["slide 1.pt", "slide 2.pt"]
    with pytest.raises(ConfigError, match="slide 99 not in the store"):
        run_export(few.model_copy(update={"slides": ("slide 99",)}))


def test_damaged_slides_fail_alone_in_an_export(made: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(made, tmp_path / "store"))
    shutil.rmtree(root / "slides" / "slide 3.zarr" / "features" / "c")
    summary = run_export(ExportJob(store=str(root), to=str(tmp_path / "clam")))
    assert summary.done == NUM_SLIDES
    assert [slide.slide_id for slide in summary.failures] == ["slide 3"]
    assert not Path(clam_file(str(tmp_path / "clam"), "slide 3", "pt")).exists()


def test_bad_files_fail_alone_in_an_import(exported: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported, tmp_path / "clam"))
    pt = folder / "pt_files"
    (pt / "slide 0.pt").write_bytes(b"no archive")
    torch.save(torch.zeros(12, 12), pt / "slide 1.pt")
    torch.save(torch.zeros(30, 99), pt / "wide.pt")
    torch.save(torch.zeros(0, 12), pt / "empty.pt")
    torch.save(torch.full((3, 12), 1e6), pt / "huge.pt")
    (folder / "h5_files" / "slide 2.h5").write_bytes(b"")
    root = tmp_path / "store"
    more = {"scale.size_px": 64, "scale.level": 0, "dtype": "float16"}
    summary = run_import_features(import_job(folder, root, **more))
    reasons = {slide.slide_id: slide.reason for slide in summary.failures}
    assert summary.done == NUM_SLIDES - 2
    assert reasons.keys() == {"slide 0", "slide 1", "slide 2", "wide", "huge"}
    assert "slide 0.pt cannot be used" in reasons["slide 0"]
    assert "hold other features" in reasons["slide 1"]
    assert "features of length 99, the store has 12" in reasons["wide"]
    assert "beyond the range of float16" in reasons["huge"]
    assert [slide.slide_id for slide in summary.left_out if slide.status == "no_tissue"] == [
        "empty"
    ]
    for name in ("slide 0.pt", "slide 1.pt"):
        shutil.copy(exported / "pt_files" / name, pt / name)
    again = run_import_features(import_job(folder, root, **more))
    assert (again.done, again.skipped, len(again.failures)) == (2, NUM_SLIDES - 2, 3)


SPEC = {"patch.size_px": 32, "patch.mpp": 1.0}


@pytest.fixture(scope="session")
def patched(
    cohort: SyntheticCohort, tmp_path_factory: pytest.TempPathFactory, local_ray: None
) -> Path:
    """Four patched slides."""
    work = tmp_path_factory.mktemp("patched")
    settings = {
        "slides.source": str(cohort.slides_csv),
        "work": str(work),
        "tissue.preset": "bwh_biopsy",
        "pictures": False,
        **SPEC,
    }
    assert not run_patching(PatchJob.load(overrides=settings.items())).failures
    return work


@pytest.fixture
def trident(patched: Path, tmp_path: Path) -> Path:
    """Their coordinates as TRIDENT writes them."""
    workspace = Workspace(str(patched))
    folder = tmp_path / "trident" / "10x_32px_0px_overlap"
    (folder / "patches").mkdir(parents=True)
    for slide_id, row in workspace.read_slides().items():
        grid = read_patches(workspace.patches(slide_id), slide_id)
        with h5py.File(folder / "patches" / f"{slide_id}_patches.h5", "w") as file:
            coords = file.create_dataset("coords", data=grid.xy)
            coords.attrs.update(
                patch_size=32,
                patch_size_level0=round(grid.geometry.footprint_xy[0]),
                level0_magnification=20,
                target_magnification=10,
                overlap=0,
                level0_width=row.width_px,
                level0_height=row.height_px,
                name=slide_id,
            )
    return folder


def coords_job(source: Path, cohort: SyntheticCohort, work: Path, **more: Any) -> ImportCoordsJob:
    settings = {
        "source": str(source),
        "slides.source": str(cohort.slides_csv),
        "work": str(work),
        **more,
    }
    return ImportCoordsJob.load(overrides=settings.items())


def extract(work: Path, layout: str) -> FeatureStore:
    settings = {
        "work": str(work),
        "store": str(work / "store"),
        "layout": layout,
        "encoder.name": SLOW,
        "encoder.weights": "random",
        "encoder.precision": "fp32",
    }
    summary = run_extraction(ExtractJob.load(overrides=settings.items()))
    assert not summary.failures
    return FeatureStore.open(str(work / "store"))


def test_tridents_coordinates_are_extracted_from_as_our_own(
    trident: Path, patched: Path, cohort: SyntheticCohort, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    first = run_import_coords(coords_job(trident, cohort, work, **{"scale.mpp": 1.0}))
    assert (first.done, first.failures) == (4, [])
    mine, theirs = Workspace(str(patched)), Workspace(str(work))
    rows = theirs.read_slides()
    for slide_id, row in mine.read_slides().items():
        grids = [read_patches(place.patches(slide_id), slide_id) for place in (mine, theirs)]
        assert grids[0].checksum() == grids[1].checksum() == rows[slide_id].coords_checksum
        assert (row.case_id, row.mpp) == (rows[slide_id].case_id, rows[slide_id].mpp)
    again = run_import_coords(coords_job(trident, cohort, work, **{"scale.mpp": 1.0}))
    assert (again.done, again.skipped) == (0, 4)
    own = Path(shutil.copytree(patched, tmp_path / "own"))
    require_equal(extract(work, "parquet"), extract(own, "zarr"))


def test_coordinates_of_staged_slides_by_the_reader_asked_for(
    trident: Path, cohort: SyntheticCohort, tmp_path: Path
) -> None:
    work, cache = tmp_path / "work", tmp_path / "cache"
    how = {"reader": "openslide", "staging.local": True, "staging.folder": str(cache)}
    summary = run_import_coords(coords_job(trident, cohort, work, **{"scale.mpp": 1.0}, **how))
    assert (summary.done, summary.failures) == (4, [])
    rows = Workspace(str(work)).read_slides()
    assert {row.reader for row in rows.values()} == {"openslide"}
    assert {row.uri for row in rows.values()} == {str(slide.path) for slide in cohort.slides}
    assert len(list((cache / "entries").iterdir())) == 4


def test_coordinates_that_do_not_fit_cost_their_slide_alone(
    trident: Path, cohort: SyntheticCohort, tmp_path: Path
) -> None:
    files = sorted((trident / "patches").glob("*.h5"))
    with h5py.File(files[0], "a") as file:
        file["coords"].attrs["patch_size_level0"] = 999
    files[1].write_bytes(b"")
    shutil.copy(files[2], trident / "patches" / "nobody_patches.h5")
    files[3].unlink()
    work = tmp_path / "work"
    summary = run_import_coords(coords_job(trident, cohort, work, **{"scale.mpp": 1.0}))
    reasons = {slide.slide_id: slide.reason for slide in summary.failures}
    ids = [slide.slide_id for slide in cohort.slides]
    assert summary.done == 1
    assert reasons.keys() == {ids[0], ids[1], "nobody_patches"}
    assert "um/px, not 1 within 5%" in reasons[ids[0]]
    assert "cannot be used" in reasons[ids[1]]
    assert "no slide for" in reasons["nobody_patches"]
    assert sorted(Workspace(str(work)).read_slides()) == ids[:3]


def test_a_workspace_has_one_scale(
    trident: Path, patched: Path, cohort: SyntheticCohort, tmp_path: Path
) -> None:
    work = Path(shutil.copytree(patched, tmp_path / "work"))
    sorted((trident / "patches").glob("*.h5"))[0].unlink()
    with pytest.raises(StoreError, match=r"1 of its slides .* another size or scale"):
        run_import_coords(coords_job(trident, cohort, work, **{"scale.mpp": 1.02}))
    with pytest.raises(ConfigError, match=r"TRIDENT's, 10x.* give --mpp"):
        run_import_coords(coords_job(trident, cohort, work))


def test_two_encoders_in_one_pass_with_clams_files(
    cohort: SyntheticCohort, tmp_path: Path, local_ray: None
) -> None:
    """A store is that of a run of its own, and CLAM's files are those of the stores."""
    work = tmp_path / "work"
    settings = {
        "slides.source": str(cohort.slides_csv), "work": str(work), "pictures": False,
        "tissue.preset": "bwh_biopsy", "patch.size_px": 64,
    }  # fmt: skip
    assert not run_patching(PatchJob.load(overrides=settings.items())).failures
    names = [SLOW, "timm:test_resnet"]

    def extract(encoders: list[str], **more: str) -> Any:
        shared = {"encoder.weights": "random", "encoder.precision": "fp32"}
        words = {"work": str(work), "encoders": encoders, **shared, **more}
        return run_extraction(ExtractJob.load(overrides=words.items()))

    together = extract(names, clam=str(tmp_path / "clam"))
    assert (together.done, together.failures) == (len(cohort.slides), [])
    folders = ("slow_colour", "timm_test_resnet")
    alone = extract(names[:1], store=str(tmp_path / "alone"))
    assert together.patches == 2 * alone.patches > 0
    digests = tree_digest(work / "features" / folders[0] / "slides")
    assert digests == tree_digest(tmp_path / "alone" / "slides")
    for folder in folders:
        root = work / "features" / folder
        again = run_export(ExportJob(store=str(root), to=str(tmp_path / "clam" / folder)))
        assert (again.done, again.skipped) == (0, len(cohort.slides))
    readers = json.loads(Path(together.manifest).read_text())["facts"]["readers"]
    assert sorted(readers["tiff"]) == sorted(FeatureStore.open(str(root)).slide_ids())
