"""Seconds and memory of the maps of one very large slide, from its stored scores.

The slide is a real pyramid of 100,000 x 80,000 px with levels of downsample 4, 16 and 32, whose
tiles repeat; its 120,000 patches are scored by three heads. Maps are made in a process of their
own: three pictures at the default size, regions, and six galleries of 15 patches.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from crane_ray.maps.colours import shown_values
from crane_ray.maps.folder import MapsFolder
from crane_ray.maps.percentiles import percentiles
from crane_ray.maps.raster import MapPainter
from crane_ray.maps.scores import SlideScores, read_scores, write_scores
from crane_ray.maps.settings import MapSettings
from crane_ray.maps.writing import make_maps
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import Slide
from crane_ray.slides.tissue import TissueContour, TissueContours
from tests.benchmarks.table import Options, Row, in_process, memory_mb
from tests.unit.maps.slides import paint_one_by_one

SIZE_PX = (100_000, 80_000)
DOWNSAMPLES = (1, 4, 16, 32)
PATCH_PX, TILE_PX = 256, 256
HEADS = ("cell", "amr", "quilty")
MPP = 0.25
MAX_S, MAX_MB = 30, 2000
PYRAMID_ROWS_PX = 4096
"""Height of the part whose pyramid is made at level 0: memory has stopped growing by then."""


def measure(options: Options) -> list[Row]:
    """Seconds of the maps, their memory, and the memory of a pyramid at level 0."""
    patches = 20_000 if options.quick else 120_000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_cohort(root, patches)
        found = {
            way: json.loads(in_process("tests.benchmarks.maps", "--root", folder, "--way", way))
            for way in ("maps", "background", "one by one", "pyramid")
        }
    maps, pyramid = found["maps"], found["pyramid"]
    seconds = maps["seconds"]
    return [
        Row(
            f"maps of {patches:,} patches, {len(HEADS)} heads",
            seconds,
            "s",
            f"<= {MAX_S} s, <= {MAX_MB} MB",
            seconds <= MAX_S and maps["peak_mb"] <= MAX_MB,
            comparator=found["one by one"]["seconds"],
            floor=found["background"]["seconds"],
            ratio=found["one by one"]["seconds"] / seconds,
            note=f"peak {maps['peak_mb']:.0f} MB, imports {maps['imports_mb']:.0f}; of it "
            + ", ".join(f"{name} {value:.1f} s" for name, value in maps["parts"].items()),
        ),
        Row(
            "pyramid of a map at level 0",
            pyramid["peak_mb"],
            "MB",
            f"<= {MAX_MB} MB",
            pyramid["peak_mb"] <= MAX_MB,
            note=f"{len(HEADS) * SIZE_PX[0] * PYRAMID_ROWS_PX / 1e6 / pyramid['seconds']:.0f} "
            "million px/s",
        ),
    ]


def write_cohort(root: Path, patches: int) -> None:
    """The slide and its scores."""
    write_large_slide(root / "large.tif")
    number = np.arange(patches)
    down = SIZE_PX[1] // PATCH_PX
    xy = np.stack([number // down, number % down], axis=1).astype(np.int32) * PATCH_PX
    assert xy.max(axis=0)[0] < SIZE_PX[0]
    generator = np.random.default_rng(0)
    raw = generator.normal(size=(len(HEADS), patches)) + np.sin(xy / 9000).sum(axis=1)
    ranked = np.stack([percentiles(row) for row in raw])
    scores = SlideScores(
        "large",
        HEADS,
        xy,
        raw.astype(np.float32),
        ranked.astype(np.float32),
        PATCH_PX,
        SIZE_PX,
        MPP,
    )
    write_scores(str(root / "large.parquet"), scores)


def write_large_slide(path: Path) -> None:
    """A pyramid whose tiles repeat a few, encoded once."""
    generator = np.random.default_rng(0)
    tiles = []
    for _ in range(4):
        coarse = generator.integers(140, 230, (TILE_PX // 8, TILE_PX // 8, 3), dtype=np.uint8)
        tile = coarse.repeat(8, axis=0).repeat(8, axis=1)
        tiles.append(bytes(imagecodecs.jpeg8_encode(tile, 40, subsampling="420")))

    def repeated(count: int) -> Iterator[bytes]:
        for number in range(count):
            yield tiles[number % len(tiles)]

    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for downsample in DOWNSAMPLES:
            width, height = (side // downsample for side in SIZE_PX)
            tiff.write(
                repeated(-(-width // TILE_PX) * -(-height // TILE_PX)),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="ycbcr",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=int(downsample > 1),
                resolution=(1e4 / MPP / downsample, 1e4 / MPP / downsample),
                resolutionunit="CENTIMETER",
                metadata=None,
                software=False,
            )


def large_tissue() -> TissueContours:
    """All of the slide but a round hole, with as many vertices as segmentation finds."""
    turn = np.linspace(0, 2 * np.pi, 6000, endpoint=False)
    around = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    middle = np.array(SIZE_PX) / 2
    outline = (middle + around * middle * 0.99).astype(np.int32)
    return TissueContours((TissueContour(outline, ((middle + around * 9000).astype(np.int32),)),))


def run(root: Path, way: str) -> dict[str, object]:
    """Seconds and peak of this process for one way."""
    imports_mb = memory_mb()
    began = time.perf_counter()
    parts: dict[str, float] = {}
    scores = read_scores(str(root / "large.parquet"))
    with open_slide(Slide("large", str(root / "large.tif"))) as reader:
        if way == "background":
            painter = MapPainter(scores, MapSettings(), reader, None)
            for row in painter.windows():
                for window in row:
                    painter.paint(None, window)
        elif way == "one by one":
            painter = MapPainter(scores, MapSettings(), reader, None)
            width, height = painter.canvas.dimensions
            slide = painter.paint(None, (0, 0, width, height))
            for head in scores.heads:
                values = shown_values(scores, head, MapSettings())
                paint_one_by_one(slide, painter.canvas.scale_xy, scores, values)
        else:
            for name, settings in settings_of(way).items():
                start = time.perf_counter()
                spec = PatchSpec(size_px=PATCH_PX, level=0)
                geometry = patch_geometry(spec, reader.info, None)
                grid = PatchGrid("large", spec, geometry, scores.xy.astype(np.int64), MPP)
                make_maps(
                    scores,
                    MapsFolder(str(root / "out")),
                    settings,
                    reader=reader,
                    tissue=large_tissue(),
                    grid=grid,
                )
                parts[name] = time.perf_counter() - start
    seconds = parts.get("all", time.perf_counter() - began)
    return {"seconds": seconds, "parts": parts, "imports_mb": imports_mb, "peak_mb": memory_mb()}


def settings_of(way: str) -> dict[str, MapSettings]:
    """What is made, by a name; ``all`` is what counts."""
    if way == "pyramid":
        part = (0, 0, SIZE_PX[0], PYRAMID_ROWS_PX)
        return {
            "all": MapSettings(formats=("tif",), vis_level=0, roi=part, samples=(), geojson=False)
        }
    return {
        "all": MapSettings(),
        "pictures": MapSettings(samples=(), geojson=False),
        "pictures and regions": MapSettings(samples=()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--way", required=True)
    given = parser.parse_args()
    print(json.dumps(run(given.root, given.way)))


if __name__ == "__main__":
    main()
