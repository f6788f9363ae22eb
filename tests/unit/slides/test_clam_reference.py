from functools import cache
from pathlib import Path

import numpy as np
import pytest

from crane_ray.slides.opening import open_slide
from crane_ray.slides.params import TissueParams
from crane_ray.slides.patches import PatchSpec, plan_patches
from crane_ray.slides.segmenters.saturation import segment
from crane_ray.slides.slide import Slide, SlideInfo
from crane_ray.slides.tissue import TissueContours

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
NUM_REFERENCES = 30
SLIDES = {"CMU-1-Small-Region": "CMU-1-Small-Region.svs", "biopsy_mosaic": "biopsy_mosaic.tif"}
PRESETS = {
    "otsu": TissueParams(sthresh=8, mthresh=7, close=4, use_otsu=True, a_t=1, a_h=1, max_n_holes=8),
    "fine_holes": TissueParams(sthresh=15, mthresh=7, close=2, a_t=1, a_h=0, max_n_holes=8),
    **{name: TissueParams(preset=name) for name in ("default", "bwh_biopsy", "tcga")},
}


def parse(name: str) -> tuple[str, TissueParams, PatchSpec]:
    """Slide, parameters and patches that a reference's name stands for."""
    slide, preset, rule, level, size, step, padding = name.split("__")
    values = {"contour_fn": rule, "use_padding": padding == "pad"}
    spec = PatchSpec(
        level=int(level.removeprefix("L")),
        size_px=int(size.removesuffix("px")),
        step_px=int(step.removeprefix("step")),
    )
    return slide, PRESETS[preset].model_copy(update=values), spec


REFERENCES = sorted((DATA / "clam_coords").glob("*.csv"))

pytestmark = pytest.mark.skipif(
    not REFERENCES, reason="no coordinates made with CLAM in ../shared/data/clam_coords"
)


@cache
def tissue_of(slide: str, params_json: str) -> tuple[TissueContours, SlideInfo]:
    """Tissue of a slide; many references share one segmentation."""
    path = DATA / "slides" / SLIDES[slide]
    with open_slide(Slide(slide, str(path))) as reader:
        return segment(reader, TissueParams.model_validate_json(params_json)), reader.info


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_coordinates_are_clams_row_for_row(path: Path) -> None:
    slide, params, spec = parse(path.stem)
    without_rule = params.model_copy(update={"contour_fn": "four_pt", "use_padding": True})
    tissue, info = tissue_of(slide, without_rule.model_dump_json())
    rows = [[int(cell) for cell in line.split(",")] for line in path.read_text().split()[1:]]
    grid = plan_patches(tissue, info, spec, params)
    np.testing.assert_array_equal(grid.xy, np.array(rows, dtype=np.int64).reshape(-1, 2))


def test_no_reference_is_missing() -> None:
    assert len(REFERENCES) == NUM_REFERENCES
    num_rows = [len(path.read_text().splitlines()) - 1 for path in REFERENCES]
    assert sum(num_rows) > 10_000
    assert num_rows.count(0) == 3
