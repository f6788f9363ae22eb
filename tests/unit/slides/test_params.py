from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import ConfigError
from crane_ray.slides.params import TissueParams, override, params_from_row

CLAM_CSV = (
    "seg_level,sthresh,mthresh,close,use_otsu,a_t,a_h,vis_level,line_thickness,white_thresh,"
    "black_thresh,use_padding,contour_fn,keep_ids,exclude_ids,max_n_holes\n"
    '-1,21,5,3,TRUE,2,0.5,-1,40,5,50,FALSE,center,none,"1,4",3\n'
)

IDS = st.lists(st.integers(0, 40), max_size=4, unique=True).map(tuple)
PARAMS = st.builds(
    TissueParams,
    preset=st.sampled_from(["default", "tcga", "bwh_biopsy", "bwh_resection"]),
    seg_level=st.integers(-1, 5),
    sthresh=st.integers(0, 255),
    mthresh=st.integers(0, 20).map(lambda half: 2 * half + 1),
    close=st.integers(0, 9),
    use_otsu=st.booleans(),
    a_t=st.floats(0, 500),
    a_h=st.floats(0, 50),
    max_n_holes=st.integers(0, 20),
    keep_ids=IDS,
    exclude_ids=IDS,
    contour_fn=st.sampled_from(["four_pt", "four_pt_hard", "center", "basic"]),
    use_padding=st.booleans(),
    line_thickness=st.integers(1, 300),
)


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        ("default", (-1, 8, 7, 4, False, 100, 16, 8, 250)),
        ("bwh_biopsy", (-1, 15, 11, 2, False, 1, 1, 2, 50)),
        ("bwh_resection", (-1, 15, 11, 4, False, 100, 16, 8, 150)),
        ("tcga", (-1, 8, 7, 4, False, 16, 4, 8, 100)),
    ],
)
def test_presets_are_clams(preset: str, values: tuple[Any, ...]) -> None:
    params = TissueParams(preset=preset)
    found = (params.seg_level, params.sthresh, params.mthresh, params.close, params.use_otsu,
             params.a_t, params.a_h, params.max_n_holes, params.line_thickness)  # fmt: skip
    assert found == values
    assert (params.vis_level, params.use_padding, params.contour_fn) == (-1, True, "four_pt")
    assert (params.keep_ids, params.exclude_ids) == ((), ())


def test_without_a_preset_the_defaults_are_those_of_default() -> None:
    assert TissueParams() == TissueParams(preset="default")


def test_a_value_beside_a_preset_wins() -> None:
    params = TissueParams(preset="bwh_biopsy", sthresh=20)
    assert (params.sthresh, params.mthresh) == (20, 11)


@settings(deadline=None, max_examples=50)
@given(PARAMS)
def test_a_row_of_clams_columns_gives_back_the_parameters(params: TissueParams) -> None:
    row = {key: str(value) for key, value in params.clam_row().items()}
    read = override(TissueParams(preset="bwh_resection", keep_ids=(3,)), row)
    assert read.model_copy(update={"preset": ""}) == params.model_copy(update={"preset": ""})


@settings(deadline=None, max_examples=30)
@given(PARAMS)
def test_json_gives_back_the_parameters(params: TissueParams) -> None:
    assert TissueParams.model_validate_json(params.model_dump_json()) == params
    assert TissueParams.model_validate(params.model_dump(mode="json")) == params


def test_a_preset_csv_of_clam_is_read_and_its_values_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(CLAM_CSV)
    params = TissueParams(preset=str(path), line_thickness=77)
    path.unlink()
    assert TissueParams.model_validate_json(params.model_dump_json()) == params
    assert TissueParams.load(overrides=list(params.model_dump().items())) == params
    assert params.preset == "custom"
    assert (params.sthresh, params.mthresh, params.close) == (21, 5, 3)
    assert (params.use_otsu, params.use_padding, params.contour_fn) == (True, False, "center")
    assert (params.a_t, params.a_h, params.max_n_holes) == (2, 0.5, 3)
    assert (params.keep_ids, params.exclude_ids) == ((), (1, 4))
    assert params.line_thickness == 77


def test_a_byte_order_mark_does_not_cost_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("sthresh,mthresh\n33,5\n", encoding="utf-8-sig")
    assert TissueParams(preset=str(path)).sthresh == 33


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"preset": "biopsy"}, r"'biopsy' is no preset; known: default, bwh_biopsy, .*CSV"),
        ({"preset": "gone.csv"}, r"no such preset file: gone\.csv"),
        ({"mthresh": 4}, r"mthresh: 4: an odd number is needed"),
        ({"mthresh": 0}, r"mthresh: 0: .*greater than or equal to 1"),
        ({"sthresh": 300}, r"sthresh: 300: .*less than or equal to 255"),
        ({"contour_fn": "all"}, r"contour_fn: 'all': .*'four_pt'.*'basic'"),
        ({"keep_ids": "1,x"}, r"keep_ids.*'x'"),
        ({"a_t": -1}, r"a_t: -1: .*greater than or equal to 0"),
        ({"sthres": 8}, r"sthres: unknown key; did you mean sthresh\?"),
    ],
)
def test_impossible_values_are_refused_with_what_is_allowed(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        TissueParams.load(overrides=list(values.items()))


@pytest.mark.parametrize(
    ("text", "reason"), [("", "0 found"), ("sthresh\n", "0 found"), ("sthresh\n1\n2\n", "2 found")]
)
def test_a_preset_csv_has_one_row(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=rf"mine\.csv: one row of values is expected, {reason}"):
        TissueParams.load(overrides=[("preset", str(path))])


@pytest.mark.parametrize("value", ["none", "None", "", None, []])
def test_none_names_no_contours(value: object) -> None:
    assert TissueParams.model_validate({"keep_ids": value}).keep_ids == ()


@pytest.mark.parametrize("value", ["3", " 3 ", 3, [3]])
def test_one_contour_is_named_by_its_number_alone(value: object) -> None:
    assert TissueParams.model_validate({"exclude_ids": value}).exclude_ids == (3,)


def test_a_row_changes_only_what_it_names() -> None:
    base = TissueParams(preset="tcga", keep_ids=(2,))
    row = {"slide_id": "a.svs", "process": "1", "sthresh": "12.0", "a_t": "0.50", "close": "",
           "mthresh": "nan", "status": "tbp", "exclude_ids": "none"}  # fmt: skip
    assert params_from_row(row) == {"sthresh": "12", "a_t": "0.50", "exclude_ids": "none"}
    changed = override(base, row)
    assert changed == base.model_copy(update={"sthresh": 12, "a_t": 0.5})


def test_a_row_with_an_impossible_value_names_its_slide_column_and_value() -> None:
    with pytest.raises(ConfigError) as caught:
        override(TissueParams(), {"slide_id": "a.svs", "mthresh": "8"})
    assert str(caught.value).startswith("slide a.svs: ")
    assert "mthresh: '8': an odd number is needed" in str(caught.value)
    assert "validation error" not in str(caught.value)
