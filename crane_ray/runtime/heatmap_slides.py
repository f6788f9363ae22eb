"""Which slides a heatmap job is about, and which networks look at each. No ray here."""

import difflib
from collections.abc import Collection, Mapping

from crane_ray import storage
from crane_ray.cohort.findings import counted, some
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.cohort.splits import read_splits
from crane_ray.errors import ConfigError
from crane_ray.maps.bags import BagPlace
from crane_ray.runtime.heatmap_inputs import Networks
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.slides.listing import read_table
from crane_ray.slides.workspace import SlideRow


def choose_slides(
    job: HeatmapJob, rows: Mapping[str, SlideRow], places: Mapping[str, BagPlace]
) -> tuple[list[str], list[str]]:
    """The slides that a job is about, sorted, and what is to be said of others.

    Raises:
        ConfigError: a slide that is named is in neither workspace nor features; or there is none.
    """
    named = {*job.slides, *(_listed(job.slides_of) if job.slides_of else ())}
    known = {*rows, *places}
    unknown = sorted(one for one in named if bare_slide_id(one) not in known)
    if unknown:
        raise ConfigError(
            f"--slide, --slides-of: {counted(len(unknown), 'slide')} neither in workspace "
            f"{job.work} nor among the features: {some(unknown)}; {_near(unknown[0], known)}"
        )
    if named:
        return sorted({bare_slide_id(one) for one in named}), []
    without = sorted(name for name, row in rows.items() if name not in places and row.num_patches)
    notes = []
    if without:
        notes.append(
            f"{counted(len(without), 'slide')} of the workspace without features, and so without "
            f"maps: {some(without)}"
        )
    if not places:
        raise ConfigError("--features: no slide is finished there; run crane-ray extract first")
    return sorted(places), notes


def _near(slide_id: str, known: Collection[str]) -> str:
    """What may have been meant, else what there is."""
    longer = [name for name in sorted(known) if slide_id.casefold() in name.casefold()]
    near = longer[:3] or difflib.get_close_matches(slide_id, known, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {some(sorted(known))}"


def _listed(path: str) -> list[str]:
    """The slide ids in a table."""
    if storage.kind_of(path) != "file":
        raise ConfigError(f"--slides-of {path}: no such file; a CSV or Parquet table is needed")
    table = read_table(path)
    if "slide_id" not in table.columns:
        raise ConfigError(
            f"--slides-of {path}: no column slide_id; it has {', '.join(map(str, table.columns))}"
        )
    names = (str(name).strip() for name in table["slide_id"].dropna())
    return [name for name in names if name]


def held_out_folds(
    job: HeatmapJob, networks: Networks, wanted: Collection[str]
) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """For each slide the folds that it was held out of, and what is to be said of others.

    Raises:
        ConfigError: the model has no splits, or no slide was held out.
    """
    if storage.kind_of(job.model) != "folder":
        raise ConfigError(
            f"--held-out: {job.model} is one checkpoint, and which slides it did not learn from is "
            "not known; give the folder of its run, where splits_0.csv, ... are"
        )
    try:
        splits = read_splits(job.model, networks.paths)
    except ConfigError as error:
        raise ConfigError(f"--held-out: {error}") from None
    found = {
        slide_id: tuple(fold for fold, split in splits.items() if slide_id in split.test)
        for slide_id in wanted
    }
    held = {slide_id: folds for slide_id, folds in found.items() if folds}
    left = [slide_id for slide_id in wanted if slide_id not in held]
    if not held:
        raise ConfigError(
            f"--held-out: none of {counted(len(left), 'slide')} is in the test part of a fold of "
            f"{job.model} ({some(left)}); leave out --held-out for slides of another cohort"
        )
    if not left:
        return held, []
    return held, [
        f"{counted(len(left), 'slide')} in no test part, and with --held-out without maps: "
        f"{some(left)}"
    ]
