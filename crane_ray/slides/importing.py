"""Coordinates that CLAM or TRIDENT made, into a workspace: files to slides, and each slide's grid.

Plain Python without Ray.
"""

import hashlib
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from crane_ray import storage
from crane_ray.errors import ConfigError, CraneError, ScaleError, SlideError
from crane_ray.slides.listing import Entry
from crane_ray.slides.opening import open_staged
from crane_ray.slides.patch_files import ForeignPatches, read_foreign_patches, write_patches
from crane_ray.slides.patches import PatchGeometry, PatchGrid, PatchSpec, patch_geometry
from crane_ray.slides.planning import failure_reason, known_mpp, with_facts
from crane_ray.slides.scale import GivenScale
from crane_ray.slides.slide import Slide, SlideInfo, scale_of
from crane_ray.slides.staging import StagingConfig
from crane_ray.slides.workspace import SlideRow, Workspace

log = logging.getLogger(__name__)

SUFFIX = "_patches"
"""What TRIDENT puts behind a slide's name."""
SAME_LEVEL = 0.01
"""A level this close to TRIDENT's downsample (relative) is read as it is, without resampling."""


@dataclass(frozen=True)
class Match:
    """A slide and the file with its coordinates; or why there is no such pair."""

    slide_id: str
    path: str
    entry: Entry | None = None
    problem: str = ""


def list_patch_files(folder: str) -> list[str]:
    """The h5 files in a folder, or in its ``patches``.

    Raises:
        ConfigError: there are none.
    """
    for place in (storage.join(folder, "patches"), folder):
        files = storage.list_files(place, ".h5")
        if files:
            return files
    raise ConfigError(
        f"--from {folder}: no .h5 files in it or in its patches/; give CLAM's results folder or "
        "one of TRIDENT's (JOB_DIR/20x_256px_0px_overlap)"
    )


def match_files(files: Iterable[str], entries: Sequence[Entry]) -> list[Match]:
    """Each file with its slide: the one of its name, with or without ending and ``_patches``.

    A name as it is wins over one with something taken off. A file that fits no slide or several,
    and a slide that has several files, are matches with a problem.
    """
    places = [_by_name((entry.slide_id, entry) for entry in entries)]
    places.append(_by_name((PurePosixPath(entry.uri).name, entry) for entry in entries))
    places.append(_by_name((PurePosixPath(entry.uri).stem, entry) for entry in entries))
    matches: dict[str, list[Match]] = {}
    for path in sorted(files):
        match = _match(path, places)
        matches.setdefault(match.slide_id, []).append(match)
    once = []
    for same in (matches[name] for name in sorted(matches)):
        paths = ", ".join(match.path for match in same)
        problem = f"several files for it ({paths}); keep one" if len(same) > 1 else ""
        once.append(replace(same[0], problem=same[0].problem or problem))
    return once


def _by_name(pairs: Iterable[tuple[str, Entry]]) -> dict[str, list[Entry]]:
    places: dict[str, list[Entry]] = {}
    for name, entry in pairs:
        places.setdefault(name, []).append(entry)
    return places


def _match(path: str, places: Sequence[dict[str, list[Entry]]]) -> Match:
    stem = PurePosixPath(path).name.removesuffix(".h5")
    for name in dict.fromkeys((stem, stem.removesuffix(SUFFIX))):
        for place in places:
            found = place.get(name, [])
            if len(found) == 1:
                return Match(found[0].slide_id, path, found[0], found[0].problem)
            if found:
                ids = ", ".join(entry.slide_id for entry in found)
                return Match(stem, path, problem=f"{path} fits several slides ({ids}); rename it")
    return Match(stem, path, problem=f"no slide for {path} among --slides")


def decide_spec(found: ForeignPatches, given: GivenScale, what: str) -> PatchSpec:
    """The patch spec of a workspace whose coordinates are like those of one file.

    Raises:
        ConfigError: the file does not say the scale (TRIDENT's magnification is none), and
            neither does the user.
    """
    if found.grid is not None and given == GivenScale():
        return found.grid.spec
    if found.magnification is not None:
        what += f" (TRIDENT's, {found.magnification:g}x)"
    return given.spec(size_px=found.size_px, level=found.level, step_px=found.step_px, what=what)


def foreign_grid(
    found: ForeignPatches, slide: Slide, info: SlideInfo, spec: PatchSpec
) -> PatchGrid:
    """A file's coordinates as the patches of a slide.

    CLAM's patches are read at their level. TRIDENT's cover patch_size_level0: they are read from
    the level that is theirs within a hundredth, else from the next finer one, and resampled.

    Raises:
        ScaleError: they have another scale than the spec, or the slide's is not known.
        SlideError: they were made on another slide.
    """
    _require_same_slide(found, info)
    mpp = scale_of(slide, info) if spec.mpp is not None else known_mpp(slide, info)
    if found.grid is not None:
        if found.grid.spec != spec:
            raise ScaleError(
                f"its patches have the spec {found.grid.spec.canonical_json()}, the others "
                f"{spec.canonical_json()}; import them into another --work"
            )
        grid = replace(found.grid, slide_id=slide.slide_id, mpp=mpp)
    else:
        geometry = _geometry(found, info, spec)
        if spec.mpp is not None:
            assert mpp is not None
            _require_mpp(mpp * geometry.footprint_xy[0] / spec.size_px, spec)
        grid = PatchGrid(slide.slide_id, spec, geometry, found.xy, mpp)
    _require_on_slide(grid, info)
    return grid


def _geometry(found: ForeignPatches, info: SlideInfo, spec: PatchSpec) -> PatchGeometry:
    """How the file's own patches are read; in level mode it must be how the spec's are."""
    if found.footprint_px is None:
        own = PatchSpec(size_px=found.size_px, level=found.level)
        geometry = patch_geometry(own, info, None)
    else:
        geometry = _read_at_best_level(found.footprint_px, found.size_px, info)
    if spec.level is not None:
        asked = patch_geometry(spec, info, None)
        if (asked.footprint_xy, spec.size_px) != (geometry.footprint_xy, found.size_px):
            raise ScaleError(
                f"its patches are {found.size_px} px wide and cover {geometry.footprint_xy[0]:g} "
                f"level-0 px; {spec.size_px} px of level {spec.level} are {asked.footprint_xy[0]:g}"
                "; slides of different magnification go together with --mpp"
            )
        return asked
    ratio = spec.step / spec.size_px
    width, height = geometry.footprint_xy
    return replace(geometry, step_xy=(width * ratio, height * ratio))


def _read_at_best_level(footprint: float, size_px: int, info: SlideInfo) -> PatchGeometry:
    downsample = footprint / size_px
    near = [
        level
        for level, own in enumerate(info.level_downsamples)
        if abs(own / downsample - 1) <= SAME_LEVEL
    ]
    level = near[0] if near else info.best_level(downsample)
    read_size = size_px if near else max(1, round(footprint / info.level_downsamples[level]))
    return PatchGeometry(level, read_size, (footprint, footprint), (footprint, footprint))


def _require_mpp(found: float, spec: PatchSpec) -> None:
    assert spec.mpp is not None
    if abs(found / spec.mpp - 1) > spec.mpp_tolerance:
        raise ScaleError(
            f"its patches have {found:.4g} um/px, not {spec.mpp:g} within "
            f"{spec.mpp_tolerance:.0%}; give its true mpp in a slide table, the --mpp that the "
            "patches have, or more room with --set scale.mpp_tolerance"
        )


def _require_same_slide(found: ForeignPatches, info: SlideInfo) -> None:
    level = found.level or 0
    if found.level_dimensions is None or level >= info.num_levels:
        return
    there = info.level_dimensions[level]
    if found.level_dimensions != there:
        width, height = found.level_dimensions
        raise SlideError(
            f"its coordinates were made on a slide of {width} x {height} px at level {level}, "
            f"this one has {there[0]} x {there[1]}; it is another slide or another export of it"
        )


def _require_on_slide(grid: PatchGrid, info: SlideInfo) -> None:
    off = ((grid.xy >= info.dimensions) | (grid.xy + grid.geometry.footprint_xy <= 0)).any(axis=1)
    if off.any():
        raise SlideError(
            f"{int(off.sum())} of its {len(grid)} patches lie off the slide "
            f"({info.dimensions[0]} x {info.dimensions[1]} px): it is another slide, or they are "
            "not in level-0 px"
        )


def import_coords(
    match: Match,
    spec: PatchSpec,
    workspace: Workspace,
    known: str | None = None,
    *,
    staging: StagingConfig,
    reader: str,
) -> SlideRow | None:
    """Writes one slide's coordinates into a workspace; the slide's row, whatever came of it.

    Args:
        match: the slide and its file; one without a slide has no row to get.
        spec: of all patches in the workspace.
        workspace: where to.
        known: the plan_fingerprint of the slide's row there: where nothing changed since,
            nothing is done, and None comes back.
        staging: how slides of far storage come to the node.
        reader: see `crane_ray.slides.opening.open_slide`.

    Raises:
        StorageError: the workspace cannot be written, for this slide as for any other.
    """
    begun = time.perf_counter()
    entry = match.entry
    assert entry is not None
    row = SlideRow(match.slide_id, entry.uri, "failed", case_id=entry.case_id)
    try:
        if match.problem:
            raise SlideError(match.problem)
        plan = _fingerprint(match, entry, spec)
        if plan == known and storage.exists(workspace.patches(row.slide_id)):
            return None
        row = replace(row, plan_fingerprint=plan)
        found = read_foreign_patches(match.path)
        slide = Slide(entry.slide_id, entry.uri, entry.case_id, entry.mpp)
        with open_staged(slide, staging, reader) as (local, opened):
            row = with_facts(row, opened, local)
            grid = foreign_grid(found, slide, opened.info, spec)
            row = _write(row, grid, opened.info, workspace, match.path)
    except Exception as error:
        if storage.is_fatal(error):
            raise
        if not isinstance(error, CraneError):
            log.exception("slide %s", match.slide_id)
        row = replace(row, status="failed", reason=failure_reason(match.slide_id, error))
    return replace(row, seconds=round(time.perf_counter() - begun, 3))


def _write(
    row: SlideRow, grid: PatchGrid, info: SlideInfo, workspace: Workspace, source: str
) -> SlideRow:
    """The row of a slide whose patches are written; none is an outcome, too."""
    path = workspace.patches(row.slide_id)
    if not len(grid):
        storage.remove_tree(path)
        reason = f"no coordinates in {source}"
        return replace(row, status="no_tissue", num_patches=0, reason=reason)
    write_patches(path, grid, info, save_path=path.rsplit("/", 1)[0])
    return replace(
        row,
        status="ok",
        mpp=row.mpp if grid.mpp is None else grid.mpp,
        num_patches=len(grid),
        coords_checksum=grid.checksum(),
        spec_fingerprint=grid.spec.fingerprint(),
    )


def _fingerprint(match: Match, entry: Entry, spec: PatchSpec) -> str:
    digest = hashlib.sha256(storage.read_bytes(match.path))
    digest.update(repr(("imported", entry.uri, entry.mpp, spec.canonical_json())).encode())
    return digest.hexdigest()[:16]
