"""A cohort of one picture under many names, and encoders that do nothing or only take time."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crane_ray.features.commits import Books
from crane_ray.features.encoder import EncoderInfo, Features
from crane_ray.features.encoding import Pending, Pixels
from crane_ray.features.recipe import Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.slides.opening import open_slide
from crane_ray.slides.patch_files import write_patches
from crane_ray.slides.patches import PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.slide import Slide
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.testing.slide_formats import SlideFormat, write_slide

PATCH_PX = 256
SPEC = PatchSpec(size_px=PATCH_PX, level=0)


def encoder_info(dim: int = 1024) -> EncoderInfo:
    """An encoder that exists nowhere else."""
    return EncoderInfo(
        name="simulated",
        dim=dim,
        input_size_px=PATCH_PX,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        precision="fp32",
        weights="none",
        weights_sha256="0",
    )


def write_picture(path: Path, size_px: tuple[int, int]) -> Path:
    """A slide of 256 px JPEG tiles (Q80, 4:2:0, about 15 KB each)."""
    from tests.benchmarks.readers import texture  # which loads torch

    return write_slide(path, texture(size_px), SlideFormat())


@dataclass(frozen=True)
class Cohort:
    """Slides, all of them the same file, with so many patches each; and a store."""

    workspace: Workspace
    rows: dict[str, SlideRow]
    store: FeatureStore

    def books(self) -> Books:
        """What is to do."""
        return Books(self.store, self.workspace, self.rows)


def make_cohort(root: Path, picture: Path, patches: list[int], dim: int = 1024) -> Cohort:
    """A workspace in which slides have the first so many patches of the picture's tiles."""
    workspace, rows = Workspace(str(root)), {}
    with open_slide(Slide("picture", str(picture))) as reader:
        info = reader.info
    across, down = info.dimensions[0] // PATCH_PX, info.dimensions[1] // PATCH_PX
    places = np.stack(np.meshgrid(np.arange(across), np.arange(down), indexing="ij"), axis=-1)
    xy = places.reshape(-1, 2).astype(np.int64) * PATCH_PX
    geometry = patch_geometry(SPEC, info, None)
    for number, count in enumerate(patches):
        assert count <= len(xy), f"the picture has {len(xy)} tiles, {count} asked for"
        slide_id = f"slide-{number:04d}"
        grid = PatchGrid(slide_id, SPEC, geometry, xy[:count])
        write_patches(workspace.patches(slide_id), grid, info, "")
        rows[slide_id] = SlideRow(
            slide_id,
            str(picture),
            "ok",
            num_patches=count,
            spec_fingerprint=SPEC.fingerprint(),
            coords_checksum=grid.checksum(),
        )
    recipe = Recipe(patch=SPEC, encoder=encoder_info(dim), dtype="float16")
    return Cohort(workspace, rows, FeatureStore.open_or_create(str(root / "store"), recipe))


class NoEncoder:
    """Features that are all the same, at no cost."""

    def __init__(self, dim: int = 1024) -> None:
        self.info = encoder_info(dim)

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """(B, D) zeros."""
        return np.zeros((len(pixels), self.info.dim), dtype=np.float32)


class SimulatedGPU:
    """A device that takes one batch after the other, so many patches a second."""

    def __init__(self, rate: float, dim: int = 1024) -> None:
        self.info = encoder_info(dim)
        self.busy_s = 0.0
        self.began_s: float | None = None
        """When the first batch came (`time.perf_counter`): start-up is not counted."""
        self.free_s = 0.0
        """When the device is done with what it has."""
        self._rate = rate
        self._lock = threading.Lock()

    def encode(self, pixels: npt.NDArray[np.uint8]) -> Features:
        """(B, D) zeros, in due time."""
        return self.start(pixels).result()

    def buffer(self, shape: tuple[int, ...]) -> Pixels:
        """Plain memory."""
        return np.zeros(shape, dtype=np.uint8)

    def start(self, pixels: Pixels) -> Pending:
        """Queues a batch behind those that the device has."""
        now, takes = time.perf_counter(), len(pixels) / self._rate
        with self._lock:
            if self.began_s is None:
                self.began_s = now
            self.free_s = max(now, self.free_s) + takes
            self.busy_s += takes
            return Due(self.free_s, np.zeros((len(pixels), self.info.dim), dtype=np.float32))

    @property
    def busy_share(self) -> float:
        """Of the time from the first batch's coming to the last one's end."""
        assert self.began_s is not None
        return self.busy_s / (self.free_s - self.began_s)


@dataclass(frozen=True)
class Due:
    """Features that are there at a time."""

    at_s: float
    features: Features

    def result(self) -> Features:
        """Waits for it, as for a device, without using the CPU."""
        time.sleep(max(0.0, self.at_s - time.perf_counter()))
        return self.features
