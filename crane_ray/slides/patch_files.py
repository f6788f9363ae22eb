"""Patch files: ours, ``patches/{slide_id}.h5`` with CLAM's attributes, and those of other tools.

CLAM's attributes on ``coords`` are patch_size and patch_level (a patch is so many pixels of that
level), downsample, level_dim. TRIDENT's are patch_size (what the encoder gets) and
patch_size_level0 (what that covers in level-0 px), overlap, target_magnification,
level0_magnification, level0_width and level0_height. Coordinates are level-0 px in all of them.
"""

import io
from dataclasses import dataclass
from typing import Any, Literal

import h5py
import numpy as np

from crane_ray import storage
from crane_ray.errors import SlideError
from crane_ray.slides.patches import PatchGeometry, PatchGrid, PatchSpec, Points
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
        return _grid(slide_id, *_read(path))
    except FileNotFoundError as error:
        raise SlideError(
            f"slide {slide_id}: no patches at {path}; run crane-ray patch first"
        ) from error
    except (OSError, KeyError, ValueError) as error:
        raise SlideError(f"slide {slide_id}: patches {path} cannot be used: {error}") from error


@dataclass(frozen=True)
class ForeignPatches:
    """The coordinates of one slide as a tool left them, before they are matched to the slide."""

    tool: Literal["clam", "trident", "crane-ray"]
    xy: Points
    """(N, 2) int64, level-0 px."""
    size_px: int
    """TRIDENT: pixels of a patch as it is encoded; CLAM: as it is read at its level."""
    level: int | None = None
    """CLAM: the pyramid level."""
    footprint_px: float | None = None
    """TRIDENT: width and height of a patch in level-0 px."""
    step_px: int | None = None
    """Distance of neighbouring patches in patch pixels, where the file says it."""
    magnification: float | None = None
    """TRIDENT: what the scale is called; no resolution."""
    level_dimensions: tuple[int, int] | None = None
    """Width and height of the level (TRIDENT: of level 0) of the slide that they were made on."""
    grid: PatchGrid | None = None
    """Of a file of ours: all of it."""


def read_foreign_patches(path: str) -> ForeignPatches:
    """The coordinates in a patch file of CLAM's, TRIDENT's or ours.

    Raises:
        SlideError: the file is broken, or says neither how CLAM nor how TRIDENT places patches.
    """
    try:
        xy, attributes = _read(path)
        if "spec" in attributes:
            grid = _grid("", xy, attributes)
            spec = grid.spec
            return ForeignPatches(
                "crane-ray", xy, spec.size_px, spec.level, step_px=spec.step_px, grid=grid
            )
        return _foreign(xy, attributes)
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise SlideError(f"{path} cannot be used: {error}") from error


def _read(path: str) -> tuple[Points, dict[str, Any]]:
    with storage.open_read(path) as raw, h5py.File(raw, "r") as file:
        coords = file["coords"]
        if coords.ndim != 2 or coords.shape[1] != 2:
            raise ValueError(f"coords of shape {coords.shape}; (N, 2) is needed")
        found = np.asarray(coords[:])
        xy = found.astype(np.int64)
        if (xy != found).any():
            raise ValueError("coords are not whole numbers of level-0 px")
        return xy, dict(coords.attrs)


def _foreign(xy: Points, attributes: dict[str, Any]) -> ForeignPatches:
    size = int(attributes["patch_size"])
    footprint = _footprint(attributes, size)
    if footprint is None:
        level = attributes.get("patch_level")
        if level is None:
            raise ValueError(
                "coords have neither patch_level (CLAM) nor patch_size_level0 (TRIDENT) among "
                f"their attributes: {', '.join(sorted(attributes)) or 'none'}"
            )
        made_on = attributes.get("level_dim")
        dimensions = None if made_on is None else _pair(made_on)
        return ForeignPatches("clam", xy, size, int(level), level_dimensions=dimensions)
    overlap = int(attributes.get("overlap", 0))
    sides = [attributes.get(f"level0_{side}") for side in ("width", "height")]
    return ForeignPatches(
        "trident",
        xy,
        size,
        footprint_px=footprint,
        step_px=size - overlap if overlap else None,
        magnification=float(attributes.get("target_magnification", 0)) or None,
        level_dimensions=None if None in sides else _pair(sides),
    )


def _footprint(attributes: dict[str, Any], size: int) -> float | None:
    """Level-0 px of a patch of TRIDENT's; None where it is not TRIDENT's."""
    footprint = attributes.get("patch_size_level0")
    keys = ("level0_magnification", "target_magnification")
    if footprint is None and all(key in attributes for key in keys):
        from_power, to_power = (float(attributes[key]) for key in keys)
        footprint = round(size * from_power / to_power)
    if footprint is None:
        return None
    if not float(footprint) > 0:
        raise ValueError(f"patch_size_level0 is {footprint}")
    return float(footprint)


def _pair(values: Any) -> tuple[int, int]:
    width, height = np.asarray(values, dtype=np.int64).tolist()
    return width, height


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
