"""Small slides, patches and stores, and an encoder whose features are plain arithmetic."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crane_ray.features.commits import Books
from crane_ray.features.encoder import EncoderInfo, Features, PatchEncoder
from crane_ray.features.extraction import Output, Shard
from crane_ray.features.ledger import Receipt
from crane_ray.features.pipeline import ExtractionPipeline
from crane_ray.features.recipe import FeatureType, Recipe
from crane_ray.features.store import FeatureStore, StoreHeader
from crane_ray.slides.handles import OpenSlides
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patch_files import write_patches
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import Slide
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.testing.pyramids import write_pyramid

SPEC = PatchSpec(size_px=64, level=0)
SIDE_PX = 512
CHUNK_ROWS, SHARD_ROWS = 4, 8
NUM_PATCHES = 21
"""Three shards, the last of one chunk and a part of one."""
INFO = EncoderInfo(
    name="quadrants",
    dim=12,
    input_size_px=64,
    mean=(0, 0, 0),
    std=(1, 1, 1),
    precision="fp32",
    weights="none",
    weights_sha256="0",
)


class Quadrants:
    """Mean colour of each quadrant of a patch, in [0, 1]."""

    info = INFO

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        batch, side = len(pixels), pixels.shape[1] // 2
        means = pixels.reshape(batch, 2, side, 2, side, 3).mean(axis=(2, 4)) / 255
        return np.asarray(means.reshape(batch, 12), dtype=np.float32)


def make_recipe(spec: PatchSpec = SPEC, dtype: FeatureType = "float32") -> Recipe:
    return Recipe(patch=spec, encoder=INFO, dtype=dtype)


def make_store(root: Path, dtype: FeatureType = "float32") -> FeatureStore:
    """A store with shards of eight rows."""
    recipe = make_recipe(dtype=dtype)
    header = StoreHeader(
        layout="zarr",
        chunk_rows=CHUNK_ROWS,
        shard_rows=SHARD_ROWS,
        recipe=recipe,
        recipe_fingerprint=recipe.fingerprint(),
    )
    root.mkdir(parents=True, exist_ok=True)
    (root / "store.json").write_text(header.model_dump_json())
    return FeatureStore.open(str(root))


@dataclass
class Cohort:
    """Slides on disk with their patch files, and a store for their features."""

    workspace: Workspace
    rows: dict[str, SlideRow]
    store: FeatureStore

    def books(self, *, replace_stale: bool = False) -> Books:
        return Books(self.store, self.workspace, self.rows, replace_stale=replace_stale)

    def shards(self, slide_id: str | None = None) -> list[Shard]:
        shards = list(self.books().missing_shards())
        return [shard for shard in shards if slide_id in (None, shard.slide_id)]

    def patch(self, slide_id: str, num_patches: int = NUM_PATCHES, offset: int = 0) -> None:
        """Places a slide's patches (anew)."""
        row = self.rows[slide_id]
        with open_slide(Slide(slide_id, row.uri)) as reader:
            geometry = patch_geometry(SPEC, reader.info, None)
            places = np.arange(num_patches)
            xy = np.stack([places % 7 * 64 + offset, places // 7 * 70 + offset], axis=1)
            grid = PatchGrid(slide_id, SPEC, geometry, xy.astype(np.int64))
            write_patches(self.workspace.patches(slide_id), grid, reader.info, "")
        self.rows[slide_id] = replace(
            row, num_patches=num_patches, coords_checksum=grid.checksum(), status="ok"
        )


def make_cohort(root: Path, num_slides: int = 2, dtype: FeatureType = "float32") -> Cohort:
    """Slides a, b, ... of 512 px noise, patched."""
    cohort = Cohort(Workspace(str(root)), {}, make_store(root / "features", dtype))
    for number in range(num_slides):
        slide_id = "abcdefgh"[number]
        rng = np.random.default_rng(number)
        image = rng.integers(0, 256, (SIDE_PX // 8, SIDE_PX // 8, 3), dtype=np.uint8)
        image = image.repeat(8, axis=0).repeat(8, axis=1)
        path = root / "slides_in" / f"{slide_id}.tif"
        path.parent.mkdir(exist_ok=True)
        write_pyramid(path, image, mpp=0.5, tile_px=64)
        cohort.rows[slide_id] = SlideRow(
            slide_id,
            str(path),
            "ok",
            case_id=f"case {slide_id}",
            mpp=0.5,
            spec_fingerprint=SPEC.fingerprint(),
        )
        cohort.patch(slide_id)
    return cohort


def pipeline(
    cohort: Cohort,
    *encoders: PatchEncoder,
    batch_size: int = 3,
    threads: int = 2,
    reader: str = "openslide",
) -> ExtractionPipeline:
    """With the reader of most formats, whose handles repeat their first error."""
    return ExtractionPipeline(
        [Output(cohort.store, encoder) for encoder in encoders or (Quadrants(),)],
        batch_size=batch_size,
        decode_threads=threads,
        slides=OpenSlides(reader=reader),
        run_id="run",
    )


def fake_receipt(shard: Shard, status: str = "ok", **fields: object) -> Receipt:
    """A receipt as an extractor would write it, without any features."""
    receipt = Receipt(
        shard.slide_id,
        shard.shard,
        "ok" if status == "ok" else "error",
        shard.num_patches,
        shard.coords_checksum,
        rows=SHARD_ROWS,
        checksum=f"{shard.slide_id}{shard.shard}{shard.coords_checksum}",
        attempt=shard.attempt,
        host="h",
        error="" if status == "ok" else status,
        written=f"2025-01-01T00:00:0{shard.shard}.000+00:00",
    )
    return replace(receipt, **fields)  # type: ignore[arg-type]


def files_below(folder: str | Path) -> dict[str, bytes]:
    root = Path(folder)
    files = (file for file in root.rglob("*") if file.is_file())
    return {file.relative_to(root).as_posix(): file.read_bytes() for file in files}
