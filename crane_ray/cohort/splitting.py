"""The jobs of ``crane-ray splits``: draw splits of a cohort, or check somebody's."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from crane_ray import storage
from crane_ray.cohort.cohort import CaseLabel, Cohort, read_cohort
from crane_ray.cohort.drawing import (
    CLAM_SHARES,
    CRANE_SHARES,
    PARTS,
    CaseFold,
    Shares,
    draw_held_out,
    draw_monte_carlo,
)
from crane_ray.cohort.feature_ids import feature_slide_ids
from crane_ray.cohort.findings import Finding, counted, some
from crane_ray.cohort.folds import FoldPlan, draw_folds
from crane_ray.cohort.label_tables import read_label_table
from crane_ray.cohort.locked_tests import LOCKED_FILE, is_fraction, lock_test, locked_text
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.cohort.split_check import by_severity, check_parts, check_splits
from crane_ray.cohort.splits import SPLIT_FILE, Split, read_splits, split_files
from crane_ray.cohort.strata import Strata, sites_of_cases, strata_of_column, strata_of_tasks
from crane_ray.cohort.tasks import load_task_set
from crane_ray.config import Config, Flag
from crane_ray.errors import ConfigError

Method = Literal["kfold", "sites", "crane", "clam"]
MONTE_CARLO: Mapping[str, Shares] = {"crane": CRANE_SHARES, "clam": CLAM_SHARES}


class SplitsJob(Config):
    """Draw the splits of a cohort by patient."""

    labels: Annotated[str, Flag("--labels", metavar="TABLE")]
    """Label table (CSV or Parquet): case_id, slide_id and the columns of the task."""
    task: Annotated[str, Flag("--task", metavar="NAME|YAML")]
    """Task set: cardiac-mtl, cardiac-grade, ..., or a YAML file of your own."""
    method: Annotated[Method, Flag("--method")] = "kfold"
    """How: kfold (disjoint test parts that cover everyone), sites (the same, a site in one test
    part only), crane or clam (their Monte Carlo splits, number by number; test parts overlap)."""
    k: Annotated[int, Flag("-k")] = Field(10, ge=1)
    """Number of folds."""
    val_frac: Annotated[float, Flag("--val-frac")] = Field(0.1, ge=0, lt=1)
    """Share of a stratum's patients in val."""
    test_frac: Annotated[float | None, Flag("--test-frac")] = Field(None, ge=0, lt=1)
    """Share of a stratum's patients in test: 0.2 for crane, 0.1 for clam where not given; kfold
    and sites have 1/k."""
    label_frac: Annotated[float, Flag("--label-frac")] = Field(1.0, gt=0, le=1)
    """Share of the training patients that stays."""
    seed: Annotated[int, Flag("--seed")] = Field(1, ge=0, lt=2**32)
    """Of the random numbers; the same seed and table give the same splits."""
    strata: Annotated[str | None, Flag("--strata", metavar="COLUMN")] = None
    """Column that strata are drawn by; the task's labels (of several tasks their combination)
    where not given."""
    patient_label: Annotated[CaseLabel, Flag("--patient-label")] = "max"
    """Stratum of a patient whose slides differ: the last class (max), or the majority."""
    sites: Annotated[str, Flag("--sites", metavar="COLUMN")] = "site"
    """Column of the site (hospital, scanner) for --method sites."""
    hold_out_test: Annotated[bool, Flag("--hold-out-test")] = False
    """With crane or clam: draw test once, for all folds."""
    locked_test: Annotated[str | None, Flag("--locked-test", metavar="FRACTION|FILE")] = None
    """Test set of every fold, in no fold's train or val: a fraction of the patients, or a file of
    case or slide ids (such as another draw's locked_test.csv)."""
    normalise_labels: Annotated[bool, Flag("--normalise-labels")] = False
    """Accept labels that differ from the task's in case, spaces, dashes and underscores alone."""
    out: Annotated[str | None, Flag("--out", metavar="FOLDER")] = None
    """Folder for the files; splits/{task}_{100 x label_frac} where not given."""
    overwrite: Annotated[bool, Flag("--overwrite")] = False
    """Replace other splits that are in the folder."""

    @field_validator("labels", "out")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)

    @field_validator("task")
    @classmethod
    def _absolute_task(cls, value: str) -> str:
        return storage.absolute(value) if value.endswith((".yaml", ".yml")) else value

    @field_validator("locked_test")
    @classmethod
    def _absolute_file(cls, value: str | None) -> str | None:
        return value if value is None or is_fraction(value) else storage.absolute(value)

    @field_validator("out")
    @classmethod
    def _usual_folder(cls, value: str | None, info: ValidationInfo) -> str | None:
        """Said here, where the command was typed: a submitted job has another directory."""
        if value is None and {"task", "label_frac"} <= info.data.keys():
            with suppress(ConfigError):  # no such task set, as drawing will say
                name = load_task_set(info.data["task"]).name
                return storage.absolute(split_folder(name, info.data["label_frac"]))
        return value

    @model_validator(mode="after")
    def _fits_method(self) -> "SplitsJob":
        draws_test = self.method in MONTE_CARLO
        if not draws_test and self.test_frac is not None:
            raise ValueError(
                f"test_frac (--test-frac) is 1/k with method {self.method}; choose k (-k), or lock "
                "a test set (--locked-test)"
            )
        if not draws_test and self.hold_out_test:
            raise ValueError(
                f"hold_out_test is for the methods crane and clam; with {self.method} lock a test "
                "set (--locked-test 0.2)"
            )
        if self.hold_out_test and self.locked_test is not None:
            raise ValueError("hold_out_test and locked_test both give the test set; choose one")
        if not draws_test and self.k < 2:
            raise ValueError(f"k (-k) is at least 2 with method {self.method}")
        return self

    @property
    def shares(self) -> Shares:
        """What crane and clam draw for val and test."""
        usual = MONTE_CARLO[self.method]
        test = usual.test if self.test_frac is None else self.test_frac
        return Shares(self.val_frac, test, usual.rounding)


class SplitsCheck(Config):
    """Check the splits in a folder."""

    splits: Annotated[str, Flag("--check", metavar="FOLDER")]
    """Folder of the splits to be checked."""
    labels: Annotated[str | None, Flag("--labels")] = None
    """Label table; without it only slides are compared, not patients."""
    task: Annotated[str | None, Flag("--task")] = None
    """Task set; without it labels are not looked at."""
    features: Annotated[str | None, Flag("--features", metavar="FOLDER")] = None
    """Feature store, or folder of CLAM's files."""
    normalise_labels: Annotated[bool, Flag("--normalise-labels")] = False
    """Accept labels in another spelling."""

    @field_validator("splits", "labels", "features")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        return None if value is None else storage.absolute(value)

    @model_validator(mode="after")
    def _has_table(self) -> "SplitsCheck":
        if self.task is not None and self.labels is None:
            raise ValueError(f"task {self.task}: its labels are in a table; give --labels")
        return self


@dataclass(frozen=True)
class DrawnSplits:
    """Splits and what was noticed about them."""

    folder: str
    splits: Mapping[int, Split]
    findings: tuple[Finding, ...]


def split_folder(task_set: str, label_frac: float = 1.0) -> str:
    """Where splits of a task set lie by default: ``splits/{task}_{100 x label_frac}``."""
    return f"splits/{task_set}_{100 * label_frac:g}"


def draw_splits(job: SplitsJob) -> DrawnSplits:
    """Draws splits and writes their files; see `crane_ray.cohort.splits`.

    Beside them go ``config.yaml``, and ``locked_test.csv`` where a test set is locked.

    Raises:
        ConfigError: the table, task or wish cannot be met, or other splits are in the folder.
        StorageError: the storage fails.
    """
    task_set = load_task_set(job.task)
    cohort = read_cohort(job.labels, task_set, normalise=job.normalise_labels)
    strata = (
        strata_of_tasks(cohort, job.patient_label)
        if job.strata is None
        else strata_of_column(cohort, job.strata, job.patient_label)
    )
    sites = sites_of_cases(cohort, job.sites) if job.method == "sites" else None
    locked = None
    if job.locked_test is not None:
        locked = lock_test(job.locked_test, cohort, strata, seed=job.seed, sites=sites)
    splits = {
        fold: slides_of(parts, strata, cohort)
        for fold, parts in enumerate(_folds(job, strata, sites, locked))
    }
    files = split_files(splits, cohort)
    if locked is not None:
        files[LOCKED_FILE] = locked_text([strata.case_ids[case] for case in locked])
    folder = job.out
    assert folder is not None, "given, or the usual one of a task set that there is"
    _write(folder, files | {"config.yaml": job.to_yaml()}, overwrite=job.overwrite)
    findings = [*cohort.findings, *_small(job, strata), *_leaking_sites(strata, sites, locked)]
    findings += check_splits(splits, cohort)
    return DrawnSplits(folder, splits, tuple(by_severity(findings)))


def check_folder(job: SplitsCheck) -> DrawnSplits:
    """Reads the splits in a folder and checks them against table and features.

    Raises:
        ConfigError: splits, table, task or features cannot be read.
        StorageError: the storage fails.
    """
    splits = read_splits(job.splits)
    features = None if job.features is None else feature_slide_ids(job.features)
    if job.labels is None:
        findings = check_parts(splits, None, features)
    elif job.task is None:
        rows = read_label_table(job.labels).rows
        cases = zip(map(bare_slide_id, rows["slide_id"]), rows["case_id"], strict=True)
        findings = check_parts(splits, dict(cases), features)
    else:
        task_set = load_task_set(job.task)
        cohort = read_cohort(job.labels, task_set, normalise=job.normalise_labels)
        findings = [*check_splits(splits, cohort, features), *cohort.findings]
    return DrawnSplits(job.splits, splits, tuple(by_severity(findings)))


def _folds(
    job: SplitsJob,
    strata: Strata,
    sites: Mapping[str, str] | None,
    locked: list[int] | None,
) -> Iterable[CaseFold]:
    if job.method in MONTE_CARLO:
        if job.hold_out_test:
            locked = draw_held_out(strata, job.shares, job.seed)
        return draw_monte_carlo(
            strata,
            job.shares,
            k=job.k,
            seed=job.seed,
            label_frac=job.label_frac,
            held_out=locked,
        )
    plan = FoldPlan(job.k, job.val_frac, job.label_frac, job.seed)
    return draw_folds(strata, plan, sites=sites, locked=locked or ())


def slides_of(fold: CaseFold, strata: Strata, cohort: Cohort) -> Split:
    """The slides of a fold of cases: those of a case stay together."""
    slides = cohort.case_slides()
    parts = [
        tuple(slide for case in cases for slide in slides[strata.case_ids[case]])
        for cases in (fold.train, fold.val, fold.test)
    ]
    return Split(*parts)


def _small(job: SplitsJob, strata: Strata) -> list[Finding]:
    if job.method in MONTE_CARLO:
        counts = job.shares.counts(strata)
        places = [place for place, drawn in enumerate(counts) if 0 in drawn]
        return strata.small(places, "one in val and one in test")
    needed = max(job.k, len(PARTS))
    places = [place for place, own in enumerate(strata.members()) if len(own) < needed]
    return strata.small(places, f"one in every part of {job.k} folds")


def _leaking_sites(
    strata: Strata, sites: Mapping[str, str] | None, locked: list[int] | None
) -> list[Finding]:
    if sites is None or locked is None:
        return []
    names = {strata.case_ids[case] for case in locked}
    inside = {sites[name] for name in names}
    shared = sorted(inside & {site for case, site in sites.items() if case not in names})
    if not shared:
        return []
    message = (
        f"{counted(len(shared), 'site')} with cases in the locked test set and outside it "
        f"({some(shared)}); lock whole sites, or a fraction (--locked-test 0.2), which does"
    )
    return [Finding("warning", "shared_sites", message, tuple(shared))]


def _write(folder: str, files: Mapping[str, str], *, overwrite: bool) -> None:
    """Writes files where there are none of another draw, or in their place if asked to."""
    there = {
        storage.name_of(path): path
        for path in storage.list_files(folder, ".csv")
        if SPLIT_FILE.fullmatch(storage.name_of(path)) or storage.name_of(path) == LOCKED_FILE
    }
    stale = sorted(there.keys() - files.keys())
    other = [
        name
        for name, path in there.items()
        if name in files and storage.read_bytes(path) != files[name].encode()
    ]
    if (stale or other) and not overwrite:
        raise ConfigError(
            f"splits {folder}: other splits are there already ({some(sorted(other) + stale)}); "
            "give another folder with --out, or --overwrite to replace them"
        )
    for name, text in files.items():
        storage.put_bytes(storage.join(folder, name), text.encode(), durable=True)
    for name in stale:
        storage.remove_tree(there[name])
