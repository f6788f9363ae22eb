"""The maps of one slide, start to end: read, score, write, draw, and say how it went."""

import functools
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from crane_ray import storage
from crane_ray.config import Config
from crane_ray.errors import CraneError, SlideError
from crane_ray.maps.attending import Attention, attend
from crane_ray.maps.bags import BagPlace, grid_of, open_bag
from crane_ray.maps.folder import MapRow, MapsFolder
from crane_ray.maps.percentiles import percentiles
from crane_ray.maps.scores import SlideScores
from crane_ray.maps.settings import MapSettings
from crane_ray.maps.writing import make_maps
from crane_ray.mil.checkpoints import Checkpoint, load_checkpoint
from crane_ray.slides.opening import open_staged
from crane_ray.slides.patches import PatchGrid
from crane_ray.slides.planning import failure_reason
from crane_ray.slides.slide import Slide
from crane_ray.slides.staging import StagingConfig
from crane_ray.slides.tissue import read_contours

log = logging.getLogger(__name__)


class MapTask(Config):
    """What is asked for of one slide; crosses processes as JSON."""

    slide_id: str
    uri: str
    case_id: str = ""
    mpp: float | None = None
    """um/px at level 0, as the slide was patched."""
    dimensions: tuple[int, int]
    """Width and height at level 0, px."""
    folds: tuple[int, ...]
    """Of the networks that look at it."""
    bag: BagPlace
    """The patches of the map."""
    patches: str
    """File of their coordinates."""
    contours: str
    """File of the slide's tissue; it may be missing."""
    reference: BagPlace | None = None
    """Of a dense map the patches of the coarse one, which the diagnosis is made of."""
    work_fingerprint: str = ""
    """Of what is the same for all slides."""


@dataclass(frozen=True)
class MapWork:
    """What is the same for all slides of a run."""

    root: str
    """Folder of the maps."""
    checkpoints: Mapping[int, str]
    """Of each fold."""
    fingerprints: Mapping[int, str]
    """Of their networks."""
    settings: MapSettings
    reader: str = "auto"
    staging: StagingConfig = field(default_factory=StagingConfig)

    def networks(self, folds: Sequence[int]) -> list[Checkpoint]:
        """The networks of some folds, read once a process."""
        return [_network(self.checkpoints[fold], self.fingerprints[fold]) for fold in folds]


@functools.lru_cache(maxsize=64)
def _network(path: str, fingerprint: str) -> Checkpoint:
    found = load_checkpoint(path)
    if found.fingerprint != fingerprint:
        raise CraneError(
            f"checkpoint {path}: its network is {found.fingerprint or 'unknown'} here, and was "
            f"{fingerprint} when the job began; every node must see the same file"
        )
    return found


@dataclass(frozen=True, eq=False)
class ScoredSlide:
    """What networks say of a slide."""

    scores: SlideScores
    grid: PatchGrid
    """The patches of the scores, row for row."""
    diagnosis: Attention
    """Always of the patches that a diagnosis is made of, never of overlapping ones."""


def map_slide(task: MapTask, work: MapWork) -> MapRow:
    """Scores, CLAM's files, pictures, regions and galleries of a slide, written; its row.

    A slide that fails ends as a row with the reason. Its scores and regions are written also
    where its pixels cannot be had.

    Raises:
        StorageError: the folder cannot be written, for this slide as for any other.
    """
    begun = time.perf_counter()
    row = MapRow(task.slide_id, task.uri, "failed", task.case_id)
    try:
        clear_slide(MapsFolder(work.root), task.slide_id)
        found = score_slide(task, work)
        predictions = predictions_json(found.diagnosis)
        row = replace(row, num_patches=len(found.scores), predictions=predictions)
        draw_slide(task, found, work)
        row = replace(row, status="ok", fingerprint=task.fingerprint())
    except Exception as error:
        if storage.is_fatal(error):
            raise
        if not isinstance(error, CraneError):
            log.exception("slide %s", task.slide_id)
        row = replace(row, reason=failure_reason(task.slide_id, error))
    return replace(row, seconds=round(time.perf_counter() - begun, 3))


def score_slide(task: MapTask, work: MapWork) -> ScoredSlide:
    """The scores of a slide's patches, and what the networks say of the slide.

    Raises:
        CraneError: its features cannot be read, or do not fit the networks.
    """
    networks = work.networks(task.folds)
    coarse = None
    if task.reference is not None:
        with open_bag(task.reference) as bag:
            coarse = attend(networks, bag.features)
    with open_bag(task.bag) as bag:
        found = attend(networks, bag.features, mass_FH=coarse.mass_FH if coarse else None)
        bag.require_coordinates(f"features {task.bag.store or task.bag.h5}")
        grid = grid_of(bag, task.patches, task.slide_id)
    among_HR = (coarse or found).raw_HN
    ranked_HN = np.stack(
        [percentiles(one, among) for one, among in zip(found.raw_HN, among_HR, strict=True)]
    )
    scores = SlideScores(
        slide_id=task.slide_id,
        heads=found.heads,
        xy=grid.xy.astype(np.int32),
        raw_HN=found.raw_HN,
        percentile_HN=ranked_HN.astype(np.float32),
        footprint_px=float(grid.geometry.footprint_xy[0]),
        dimensions=task.dimensions,
        mpp=task.mpp,
    )
    return ScoredSlide(scores, grid, coarse or found)


def predictions_json(attention: Attention) -> str:
    """The probabilities of each task's classes as a row of the index holds them."""
    found = attention.probabilities.items()
    return json.dumps({task: [round(float(p), 6) for p in values] for task, values in found})


def draw_slide(task: MapTask, found: ScoredSlide, work: MapWork) -> None:
    """Writes everything that is asked for of a slide, or what its pixels are not needed for.

    Raises:
        SlideError: its pixels cannot be had; scores and regions were written all the same.
        StorageError: something cannot be written.
    """
    folder, settings = MapsFolder(work.root), work.settings
    tissue = read_contours(task.contours) if storage.exists(task.contours) else None
    slide = Slide(task.slide_id, task.uri, task.case_id, task.mpp)
    try:
        with open_staged(slide, work.staging, work.reader) as (_, reader):
            make_maps(found.scores, folder, settings, reader=reader, tissue=tissue, grid=found.grid)
    except SlideError as error:
        without = {"samples": (), "save_slide": False, "blank_canvas": True}
        sized = settings.vis_level is not None or settings.map_mpp is not None
        if sized or settings.roi is not None or not settings.blank_canvas:
            # No map; levels and resolutions that the slide lacks are not to be met again.
            without |= {"formats": (), "vis_level": None, "map_mpp": None, "roi": None}
        make_maps(
            found.scores, folder, settings.model_copy(update=without), reader=None, tissue=tissue
        )
        kept = "scores and regions" if settings.geojson else "scores"
        raise SlideError(
            f"{failure_reason(task.slide_id, error)} (its {kept} are there all the same)"
        ) from error


def clear_slide(folder: MapsFolder, slide_id: str) -> None:
    """Removes what earlier runs made of a slide, which may have had other settings.

    Raises:
        StorageError: it cannot be removed.
    """
    for path in (folder.scores(slide_id), *folder.slide_folders(slide_id)):
        storage.remove_tree(path)
