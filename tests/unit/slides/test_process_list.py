import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import ConfigError
from crane_ray.slides.params import TissueParams, override
from crane_ray.slides.process_list import find_row, read_process_list, write_process_list
from crane_ray.slides.workspace import SlideRow

NAMES = st.text("abc._-1", min_size=1, max_size=6).filter(lambda name: name.strip("."))
PARAMS = st.builds(
    TissueParams,
    sthresh=st.integers(0, 255),
    mthresh=st.sampled_from([1, 7, 11]),
    use_otsu=st.booleans(),
    a_t=st.floats(0, 200),
    keep_ids=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    contour_fn=st.sampled_from(["four_pt", "basic"]),
)


def row(slide_id: str, status: str = "ok", *, uri: str = "", reason: str = "") -> SlideRow:
    return SlideRow(slide_id, uri or f"/data/{slide_id}.svs", status, reason=reason)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(st.dictionaries(NAMES, st.tuples(PARAMS, st.sampled_from([".svs", ".tif"])), max_size=5))
def test_an_edited_list_gives_every_slide_its_parameters_back(
    tmp_path_factory: pytest.TempPathFactory, slides: dict[str, tuple[TissueParams, str]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "process_list.csv"
    rows = [
        row(name, "failed", uri=f"/data/{name}{suffix}") for name, (_, suffix) in slides.items()
    ]
    write_process_list(str(path), rows, {name: params for name, (params, _) in slides.items()})
    wanted = read_process_list(str(path))
    assert len(wanted) == len(slides)
    for name, (params, suffix) in slides.items():
        found = find_row(wanted, name, f"/data/{name}{suffix}")
        assert found is not None
        assert override(TissueParams(preset="tcga"), found).clam_row() == params.clam_row()


def test_the_list_has_clams_columns_and_words(tmp_path: Path) -> None:
    path = tmp_path / "process_list.csv"
    rows = [
        row("b", "failed", reason="failed_seg: level 0 is too large"),
        row("d", "failed", reason="broken"),
        row("a"),
        row("c", "no_tissue"),
    ]
    write_process_list(str(path), rows, dict.fromkeys("abcd", TissueParams(preset="tcga")))
    with path.open() as file:
        records = list(csv.DictReader(file))
    assert [(r["slide_id"], r["process"], r["status"]) for r in records] == [
        ("a.svs", "0", "processed"),
        ("b.svs", "1", "failed_seg"),
        ("c.svs", "0", "processed"),
        ("d.svs", "1", "failed"),
    ]
    assert list(records[0])[:3] == ["slide_id", "process", "status"]
    assert set(TissueParams.model_fields) - {"preset"} <= set(records[0])
    first = records[0]
    assert (first["keep_ids"], first["sthresh"], float(first["a_t"])) == ("none", "8", 16)


def test_only_rows_marked_for_processing_are_read(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text(
        "slide_id,process,sthresh\n007,1,12\nb.svs,0,12\nc.svs,1.0,13.0\nd.svs,True,\ne.svs,0.0,\n"
    )
    wanted = read_process_list(str(path))
    assert set(wanted) == {"007", "c.svs", "d.svs"}
    found = find_row(wanted, "c", "/data/c.svs")
    assert found is not None
    assert override(TissueParams(), found).sthresh == 13
    assert find_row(wanted, "b", "/data/b.svs") is None
    assert find_row(wanted, "007", "/data/x.svs") is wanted["007"]


def test_without_the_column_every_row_is_processed(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("slide_id\na.svs\nb.svs\n")
    assert set(read_process_list(str(path))) == {"a.svs", "b.svs"}


def test_an_id_goes_before_a_file_name() -> None:
    wanted = {"x.svs": {"slide_id": "x.svs"}, "one": {"slide_id": "one"}}
    assert find_row(wanted, "one", "/data/x.svs") is wanted["one"]
    assert find_row(wanted, "two", "/data/x.svs") is wanted["x.svs"]


def test_slides_of_the_same_file_name_keep_their_own_parameters(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    rows = [
        row("p1", "failed", uri="/data/p1/slide.svs"),
        row("p2", "failed", uri="/data/p2/slide.svs"),
    ]
    params = {"p1": TissueParams(sthresh=1), "p2": TissueParams(sthresh=2)}
    write_process_list(str(path), rows, params)
    wanted = read_process_list(str(path))
    for slide in rows:
        found = find_row(wanted, slide.slide_id, slide.uri)
        assert found is not None
        assert override(TissueParams(), found).sthresh == params[slide.slide_id].sthresh


def test_a_list_without_slide_ids_names_the_columns_it_has(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("slide,process\na.svs,1\n")
    with pytest.raises(
        ConfigError, match=r"--process-list .*list\.csv: needs the column slide_id; found: slide, p"
    ):
        read_process_list(str(path))
