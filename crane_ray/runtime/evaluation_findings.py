"""What makes an evaluation say less than it seems to. Imports no ray."""

from collections.abc import Mapping
from typing import Any

from crane_ray import storage
from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.findings import Finding, counted, some
from crane_ray.cohort.split_check import check_splits
from crane_ray.cohort.splits import SPLIT_FILE, Split, read_splits
from crane_ray.evaluation.predictions import Predictions
from crane_ray.runtime.evaluation_jobs import EvaluateJob
from crane_ray.runtime.studies import StudyData

ABOUT_PARTS = frozenset({"unlabelled", "without_features", "shared_slides", "shared_cases"})
"""Of what may be wrong with splits, what makes numbers wrong or parts smaller."""


def evaluation_findings(
    job: EvaluateJob,
    labelled: Cohort,
    data: StudyData,
    splits: Mapping[int, Split],
    provenance: Mapping[str, Any],
) -> tuple[Finding, ...]:
    """What was noticed about the cohort, the part that is judged, and the bags.

    Args:
        job: what is judged.
        labelled: the slides of the table.
        data: those that have features.
        splits: of each fold.
        provenance: of any fold's checkpoint.
    """
    return (
        *data.cohort.findings,
        *_about_parts(job, labelled, data, splits),
        *_seen_in_training(job, labelled, data, splits),
        *_about_level(job, provenance),
    )


def _about_parts(
    job: EvaluateJob, labelled: Cohort, data: StudyData, splits: Mapping[int, Split]
) -> list[Finding]:
    """Slides of the part that cannot be judged, and such that are in another part, too."""
    if job.split == "external":
        return []
    said = {finding.kind for finding in data.cohort.findings}
    found = check_splits(splits, labelled, data.cohort.slide_ids)
    return [finding for finding in found if finding.kind in ABOUT_PARTS - said]


def _seen_in_training(
    job: EvaluateJob, labelled: Cohort, data: StudyData, splits: Mapping[int, Split]
) -> list[Finding]:
    """Slides of cases that the fold which judges them was trained on, or stopped on.

    A run's own splits are looked at by `_about_parts`; these are another cohort, or other splits.
    """
    elsewhere = job.split == "external" or job.splits is not None
    if not elsewhere or job.split in {"train", "all"} or storage.kind_of(job.model) != "folder":
        return []
    copies = [it for it in storage.list_files(job.model, ".csv") if SPLIT_FILE.search(it)]
    own = read_splits(job.model) if copies else {}
    case_of = _cases_of_run(job) | dict(zip(labelled.slide_ids, labelled.case_ids, strict=True))
    seen = set[str]()
    for fold in splits.keys() & own.keys():
        used = {*own[fold].train, *(own[fold].val if job.split != "val" else ())}
        cases = {case_of[slide] for slide in used if slide in case_of}
        judged = splits[fold].part("val" if job.split == "val" else "test")
        seen |= {slide for slide in judged if slide in used or case_of.get(slide) in cases}
    names = tuple(slide for slide in data.cohort.slide_ids if slide in seen)
    if not names:
        return []
    message = (
        f"{counted(len(names), 'slide')} of {len(data.cohort.slide_ids):,} of cases in the run's "
        f"own train or val parts ({some(names)}); what networks were trained on tells nothing of "
        "others: take them out of the table, or judge on the run's own splits"
    )
    return [Finding("error", "seen_in_training", message, names)]


def _cases_of_run(job: EvaluateJob) -> dict[str, str]:
    """The case of each slide that the run itself predicted; nothing of a published run."""
    path = storage.join(job.model, "predictions.parquet")
    if not storage.exists(path):
        return {}
    table = Predictions.from_parquet(path).table
    return dict(zip(table["slide_id"].to_pylist(), table["case_id"].to_pylist(), strict=True))


def _about_level(job: EvaluateJob, provenance: Mapping[str, Any]) -> list[Finding]:
    trained = provenance.get("bag_level", job.bags.level)
    if trained == job.bags.level:
        return []
    message = (
        f"the networks were trained on bags of a {trained} each, and are judged on bags of a "
        f"{job.bags.level} each; --bag-level {trained} is what they were trained on"
    )
    return [Finding("note", "other_bag_level", message)]
