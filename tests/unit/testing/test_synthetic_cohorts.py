import json
from pathlib import Path

import cv2
import numpy as np
import openslide
import pandas as pd
import pytest

from crane_ray.errors import ConfigError
from crane_ray.testing.cohorts import DIAGNOSES, SyntheticCohort, make_cohort
from crane_ray.testing.faults import truncate_file
from crane_ray.testing.truth import LESION_KINDS, read_truth

SIZE = (1024, 768)


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> SyntheticCohort:
    return make_cohort(tmp_path_factory.mktemp("cohort"), num_slides=5, size_px=SIZE)


def test_the_tables_lead_to_the_slides(cohort: SyntheticCohort) -> None:
    table = pd.read_csv(cohort.slides_csv)
    assert list(table.columns) == ["slide_id", "uri", "case_id", "mpp"]
    assert len(table) == 5
    for row in table.itertuples():
        with openslide.OpenSlide(str(cohort.slides_csv.parent / str(row.uri))) as slide:
            assert slide.dimensions == SIZE
            assert float(slide.properties["openslide.mpp-x"]) == row.mpp == 0.5


def test_labels_agree_with_what_is_painted(cohort: SyntheticCohort) -> None:
    labels = pd.read_csv(cohort.labels_csv, keep_default_na=False).set_index("slide_id")
    assert list(labels.columns) == [
        "case_id",
        "label_cell",
        "label_amr",
        "label_quilty",
        "label_grade",
    ]
    for slide in cohort.slides:
        row = labels.loc[slide.slide_id]
        truth = slide.read_truth()
        for kind in LESION_KINDS:
            assert row[f"label_{kind}"] == (kind if truth.lesions_of(kind) else f"no_{kind}")
        rejected = bool(truth.lesions_of("cell") or truth.lesions_of("amr"))
        assert (row["label_grade"] in ("low", "high")) == rejected


def test_saturation_of_the_lowest_level_finds_the_tissue(cohort: SyntheticCohort) -> None:
    for slide in cohort.slides:
        with openslide.OpenSlide(str(slide.path)) as opened:
            level = opened.level_count - 1
            size, downsample = opened.level_dimensions[level], opened.level_downsamples[level]
            pixels = np.asarray(opened.read_region((0, 0), level, size).convert("RGB"))
        saturation = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 1]
        found = cv2.medianBlur(np.ascontiguousarray(saturation), 7) > 8
        truth = slide.read_truth().tissue_mask(size, downsample) > 0
        assert (found & truth).sum() > 0.85 * (found | truth).sum()


def test_few_slides_show_every_class(cohort: SyntheticCohort) -> None:
    labels = pd.read_csv(cohort.labels_csv, keep_default_na=False)
    first = labels[labels["slide_id"] < "slide_0003"]
    for kind in LESION_KINDS:
        assert set(first[f"label_{kind}"]) == {kind, f"no_{kind}"}
    assert set(first["label_grade"]) == {"", "low", "high"}
    assert len(set(DIAGNOSES)) == 14


def test_some_cases_have_two_slides_with_the_same_labels(cohort: SyntheticCohort) -> None:
    labels = pd.read_csv(cohort.labels_csv, keep_default_na=False)
    assert sorted(labels.groupby("case_id").size()) == [1, 1, 1, 2]
    assert (labels.drop(columns="slide_id").groupby("case_id").nunique() == 1).all(axis=None)


def test_a_longer_cohort_begins_with_the_same_slides(
    cohort: SyntheticCohort, tmp_path: Path
) -> None:
    make_cohort(tmp_path, num_slides=2, size_px=SIZE)
    shorter, longer = contents(tmp_path), contents(cohort.folder)
    tables = {"slides.csv", "labels.csv"}
    assert all(longer[name] == data for name, data in shorter.items() if name not in tables)
    assert all(longer[name].startswith(shorter[name]) for name in tables)


def test_killed_and_rerun_equals_run_once(cohort: SyntheticCohort) -> None:
    before = contents(cohort.folder)
    kept, cut, gone, lost = cohort.slides[:4]
    stamp = kept.path.stat().st_mtime_ns
    truncate_file(cut.path, 0.8)
    gone.path.unlink()
    lost.truth_path.unlink()
    cohort.labels_csv.unlink()
    again = make_cohort(cohort.folder, num_slides=5, size_px=SIZE)
    assert again == cohort
    assert contents(cohort.folder) == before
    assert kept.path.stat().st_mtime_ns == stamp


def test_a_folder_of_other_slides_is_refused(cohort: SyntheticCohort) -> None:
    before = contents(cohort.folder)
    with pytest.raises(ConfigError, match="choose another folder"):
        make_cohort(cohort.folder, num_slides=5, size_px=SIZE, seed=1)
    assert contents(cohort.folder) == before


def test_truth_is_geojson_as_qupath_reads_it(cohort: SyntheticCohort) -> None:
    slide = cohort.slides[1]
    collection = json.loads(slide.truth_path.read_text())
    assert collection["type"] == "FeatureCollection"
    names = [f["properties"]["classification"]["name"] for f in collection["features"]]
    assert set(names) == {"tissue", *slide.diagnosis.kinds}
    for feature in collection["features"]:
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["geometry"]["type"] == "Polygon"
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1]
            assert np.asarray(ring).min() >= 0


def test_a_file_that_is_no_truth_is_refused(tmp_path: Path) -> None:
    feature = {
        "properties": {"classification": {"name": "tumour"}},
        "geometry": {"coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]},
    }
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"features": [feature]}))
    with pytest.raises(ConfigError, match="tumour"):
        read_truth(path)
