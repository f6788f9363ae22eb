"""A workspace with three small slides, as patch and heatmap leave it, made in a moment."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crane_ray.maps.folder import HeadTask, MapRow, MapsFolder, MapsHeader
from crane_ray.maps.scores import SlideScores, write_scores
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patch_files import write_patches
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import Slide
from crane_ray.slides.tissue import TissueContour, TissueContours, write_contours
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.testing.pyramids import write_pyramid

SIZE = (1536, 1100)
SMALL = (700, 500)
GOOD, ODD, BROKEN = "A 1", "B#2 50% +ä", "broken"
HEADS = ("cell", "subtype:b")
TASKS = (
    HeadTask(name="cell", classes=("no_cell", "cell")),
    HeadTask(name="subtype", classes=("a", "b", "c")),
)
PREDICTIONS = {"cell": [0.25, 0.75], "subtype": [0.2, 0.5, 0.3]}
SPEC = PatchSpec(size_px=128, level=0)
RUN = "study_s1"


def smooth_image(width: int, height: int) -> npt.NDArray[np.uint8]:
    """Colours that tell each place from every other, and that JPEG keeps."""
    y, x = np.mgrid[0:height, 0:width]
    waves = 100 + 60 * np.sin(x / 150) * np.cos(y / 110)
    return np.stack([40 + 200 * x / width, waves, 40 + 200 * y / height], axis=2).astype(np.uint8)


def make_workspace(root: Path) -> Path:
    """The workspace's folder; the slides lie outside of it."""
    work, slides = root / "work", root / "slides"
    slides.mkdir()
    good = write_pyramid(slides / "a.tif", smooth_image(*SIZE), mpp=0.5, quality=95)
    odd = write_pyramid(slides / "b.tif", smooth_image(*SMALL), mpp=None)
    broken = slides / "broken.svs"
    broken.write_bytes(b"no slide at all")
    workspace = Workspace(str(work))
    grid = write_grid(workspace, GOOD, good)
    row = SlideRow(
        GOOD, str(good), "ok", "P1", width_px=SIZE[0], height_px=SIZE[1], mpp=0.5,
        num_patches=len(grid), vendor="generic-tiff",
    )  # fmt: skip
    rows = [
        row,
        replace(row, slide_id=ODD, uri=str(odd), status="no_tissue", case_id="P2", mpp=None,
                num_patches=0, reason="no tissue was found"),
        SlideRow(BROKEN, str(broken), "failed", "P3", reason="not a slide that can be read"),
    ]  # fmt: skip
    workspace.write_slides(rows)
    make_maps(workspace, row, grid)
    return work


def write_grid(workspace: Workspace, slide_id: str, path: Path) -> PatchGrid:
    """Contours and patches: a rectangle with a hole, and a lattice of patches on it."""
    ring = np.array([[128, 128], [1408, 128], [1408, 896], [128, 896]], dtype=np.int32)
    hole = np.array([[500, 400], [600, 400], [600, 500]], dtype=np.int32)
    write_contours(workspace.contours(slide_id), TissueContours((TissueContour(ring, (hole,)),)))
    with open_slide(Slide(slide_id, str(path))) as reader:
        geometry = patch_geometry(SPEC, reader.info, None)
        places = np.mgrid[128:1408:128, 128:896:128].reshape(2, -1).T
        grid = PatchGrid(slide_id, SPEC, geometry, np.ascontiguousarray(places, dtype=np.int64))
        write_patches(workspace.patches(slide_id), grid, reader.info, str(workspace.root))
    return grid


def make_maps(workspace: Workspace, row: SlideRow, grid: PatchGrid, run: str = RUN) -> MapsFolder:
    """Two heads: one rises from left to right, the other from top to bottom."""
    folder = MapsFolder(f"{workspace.root}/heatmaps/{run}")
    header = MapsHeader(
        model=f"/results/{run}", checkpoints={"0": "f"}, tasks=TASKS, heads=HEADS,
        features="/cohort/features/uni_v1", recipe_fingerprint="r",
    )  # fmt: skip
    folder.write_header(header)
    raw = np.stack([grid.xy[:, 0] + grid.xy[:, 1] / 1e4, grid.xy[:, 1] + grid.xy[:, 0] / 1e4])
    ranks = raw.argsort(axis=1).argsort(axis=1) / raw.shape[1]
    scores = SlideScores(
        row.slide_id, HEADS, grid.xy.astype(np.int32), raw.astype(np.float32),
        ranks.astype(np.float32), grid.geometry.footprint_xy[0], SIZE, row.mpp,
    )  # fmt: skip
    write_scores(folder.scores(row.slide_id), scores)
    said = json.dumps(PREDICTIONS)
    made = [
        MapRow(row.slide_id, row.uri, "ok", num_patches=len(grid), predictions=said),
        MapRow(BROKEN, "x", "failed", reason="no features of it"),
    ]
    folder.write_index(made)
    return folder
