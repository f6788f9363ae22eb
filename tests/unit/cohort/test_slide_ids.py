import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.cohort.slide_ids import bare_slide_id, spelling_key, undo_floats, whole_number


@pytest.mark.parametrize(
    ("slide_id", "bare"),
    [
        ("TCGA-1.svs", "TCGA-1"),
        ("TCGA-1.SVS", "TCGA-1"),
        ("a.ndpi", "a"),
        ("a.h5", "a"),
        ("a.pt", "a"),
        ("a.zarr", "a"),
        ("TCGA-4A-01Z-00-DX2.45011BF1-FED8", "TCGA-4A-01Z-00-DX2.45011BF1-FED8"),
        ("v1.2", "v1.2"),
        (".svs", ".svs"),
        ("a.svs.h5", "a.svs"),
        ("", ""),
    ],
)
def test_one_known_extension_goes(slide_id: str, bare: str) -> None:
    assert bare_slide_id(slide_id) == bare


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="aB1-_ .", min_size=1))
def test_an_id_and_its_file_are_one_slide(slide_id: str) -> None:
    if bare_slide_id(slide_id) == slide_id and not slide_id.startswith("."):
        assert bare_slide_id(slide_id + ".tif") == slide_id


@pytest.mark.parametrize("other", ["no cell", "No_Cell", "NO-CELL", " no  cell ", "no - cell"])
def test_variants_are_spelled_alike(other: str) -> None:
    assert spelling_key(other) == spelling_key("no_cell")


@pytest.mark.parametrize(
    ("one", "other"), [("P1-11", "P11-1"), ("-1", "1"), ("grade -1", "grade 1"), ("HER2-", "HER2+")]
)
def test_different_things_are_not(one: str, other: str) -> None:
    assert spelling_key(one) != spelling_key(other)


def test_floats_of_pandas_are_whole_numbers_again() -> None:
    assert [whole_number(text) for text in ("1.0", "-2.00", "1.5", "v1.0", "")] == [
        "1", "-2", "1.5", "v1.0", "",
    ]  # fmt: skip
    assert undo_floats(["1.0", "", "12.0"]) == ["1", "", "12"]
    assert undo_floats(["1.0", "1.5"]) == ["1.0", "1.5"]
