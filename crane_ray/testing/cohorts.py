"""Synthetic cohorts: slides, the tables of a study, and the truth, in one folder.

::

    cohort.json               what the slides were painted with
    slides.csv                slide_id, uri (relative to this folder), case_id, mpp
    labels.csv                case_id, slide_id, label_cell, label_amr, label_quilty, label_grade
    slides/{slide_id}.tif
    truth/{slide_id}.geojson  tissue and lesions, level-0 px
"""

import csv
import io
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.testing.histology import paint_slide
from crane_ray.testing.lesions import Diagnosis
from crane_ray.testing.pyramids import is_whole_pyramid, write_pyramid
from crane_ray.testing.truth import SlideTruth, read_truth, write_truth

logger = logging.getLogger(__name__)

PAINT_VERSION = 1
"""Raised whenever the same seed paints other pixels than before."""

DIAGNOSES = (
    Diagnosis(),
    Diagnosis(cell=True, quilty=True, grade="low"),
    Diagnosis(amr=True, grade="high"),
    Diagnosis(cell=True, grade="high"),
    Diagnosis(quilty=True),
    Diagnosis(amr=True, grade="low"),
    Diagnosis(cell=True, grade="low"),
    Diagnosis(amr=True, quilty=True, grade="high"),
    Diagnosis(cell=True, amr=True, grade="low"),
    Diagnosis(cell=True, quilty=True, grade="high"),
    Diagnosis(amr=True, quilty=True, grade="low"),
    Diagnosis(cell=True, amr=True, grade="high"),
    Diagnosis(cell=True, amr=True, quilty=True, grade="low"),
    Diagnosis(cell=True, amr=True, quilty=True, grade="high"),
)
"""The diagnoses of successive cases, over and over: CRANE's 14 strata, in an order in which the
first three cases show both classes of every task."""

_JPEG_QUALITY = 90
"""At 80, chroma that bleeds into glass costs the smallest level up to 14 % of tissue's IoU with
a saturation threshold of 8; at 90 it is below 10 %."""

_SLIDES_OF_CASES = (1, 1, 2)
"""How many slides successive cases have, over and over."""


@dataclass(frozen=True)
class SyntheticSlide:
    """One slide of a synthetic cohort."""

    slide_id: str
    case_id: str
    path: Path
    truth_path: Path
    diagnosis: Diagnosis

    def read_truth(self) -> SlideTruth:
        """What is painted where."""
        return read_truth(self.truth_path)


@dataclass(frozen=True)
class SyntheticCohort:
    """A folder of synthetic slides with their tables."""

    folder: Path
    slides: tuple[SyntheticSlide, ...]
    mpp: float

    @property
    def slides_csv(self) -> Path:
        """The slide table."""
        return self.folder / "slides.csv"

    @property
    def labels_csv(self) -> Path:
        """The label table, with CRANE's columns and classes."""
        return self.folder / "labels.csv"


def make_cohort(
    folder: Path | str,
    *,
    num_slides: int = 6,
    size_px: tuple[int, int] = (4096, 3072),
    mpp: float = 0.5,
    seed: int = 0,
) -> SyntheticCohort:
    """A cohort on disk; slides that are there whole are kept, so that a rerun costs nothing.

    A slide depends on the seed and its own index alone: a longer cohort begins with the very
    same slides. The tables name exactly the slides asked for.

    Args:
        folder: where; made if it is missing.
        num_slides: how many; every third case has two of them.
        size_px: (width, height) of each slide.
        mpp: um/px of each slide.
        seed: of everything painted.

    Raises:
        ConfigError: the folder holds a cohort painted with other arguments, or the slides are
            too small for their lesions.
    """
    folder = Path(folder)
    _claim(folder, {"version": PAINT_VERSION, "size_px": [*size_px], "mpp": mpp, "seed": seed})
    cohort = SyntheticCohort(folder, tuple(_slide(folder, i) for i in range(num_slides)), mpp)
    for index, slide in enumerate(cohort.slides):
        if slide.truth_path.exists() and is_whole_pyramid(slide.path, size_px):
            continue
        logger.info("painting %s (%d of %d)", slide.slide_id, index + 1, num_slides)
        rng = np.random.default_rng([seed, index])
        painted = paint_slide(rng, size_px=size_px, mpp=mpp, diagnosis=slide.diagnosis)
        # The truth comes first: where a slide is, its truth is too.
        write_truth(slide.truth_path, painted.truth)
        write_pyramid(slide.path, painted.image, mpp=mpp, quality=_JPEG_QUALITY)
    _write_tables(cohort)
    return cohort


def _slide(folder: Path, index: int) -> SyntheticSlide:
    case_of_slides = [case for case, num in enumerate(_SLIDES_OF_CASES) for _ in range(num)]
    rounds, rest = divmod(index, len(case_of_slides))
    case = rounds * len(_SLIDES_OF_CASES) + case_of_slides[rest]
    slide_id = f"slide_{index:04d}"
    return SyntheticSlide(
        slide_id=slide_id,
        case_id=f"case_{case:04d}",
        path=folder / "slides" / f"{slide_id}.tif",
        truth_path=folder / "truth" / f"{slide_id}.geojson",
        diagnosis=DIAGNOSES[case % len(DIAGNOSES)],
    )


def _claim(folder: Path, recipe: dict[str, object]) -> None:
    """Notes what the folder's slides are painted with; refuses a folder of other slides."""
    note = folder / "cohort.json"
    if note.exists():
        found = json.loads(storage.read_bytes(str(note)))
        if found != recipe:
            raise ConfigError(
                f"{folder}: holds a synthetic cohort of {found}, not of {recipe}; "
                "choose another folder or remove this one"
            )
        return
    storage.put_bytes(str(note), json.dumps(recipe).encode())


def _write_tables(cohort: SyntheticCohort) -> None:
    slides = cohort.slides
    uris = [slide.path.relative_to(cohort.folder).as_posix() for slide in slides]
    rows: Iterable[tuple[object, ...]] = (
        (slide.slide_id, uri, slide.case_id, cohort.mpp)
        for slide, uri in zip(slides, uris, strict=True)
    )
    _write_csv(cohort.slides_csv, ("slide_id", "uri", "case_id", "mpp"), rows)
    columns = ("case_id", "slide_id", "label_cell", "label_amr", "label_quilty", "label_grade")
    rows = ((slide.case_id, slide.slide_id, *_labels(slide.diagnosis)) for slide in slides)
    _write_csv(cohort.labels_csv, columns, rows)


def _labels(diagnosis: Diagnosis) -> tuple[str, str, str, str]:
    return (
        "cell" if diagnosis.cell else "no_cell",
        "amr" if diagnosis.amr else "no_amr",
        "quilty" if diagnosis.quilty else "no_quilty",
        diagnosis.grade or "",
    )


def _write_csv(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    storage.put_bytes(str(path), text.getvalue().encode())
