"""A locked test set: cases that no fold trains or stops on, the same for every split drawn."""

import csv
import io
from collections.abc import Mapping, Sequence

from crane_ray import storage
from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.findings import counted, some
from crane_ray.cohort.folds import draw_locked
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.cohort.strata import Strata
from crane_ray.errors import ConfigError

LOCKED_FILE = "locked_test.csv"
"""Beside the splits, so that other splits can be drawn with the same locked set."""


def lock_test(
    given: str,
    cohort: Cohort,
    strata: Strata,
    *,
    seed: int,
    sites: Mapping[str, str] | None,
) -> list[int]:
    """The locked cases, as places in the strata's case_ids.

    Args:
        given: a fraction (``0.2``), or a file of case or slide ids, one a line (the first column
            of a CSV; a header case_id or slide_id is skipped). A slide locks its whole case.
        cohort: the labelled slides.
        strata: the cases.
        seed: for a fraction.
        sites: each case's site, where a fraction is to take whole sites.

    Raises:
        ConfigError: the fraction is impossible, the file unreadable, or an id unknown.
        StorageError: the storage fails.
    """
    if not is_fraction(given):
        return _named(given, cohort, strata)
    fraction = float(given)
    if not 0 < fraction < 1:
        raise ConfigError(f"--locked-test {given}: a fraction is between 0 and 1, or give a file")
    return draw_locked(strata, fraction, seed, sites)


def is_fraction(given: str) -> bool:
    """True for a number (0.2), false for the name of a file."""
    try:
        float(given)
    except ValueError:
        return False
    return True


def locked_text(case_ids: Sequence[str]) -> str:
    """The content of the file that names the locked cases."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case_id"])
    writer.writerows([case] for case in sorted(case_ids))
    return text.getvalue()


def _named(path: str, cohort: Cohort, strata: Strata) -> list[int]:
    if storage.kind_of(path) != "file":
        raise ConfigError(
            f"--locked-test {path}: neither a fraction such as 0.2 nor a file of case or slide ids"
        )
    try:
        text = storage.read_bytes(path).decode("utf-8-sig")
        rows = csv.reader(io.StringIO(text, newline=""))
        ids = [row[0].strip() for row in rows if row and row[0].strip()]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"--locked-test {path}: not a readable file of ids: {error}") from error
    if ids and ids[0] in {"case_id", "slide_id"}:
        ids = ids[1:]
    place_of = {case: place for place, case in enumerate(strata.case_ids)}
    case_of = dict(zip(cohort.slide_ids, cohort.case_ids, strict=True))
    cases = {one: one if one in place_of else case_of.get(bare_slide_id(one)) for one in ids}
    unknown = [one for one, case in cases.items() if case is None]
    if unknown or not ids:
        what = f"{counted(len(unknown), 'id')} unknown ({some(unknown)})" if ids else "no id in it"
        raise ConfigError(
            f"--locked-test {path}: {what}; it should name cases or slides of the label table, "
            f"such as {strata.case_ids[0]}"
        )
    locked = sorted({place_of[case] for case in cases.values() if case is not None})
    if len(locked) == len(strata.case_ids):
        raise ConfigError(f"--locked-test {path}: names every case; nothing is left to train on")
    return locked
