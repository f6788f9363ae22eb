"""Memory while one slide of 1,000,000 patches goes through the pipeline.

The slide is simulated: its pixels are constant, its encoder free, its features short. What is left
is what a slide of that many patches costs: coordinates, shards, buffers, receipts.
"""

import argparse
import json
import tempfile
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crane_ray.features.commits import Books
from crane_ray.features.extraction import Output
from crane_ray.features.ledger import Receipt
from crane_ray.features.pipeline import ExtractionPipeline
from crane_ray.features.recipe import Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.slides.handles import OpenSlides
from crane_ray.slides.patch_files import write_patches
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import Slide, SlideInfo, SlideReader
from crane_ray.slides.workspace import SlideRow, Workspace
from tests.benchmarks.simulated import NoEncoder
from tests.benchmarks.table import Options, Row, in_process, memory_mb

SPEC = PatchSpec(size_px=16, level=0)
ACROSS = 1000
DIM = 8
MAX_GROWTH_MB = 100
"""Of the peak after the first tenth of the slide; its coordinates are 16 bytes a patch."""
SHARDS_AHEAD = 6


class Blank:
    """A slide of one colour."""

    name = "blank"

    def __init__(self, info: SlideInfo) -> None:
        self.info = info

    def read_region(
        self, xy: tuple[int, int], level: int, size: tuple[int, int]
    ) -> npt.NDArray[np.uint8]:
        """Constant pixels."""
        return np.full((size[1], size[0], 3), 200, dtype=np.uint8)

    def read_regions(self, xy: Any, level: int, out: Any) -> None:
        """The same for many."""
        out[:] = 200

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class BlankSlides(OpenSlides):
    """Opens blank slides whatever is asked for."""

    def __init__(self, info: SlideInfo) -> None:
        super().__init__()
        self._info = info

    def _open_reader(self, slide: Slide) -> SlideReader:
        return Blank(self._info)


def measure(options: Options) -> list[Row]:
    """One row."""
    patches = 100_000 if options.quick else 1_000_000
    found = json.loads(in_process("tests.benchmarks.one_slide", "--patches", str(patches)))
    growth = found["end_mb"] - found["tenth_mb"]
    return [
        Row(
            f"one slide of {patches:,} patches",
            growth,
            "MB of growth",
            f"<= {MAX_GROWTH_MB} MB after a tenth",
            growth <= MAX_GROWTH_MB,
            note=f"peak {found['end_mb']:.0f} MB, imports {found['imports_mb']:.0f}, "
            f"{patches / found['cpu_s']:,.0f} patches/CPU-s",
        )
    ]


def extract(root: Path, patches: int) -> dict[str, float]:
    """Peaks of this process, in MB, before, after a tenth and at the end."""
    found = {"imports_mb": memory_mb()}
    began = time.process_time()
    size = (ACROSS * SPEC.size_px, patches // ACROSS * SPEC.size_px)
    info = SlideInfo("blank", (size,), (1.0,))
    books, store = _plan(root, info, patches)
    waiting: deque[Future[list[Receipt]]] = deque()
    done = 0

    def take() -> None:
        nonlocal done
        (receipt,) = waiting.popleft().result()
        assert receipt.status == "ok", receipt.error
        books.take(receipt)
        done += receipt.rows
        if done >= patches / 10:
            found.setdefault("tenth_mb", memory_mb())

    with ExtractionPipeline(
        [Output(store, NoEncoder(DIM))], batch_size=256, decode_threads=1, slides=BlankSlides(info)
    ) as pipeline:
        for shard in books.missing_shards():
            waiting.append(pipeline.submit(shard))
            if len(waiting) > SHARDS_AHEAD:
                take()
        while waiting:
            take()
    books.flush()
    assert done == patches
    assert books.done == {"large"}
    return {**found, "end_mb": memory_mb(), "cpu_s": time.process_time() - began}


def _plan(root: Path, info: SlideInfo, patches: int) -> tuple[Books, FeatureStore]:
    number = np.arange(patches)
    xy = np.stack([number // (patches // ACROSS), number % (patches // ACROSS)], axis=1)
    grid = PatchGrid("large", SPEC, patch_geometry(SPEC, info, None), xy * SPEC.size_px)
    workspace = Workspace(str(root))
    write_patches(workspace.patches("large"), grid, info, "")
    row = SlideRow(
        "large",
        str(root / "large.tif"),
        "ok",
        num_patches=patches,
        spec_fingerprint=SPEC.fingerprint(),
        coords_checksum=grid.checksum(),
    )
    recipe = Recipe(patch=SPEC, encoder=NoEncoder(DIM).info, dtype="float16")
    store = FeatureStore.open_or_create(str(root / "store"), recipe)
    return Books(store, workspace, {"large": row}), store


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--patches", type=int, required=True)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(extract(Path(folder), given.patches)))


if __name__ == "__main__":
    main()
