"""Cases diagnosed with trained networks: the assessment, then the grade of those with a finding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from crane_ray.cohort.cohort import Cohort, read_cases, with_features
from crane_ray.cohort.findings import Finding, counted
from crane_ray.cohort.splits import Split
from crane_ray.cohort.tasks import MISSING, TaskSet, TaskSpec
from crane_ray.evaluation.assessment import (
    assessment_table,
    calibrated_ensemble,
    of_all_cases,
    with_grades,
)
from crane_ray.evaluation.averaging import by_case
from crane_ray.evaluation.predictions import Predictions
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.mil.sources import open_source
from crane_ray.runtime.assessment_files import AssessmentSummary, require_free, write_assessment
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured import measured
from crane_ray.runtime.panels import Networks, Panel, open_panel
from crane_ray.runtime.prediction_tasks import predict_on_cluster
from crane_ray.runtime.reporting import Reporter
from crane_ray.runtime.studies import StudyData, study_provenance
from crane_ray.runtime.study_jobs import BagsConfig
from crane_ray.runtime.trained import seen_in_training, val_predictions


@dataclass(frozen=True)
class Subjects:
    """Who is to be diagnosed, and by which features."""

    cohort: Cohort
    """All slides of all cases."""
    features: str
    """Where their features lie."""
    failed: tuple[LeftOut, ...] = ()
    """Slides of which there are no features since something failed, or they have no tissue."""
    findings: tuple[Finding, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What the manifest is to say of where the features come from."""


@dataclass(frozen=True)
class _Verdict:
    """What one model says of all cases."""

    table: pd.DataFrame
    uncalibrated: list[str]
    left_out: list[LeftOut]


def run_assessment(job: AssessJob, reporter: Reporter | None = None) -> AssessmentSummary:
    """Writes assessment.parquet and assessment.csv of features that are there: a row a case.

    Raises:
        ConfigError: networks, cases and features do not fit together.
        StorageError: results cannot be written.
    """
    assert job.cases is not None
    assert job.features is not None
    panel = open_panel(job)
    require_free(job, panel.members)
    cohort = read_cases(job.cases, panel.task_set)
    return assess(job, panel, Subjects(cohort, job.features), measured("assess", reporter))


def assess(
    job: AssessJob, panel: Panel, subjects: Subjects, reporter: Reporter
) -> AssessmentSummary:
    """What the networks of a job say of all cases; the results are written.

    A case of which no slide can be used is a row of blanks.

    Raises:
        ConfigError: no slide of those that should have features has any, or they do not fit the
            networks.
        StorageError: results cannot be written.
    """
    manifest = RunManifest.start("assess", job)
    data = _data(job, subjects)
    verdicts: list[_Verdict] = []
    if data is not None:
        with manifest.told(), connected(job.cluster, landmarks_of("assess", job)):
            verdicts = [
                _ask(job, own, name, _with_tasks(data, own.tasks), reporter)
                for name, own in panel.members.items()
            ]
    left_out = _each_once([*subjects.failed, *(it for own in verdicts for it in own.left_out)])
    provenance = study_provenance(data) if data is not None else {}
    models = [own.model for own in panel.members.values()]
    summary = AssessmentSummary(
        job.folder,
        _table(
            job,
            panel,
            subjects,
            data=data,
            verdicts=verdicts,
            left_out=left_out,
            provenance=provenance,
        ),
        (
            *panel.findings,
            *subjects.findings,
            *(data.cohort.findings if data is not None else ()),
            *(it for own in models for it in seen_in_training(own, subjects.cohort.slide_ids)),
        ),
        left_out,
        [task for verdict in verdicts for task in verdict.uncalibrated],
    )
    facts = {"features": provenance, **subjects.facts, "uncalibrated": summary.uncalibrated}
    write_assessment(
        job, manifest, summary, members=panel.members, cohort=subjects.cohort, facts=facts
    )
    return summary


def _data(job: AssessJob, subjects: Subjects) -> StudyData | None:
    """The slides that have features; None where all of them failed before that."""
    failed = {slide.slide_id for slide in subjects.failed}
    left = [slide for slide in subjects.cohort.slide_ids if slide not in failed]
    if not left:
        return None
    config = BagsConfig(
        labels=job.cases or job.folder, features=subjects.features, level=job.level, pack=job.pack
    )
    there = open_source(subjects.features).slide_ids()
    return StudyData(with_features(subjects.cohort.subset(left), there), config)


def _with_tasks(data: StudyData, tasks: Sequence[TaskSpec]) -> StudyData:
    labels_ST = np.full((len(data.cohort.slide_ids), len(tasks)), MISSING, dtype=np.int64)
    task_set = TaskSet(name="assessment", tasks=tuple(tasks))
    return replace(data, cohort=replace(data.cohort, task_set=task_set, labels_ST=labels_ST))


def _ask(
    job: AssessJob, networks: Networks, name: str, data: StudyData, reporter: Reporter
) -> _Verdict:
    """What the networks of a model say, a Ray task a fold."""
    everything = Split((), (), data.cohort.slide_ids)
    num_slides, num_folds = len(data.cohort.slide_ids), len(networks.paths)
    reporter.begin(f"{name} ({counted(num_folds, 'network')})", slides=num_slides)

    def advance(done: int) -> None:  # a fold tells nothing before its end: a share of the slides
        before = num_slides * (done - 1) // num_folds
        reporter.advance(slides=num_slides * done // num_folds - before)

    try:
        found, left_out = predict_on_cluster(
            data,
            networks.paths,
            dict.fromkeys(networks.paths, everything),
            ("external",),
            advance=advance,
        )
    finally:
        reporter.end()
    predictions = by_case(Predictions.concat(found.values()))
    val = val_predictions(networks.model, "case")
    probabilities, uncalibrated = {}, []
    for one in networks.tasks:
        probabilities[one.name], calibrated = calibrated_ensemble(predictions, val, one)
        if not calibrated:
            uncalibrated.append(one.name)
    table = assessment_table(networks.tasks, probabilities, job.thresholds)
    return _Verdict(table, uncalibrated, left_out)


def _table(
    job: AssessJob,
    panel: Panel,
    subjects: Subjects,
    *,
    data: StudyData | None,
    verdicts: Sequence[_Verdict],
    left_out: Sequence[LeftOut],
    provenance: Mapping[str, Any],
) -> pd.DataFrame:
    """A row of every case, with the number of its slides and the networks behind it."""
    tables = [verdict.table for verdict in verdicts] or [
        assessment_table(own.tasks, {task.name: {} for task in own.tasks}, job.thresholds)
        for own in panel.members.values()
    ]
    table = with_grades(tables[0], tables[1], panel.graded) if panel.grading else tables[0]
    there = set(data.cohort.slide_ids) if data is not None else set()
    reasons = dict.fromkeys(
        (slide for slide in subjects.cohort.slide_ids if slide not in there),
        f"no features of it in {subjects.features}",
    )
    reasons |= {slide.slide_id: slide.reason for slide in left_out}
    whole = of_all_cases(table, subjects.cohort.case_slides(), reasons)
    for name, own in panel.members.items():
        whole[f"{name}_models"] = " ".join(own.fingerprints.values())
    recipes = [it.get("recipe_fingerprint", "") for it in provenance.values()]
    whole["features_recipe"] = " ".join(recipes)
    return whole


def _each_once(slides: Sequence[LeftOut]) -> list[LeftOut]:
    """Both models say the same of features that cannot be used."""
    return list({slide.slide_id: slide for slide in slides}.values())
