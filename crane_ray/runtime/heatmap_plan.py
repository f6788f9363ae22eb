"""What a heatmap job is to do: which networks, which features, which slides. Imports no ray."""

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field

from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.errors import StoreError
from crane_ray.maps.bags import BagPlace
from crane_ray.maps.folder import FORMAT_VERSION, HeadTask, MapsHeader
from crane_ray.maps.slide_maps import MapTask, MapWork
from crane_ray.mil.sources import FeatureSource
from crane_ray.runtime.heatmap_inputs import (
    Networks,
    bag_places,
    choose_features,
    load_networks,
    require_fit,
)
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.heatmap_slides import choose_slides, held_out_folds
from crane_ray.slides.workspace import SlideRow, Workspace


@dataclass
class Plan:
    """What a job is to do."""

    header: MapsHeader
    work: MapWork
    tasks: dict[str, MapTask]
    """By slide_id."""
    failed: dict[str, str] = field(default_factory=dict)
    """Slides that were asked for and cannot be mapped, with the reason."""
    notes: list[str] = field(default_factory=list)
    """What a person should know before it starts."""


def make_plan(job: HeatmapJob) -> Plan:
    """Networks, features and slides of a job, found and held against each other.

    Raises:
        ConfigError: they do not fit together, or there is nothing to do.
        StoreError: the workspace or a store cannot be used.
    """
    networks = load_networks(job)
    rows = _workspace_rows(job)
    source = choose_features(job, networks)
    require_fit(networks, source)
    places = bag_places(source)
    wanted, notes = choose_slides(job, rows, places)
    folds = {slide_id: tuple(networks.paths) for slide_id in wanted}
    if job.held_out:
        folds, left = held_out_folds(job, networks, wanted)
        notes += left
    work = MapWork(
        root=job.folder,
        checkpoints=dict(networks.paths),
        fingerprints=networks.fingerprints,
        settings=job.maps,
        reader=job.reader,
        staging=job.staging,
    )
    plan = Plan(_header(job, networks, source), work, {}, notes=notes)
    for slide_id, own in folds.items():
        bare = bare_slide_id(slide_id)
        row, place = rows.get(bare), places.get(bare)
        if row is None or row.width_px is None or row.height_px is None:
            plan.failed[slide_id] = _no_row(job, row)
        elif place is None:
            plan.failed[slide_id] = f"no features of it in {source.root}; extract it first"
        else:
            plan.tasks[row.slide_id] = _task(job, row, place, own, _work_fingerprint(plan, own))
    return plan


def _workspace_rows(job: HeatmapJob) -> dict[str, SlideRow]:
    rows = Workspace(job.work).read_slides()
    if not rows:
        raise StoreError(
            f"workspace {job.work}: no slides.parquet, which says where slides are and how large; "
            "run crane-ray patch, or crane-ray import coords where CLAM or TRIDENT patched them"
        )
    return {bare_slide_id(slide_id): row for slide_id, row in rows.items()}


def _no_row(job: HeatmapJob, row: SlideRow | None) -> str:
    if row is not None:
        return f"it could not be opened when it was patched: {row.reason}"
    return (
        f"it has features, and is not in {Workspace(job.work).slides_table}; run crane-ray patch "
        "or crane-ray import coords with this slide"
    )


def _header(job: HeatmapJob, networks: Networks, source: FeatureSource) -> MapsHeader:
    return MapsHeader(
        model=job.model,
        checkpoints={str(fold): name for fold, name in networks.fingerprints.items()},
        tasks=tuple(
            HeadTask(name=task.name, classes=task.classes) for task in networks.first.tasks
        ),
        heads=networks.first.network.heads,
        features=source.root,
        recipe_fingerprint=str(source.provenance().get("recipe_fingerprint", "")),
        dense=job.dense.overlap > 0,
        cmap=job.maps.cmap,
    )


def _work_fingerprint(plan: Plan, folds: Collection[int]) -> str:
    """Of the networks that look at a slide and of what is made of it."""
    parts = (
        FORMAT_VERSION,
        {fold: plan.work.fingerprints[fold] for fold in folds},
        plan.header.recipe_fingerprint,
        plan.work.settings.canonical_json(),
        plan.work.reader,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _task(
    job: HeatmapJob, row: SlideRow, place: BagPlace, folds: tuple[int, ...], fingerprint: str
) -> MapTask:
    workspace = Workspace(job.work)
    assert row.width_px is not None
    assert row.height_px is not None
    return MapTask(
        slide_id=row.slide_id,
        uri=row.uri,
        case_id=row.case_id,
        mpp=row.mpp,
        dimensions=(row.width_px, row.height_px),
        folds=folds,
        bag=place,
        patches=workspace.patches(row.slide_id),
        contours=workspace.contours(row.slide_id),
        work_fingerprint=fingerprint,
    )
