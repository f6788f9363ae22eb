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
from crane_ray.errors import CraneError
from crane_ray.maps.attending import Attention, attend
from crane_ray.maps.bags import BagPlace, open_bag, patch_width
from crane_ray.maps.folder import MapRow, MapsFolder
from crane_ray.maps.percentiles import percentiles
from crane_ray.maps.scores import SlideScores, write_clam_scores, write_scores
from crane_ray.maps.settings import MapSettings
from crane_ray.mil.checkpoints import Checkpoint, load_checkpoint
from crane_ray.slides.planning import failure_reason
from crane_ray.slides.staging import StagingConfig

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


def map_slide(task: MapTask, work: MapWork) -> MapRow:
    """Scores, CLAM's files, pictures, regions and galleries of a slide, written; its row.

    A slide that fails ends as a row with the reason. Its scores stay where only its pixels
    cannot be had.

    Raises:
        StorageError: the folder cannot be written, for this slide as for any other.
    """
    begun = time.perf_counter()
    row = MapRow(task.slide_id, task.uri, "failed", task.case_id)
    done = ""
    try:
        clear_slide(MapsFolder(work.root), task.slide_id)
        scores, attention = score_slide(task, work)
        row = replace(row, num_patches=len(scores), predictions=predictions_json(attention))
        write_score_files(scores, work)
        done = "its scores are there, its pictures are not: "
        draw_slide(task, scores, work)
        row = replace(row, status="ok", fingerprint=task.fingerprint())
    except Exception as error:
        if storage.is_fatal(error):
            raise
        if not isinstance(error, CraneError):
            log.exception("slide %s", task.slide_id)
        row = replace(row, reason=done + failure_reason(task.slide_id, error))
    return replace(row, seconds=round(time.perf_counter() - begun, 3))


def score_slide(task: MapTask, work: MapWork) -> tuple[SlideScores, Attention]:
    """The scores of a slide's patches, and what the networks say of the slide.

    The latter is always of the patches that a diagnosis is made of, never of overlapping ones.

    Raises:
        CraneError: its features cannot be read, or do not fit the networks.
    """
    networks = work.networks(task.folds)
    reference = None
    if task.reference is not None:
        with open_bag(task.reference) as bag:
            reference = attend(networks, bag.features)
    with open_bag(task.bag) as bag:
        mass_FH = reference.mass_FH if reference else None
        found = attend(networks, bag.features, mass_FH=mass_FH)
        bag.require_coordinates(f"features {task.bag.store or task.bag.h5}")
        width = patch_width(bag, task.patches, task.slide_id)
        xy = np.array(bag.xy, dtype=np.int32)
    among_HR = (reference or found).raw_HN
    ranked_HN = np.stack(
        [percentiles(one, among) for one, among in zip(found.raw_HN, among_HR, strict=True)]
    )
    scores = SlideScores(
        slide_id=task.slide_id,
        heads=found.heads,
        xy=xy,
        raw_HN=found.raw_HN,
        percentile_HN=ranked_HN.astype(np.float32),
        footprint_px=width,
        dimensions=task.dimensions,
        mpp=task.mpp,
    )
    return scores, reference or found


def predictions_json(attention: Attention) -> str:
    """The probabilities of each task's classes as a row of the index holds them."""
    found = attention.probabilities.items()
    return json.dumps({task: [round(float(p), 6) for p in values] for task, values in found})


def write_score_files(scores: SlideScores, work: MapWork) -> None:
    """Writes the scores of all heads, and CLAM's files where asked for.

    Raises:
        StorageError: they cannot be written.
    """
    folder = MapsFolder(work.root)
    write_scores(folder.scores(scores.slide_id), scores)
    for head in scores.heads if work.settings.clam_scores else ():
        write_clam_scores(folder.clam_scores(scores.slide_id, head), scores, head)


def draw_slide(task: MapTask, scores: SlideScores, work: MapWork) -> None:
    """Writes pictures, regions and galleries of a slide."""


def clear_slide(folder: MapsFolder, slide_id: str) -> None:
    """Removes what earlier runs made of a slide, which may have had other settings.

    Raises:
        StorageError: it cannot be removed.
    """
    storage.remove_tree(folder.scores(slide_id))
    for kind in ("clam", "pictures", "regions", "patches"):
        storage.remove_tree(storage.join(folder.root, kind, slide_id))
