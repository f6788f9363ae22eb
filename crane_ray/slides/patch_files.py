"""CLAM's patch files: ``patches/{slide_id}.h5`` with coordinates and how to read them."""

import io
from typing import Any

import h5py
import numpy as np

from crane_ray import storage
from crane_ray.errors import SlideError
from crane_ray.slides.patches import PatchGeometry, PatchGrid, PatchSpec
from crane_ray.slides.slide import SlideInfo


def write_patches(path: str, grid: PatchGrid, info: SlideInfo, save_path: str) -> None:
    """Writes a grid as CLAM's file, whole or not at all.

    ``coords`` is (N, 2) int64, level-0 px of the top-left corners. ``patch_size`` is what
    is read at ``patch_level``, so that CLAM's own scripts see the same tissue; ``size_px`` and
    the other attributes of ours say what it is resampled to.
    """
    level = grid.geometry.read_level
    attributes: dict[str, Any] = {
        "patch_size": grid.geometry.read_size_px,
        "patch_level": level,
        "downsample": info.downsample_xy(level),
        "downsampled_level_dim": info.level_dimensions[level],
        "level_dim": info.level_dimensions[level],
        "name": grid.slide_id,
        "save_path": save_path,
        "size_px": grid.spec.size_px,
        "read_size_px": grid.geometry.read_size_px,
        "footprint_xy": grid.geometry.footprint_xy,
        "step_xy": grid.geometry.step_xy,
        "spec": grid.spec.canonical_json(),
        "spec_fingerprint": grid.spec.fingerprint(),
    }
    if grid.mpp is not None:
        attributes["mpp"] = grid.mpp
    if grid.spec.mpp is not None:
        attributes["target_mpp"] = grid.spec.mpp
    # In memory: on a full disk HDF5 raises no OSError and crashes the process at its end.
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        coords = file.create_dataset("coords", data=grid.xy.astype(np.int64))
        for key, value in attributes.items():
            coords.attrs[key] = value
    storage.put_bytes(path, content.getvalue())


def read_patches(path: str, slide_id: str) -> PatchGrid:
    """The grid in a patch file, of ours or CLAM's own (level mode, then).

    Raises:
        SlideError: the file is missing, cut short, or lacks what is needed.
    """
    try:
        with storage.open_read(path) as raw, h5py.File(raw, "r") as file:
            coords = file["coords"]
            if coords.ndim != 2 or coords.shape[1] != 2:
                raise ValueError(f"coords of shape {coords.shape}; (N, 2) is needed")
            xy = np.asarray(coords[:], dtype=np.int64)
            attributes = dict(coords.attrs)
        return _grid(slide_id, xy, attributes)
    except FileNotFoundError as error:
        raise SlideError(
            f"slide {slide_id}: no patches at {path}; run crane-ray patch first"
        ) from error
    except (OSError, KeyError, ValueError) as error:
        raise SlideError(f"slide {slide_id}: patches {path} cannot be used: {error}") from error


def _grid(slide_id: str, xy: Any, attributes: dict[str, Any]) -> PatchGrid:
    level, read_size = int(attributes["patch_level"]), int(attributes["patch_size"])
    if "spec" not in attributes:
        given = attributes["downsample"] if level else attributes.get("downsample", 1)
        down_x, down_y = np.broadcast_to(np.asarray(given), 2)
        footprint = (read_size * int(down_x), read_size * int(down_y))
        geometry = PatchGeometry(level, read_size, footprint, footprint)
        return PatchGrid(slide_id, PatchSpec(size_px=read_size, level=level), geometry, xy)
    footprint_x, footprint_y = attributes["footprint_xy"].tolist()
    step_x, step_y = attributes["step_xy"].tolist()
    geometry = PatchGeometry(level, read_size, (footprint_x, footprint_y), (step_x, step_y))
    spec = PatchSpec.model_validate_json(attributes["spec"])
    mpp = float(attributes["mpp"]) if "mpp" in attributes else None
    return PatchGrid(slide_id, spec, geometry, xy, mpp)
