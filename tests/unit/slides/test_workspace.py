from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import StoreError
from crane_ray.slides.workspace import SCHEMA, SlideRow, Workspace
from crane_ray.testing import faults

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
COUNT = st.none() | st.integers(0, 2**40)
NUMBER = st.none() | st.floats(0, 1e6)
ROWS = st.builds(
    SlideRow,
    slide_id=TEXT.filter(bool),
    uri=TEXT,
    status=st.sampled_from(["ok", "no_tissue", "failed"]),
    case_id=TEXT,
    reason=TEXT,
    size=COUNT,
    vendor=st.none() | TEXT,
    width_px=COUNT,
    height_px=COUNT,
    mpp=NUMBER,
    power=NUMBER,
    levels=st.none() | st.integers(1, 12),
    num_patches=COUNT,
    seconds=NUMBER,
    reader=st.none() | TEXT,
    spec_fingerprint=st.none() | TEXT,
    plan_fingerprint=st.none() | TEXT,
    coords_checksum=st.none() | TEXT,
)


@settings(deadline=None, max_examples=40)
@given(st.lists(ROWS, max_size=5, unique_by=lambda row: row.slide_id))
def test_rows_that_are_written_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[SlideRow]
) -> None:
    workspace = Workspace(str(tmp_path_factory.getbasetemp() / "table"))
    workspace.write_slides(rows)
    read = workspace.read_slides()
    assert list(read.values()) == sorted(rows, key=lambda row: row.slide_id)
    assert all(slide_id == row.slide_id for slide_id, row in read.items())


def test_every_field_of_a_row_has_its_column() -> None:
    assert set(SCHEMA.names) == set(asdict(SlideRow("a", "", "ok")))


def test_the_table_is_one_for_any_reader_of_parquet(tmp_path: Path) -> None:
    workspace = Workspace(str(tmp_path))
    workspace.write_slides(
        [SlideRow("b", "/b.svs", "ok", num_patches=3), SlideRow("a", "", "failed")]
    )
    table = pd.read_parquet(tmp_path / "slides.parquet")
    assert table["slide_id"].tolist() == ["a", "b"]
    assert table["num_patches"].tolist()[1] == 3


def test_a_workspace_without_table_has_no_rows(tmp_path: Path) -> None:
    assert Workspace(str(tmp_path / "gone")).read_slides() == {}


def test_columns_of_a_later_version_are_left_out() -> None:
    row = SlideRow.from_mapping({"slide_id": "a", "uri": "/a", "status": "ok", "colour": "blue"})
    assert (row.slide_id, row.status, row.mpp) == ("a", "ok", None)


@pytest.mark.parametrize("keep_fraction", [0.0, 0.5, 0.99])
def test_a_table_cut_short_is_refused_with_a_way_out(tmp_path: Path, keep_fraction: float) -> None:
    workspace = Workspace(str(tmp_path))
    workspace.write_slides([SlideRow("a", "/a.svs", "ok")])
    faults.truncate_file(tmp_path / "slides.parquet", keep_fraction)
    with pytest.raises(
        StoreError, match=r"slides\.parquet: not a readable table of slides: .*move it away"
    ):
        workspace.read_slides()


@pytest.mark.parametrize("root", ["/data/a", "/data/a/", "s3://bucket/a", "s3://bucket/a/"])
def test_every_result_has_its_place(root: str) -> None:
    workspace, base = Workspace(root), root.rstrip("/")
    assert workspace.slides_table == f"{base}/slides.parquet"
    assert workspace.process_list == f"{base}/process_list_autogen.csv"
    assert workspace.contours("a.b") == f"{base}/contours/a.b.geojson"
    assert workspace.mask("a") == f"{base}/masks/a.jpg"
    assert workspace.stitch("a") == f"{base}/stitches/a.jpg"
    assert workspace.patches("a") == f"{base}/patches/a.h5"
    assert workspace.features == f"{base}/features"
    assert workspace.manifests == f"{base}/manifests"
    assert workspace.config("patch") == f"{base}/patch.yaml"
