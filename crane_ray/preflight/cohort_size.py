"""How many patches a cohort has: counted in its workspace, or estimated from its slides' sizes."""

from collections import Counter
from statistics import fmean

from crane_ray import storage
from crane_ray.errors import ConfigError, CraneError
from crane_ray.preflight.planning import CohortSize
from crane_ray.slides.listing import Entry, list_slides
from crane_ray.slides.opening import open_slide
from crane_ray.slides.slide import Slide, scale_of
from crane_ray.slides.workspace import Workspace


def counted_patches(work: str) -> CohortSize:
    """The patches in a workspace's slides.parquet.

    Raises:
        ConfigError: nothing was patched there.
        StoreError, StorageError: the table cannot be read.
    """
    rows = list(Workspace(work).read_slides().values())
    with_patches = [row for row in rows if row.status == "ok" and row.num_patches]
    if not with_patches:
        raise ConfigError(
            f"--work {work}: "
            + (f"none of its {len(rows):,} slides has patches" if rows else "no slides.parquet")
            + "; run crane-ray patch first, or plan from the slides themselves: --slides WHERE"
        )
    others = Counter(row.status for row in rows if row not in with_patches)
    words = f"{len(with_patches):,} slides of {work}, as crane-ray patch counted them"
    if others:
        named = ", ".join(
            f"{number:,} {status.replace('_', ' ') if status != 'ok' else 'without patches'}"
            for status, number in sorted(others.items())
        )
        words += f"; left out: {named}"
    counts = tuple(row.num_patches or 0 for row in with_patches)
    return CohortSize(counts, sum(row.size or 0 for row in with_patches), words)


def estimated_patches(source: str, *, patch_px: int, mpp: float, tissue_share: float) -> CohortSize:
    """Patches that would cover the slides (a share of them), from their sizes alone.

    Slides that are far away or cannot be opened count as the mean of the others.

    Raises:
        ConfigError: no slides there, or not one of them can be looked at.
    """
    entries = list_slides(source)
    counts: list[int] = []
    problems: list[str] = []
    size = 0
    for entry in entries:
        try:
            counts.append(max(1, round(_covering(entry, patch_px, mpp) * tissue_share)))
            size += storage.size_bytes(entry.uri)
        except CraneError as error:
            problems.append(str(error))
    if not counts:
        raise ConfigError(
            f"--slides {source}: none of its {len(entries):,} slides can be looked at "
            f"({problems[0]}); run crane-ray patch, then crane-ray plan --work WORK"
        )
    scale = 1 + len(problems) / len(counts)
    words = (
        f"an estimate for {len(entries):,} slides: {tissue_share:.0%} of each slide's area in "
        f"patches of {patch_px} px at {mpp:g} um/px, without looking for tissue"
    )
    if tissue_share == 1:
        words += (
            "; an upper limit (tissue often covers a tenth to a half: --tissue-share 0.3, or count "
            "with crane-ray patch)"
        )
    if problems:
        words += f"; {len(problems):,} could not be opened and count as the mean ({problems[0]})"
    mean = round(fmean(counts))
    return CohortSize((*counts, *[mean] * len(problems)), int(size * scale), words)


def _covering(entry: Entry, patch_px: int, mpp: float) -> float:
    """Patches that cover a whole slide."""
    if entry.problem:
        raise ConfigError(f"slide {entry.slide_id}: {entry.problem}")
    slide = Slide(entry.slide_id, entry.uri, entry.case_id, entry.mpp)
    with open_slide(slide) as reader:
        own = scale_of(slide, reader.info)
        width, height = reader.info.dimensions
    side = patch_px * mpp / own
    return (width / side) * (height / side)
