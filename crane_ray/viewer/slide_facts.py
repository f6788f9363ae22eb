"""All that the page shows of one slide."""

from typing import Any

from crane_ray.errors import CraneError
from crane_ray.slides.slide import MPP_RANGE, SlideInfo
from crane_ray.slides.workspace import SlideRow
from crane_ray.viewer.catalogue import Snapshot
from crane_ray.viewer.deep_zoom import TILE_PX, DeepZoom
from crane_ray.viewer.listing import brief


def slide_facts(row: SlideRow, snapshot: Snapshot, run_name: str | None) -> dict[str, Any]:
    """What tables say of a slide; its pixels are not touched."""
    run = snapshot.run(run_name)
    diagnosis = snapshot.diagnoses.get(row.case_id or row.slide_id, [])
    return brief(row, snapshot, run) | {
        "run": run.name if run else None,
        "runs": [name for name, other in snapshot.runs.items() if other.has_maps(row.slide_id)],
        "diagnosis": [one.as_json() for one in diagnosis],
        "vendor": row.vendor,
        "power": row.power,
        "reader": row.reader,
        "size": row.size,
    }


def pixel_facts(row: SlideRow, info: SlideInfo, version: str) -> dict[str, Any]:
    """What the open slide says of itself, and how to ask for its tiles."""
    zoom = DeepZoom(info)
    mpp, why = resolution(row, info)
    return {
        "width_px": info.dimensions[0],
        "height_px": info.dimensions[1],
        "levels": info.num_levels,
        "mpp": mpp,
        "no_mpp": why,
        "power": info.objective_power or row.power,
        "vendor": info.vendor,
        "tiles": {
            "tile_px": TILE_PX,
            "min_level": zoom.min_level,
            "max_level": zoom.max_level,
            "version": version,
        },
    }


def unreadable(row: SlideRow, error: CraneError) -> dict[str, Any]:
    """What is said in place of `pixel_facts` for a slide that cannot be opened."""
    return {
        "tiles": None,
        "problem": str(error),
        "width_px": row.width_px,
        "height_px": row.height_px,
        "mpp": row.mpp,
        "no_mpp": "",
    }


def resolution(row: SlideRow, info: SlideInfo) -> tuple[float | None, str]:
    """Level-0 um/px that the scale bar may use; None, and why, where there is none to trust."""
    own = None if info.mpp_xy is None else sum(info.mpp_xy) / 2
    mpp = row.mpp if row.mpp is not None else own
    if mpp is None:
        return None, "no mpp in its metadata or in the slide table: lengths are in pixels"
    low, high = MPP_RANGE
    if not low <= mpp <= high:
        return None, f"its mpp of {mpp:.6g} um/px is impossible: lengths are in pixels"
    return mpp, ""
