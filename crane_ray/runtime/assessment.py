"""Cases diagnosed with trained networks: the assessment, then the grade of those with a finding."""

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pandas as pd

from crane_ray import storage
from crane_ray.cohort.cohort import read_cases, with_features
from crane_ray.cohort.findings import Finding
from crane_ray.cohort.splits import Split
from crane_ray.cohort.tasks import MISSING, TaskSet, TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.evaluation.assessment import (
    assessment_table,
    calibrated_ensemble,
    with_grades,
)
from crane_ray.evaluation.averaging import by_case
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.summary import check_thresholds
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.mil.checkpoints import load_checkpoint
from crane_ray.mil.sources import open_source
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.evaluation_jobs import AssessJob
from crane_ray.runtime.prediction_tasks import predict_on_cluster
from crane_ray.runtime.studies import StudyData, study_provenance
from crane_ray.runtime.study_jobs import BagsConfig
from crane_ray.runtime.trained import find_checkpoints, val_predictions


@dataclass
class AssessmentSummary:
    """What came of an assessment."""

    folder: str
    table: pd.DataFrame
    findings: tuple[Finding, ...] = ()
    left_out: list[LeftOut] = field(default_factory=list)
    uncalibrated: list[str] = field(default_factory=list)
    """Tasks whose probabilities could not be calibrated."""


@dataclass(frozen=True)
class _Verdict:
    """What one model says of all cases."""

    tasks: tuple[TaskSpec, ...]
    table: pd.DataFrame
    uncalibrated: list[str]
    left_out: list[LeftOut]
    fingerprints: str


def run_assessment(job: AssessJob) -> AssessmentSummary:
    """Writes assessment.parquet and assessment.csv: a row a case.

    Raises:
        ConfigError: networks, cases and features do not fit together.
        StorageError: results cannot be written.
    """
    target = storage.join(job.out, "assessment.parquet")
    if storage.exists(target) and not job.overwrite:
        raise ConfigError(
            f"--out {job.out}: there is an assessment already; --overwrite writes in its place"
        )
    manifest = RunManifest.start("assess", job)
    models = [job.model] + ([job.grade_model] if job.grade_model else [])
    paths = {model: find_checkpoints(model) for model in models}
    tasks = {model: load_checkpoint(next(iter(paths[model].values()))).tasks for model in models}
    check_thresholds(job.thresholds, [task for own in tasks.values() for task in own])
    findings = _graded_findings(job, tasks[job.model]) if job.grade_model else {}
    data = _data(job, tasks[job.model])
    with connected(job.cluster):
        verdicts = [
            _ask(job, model, paths[model], _with_tasks(data, tasks[model])) for model in models
        ]
    table = verdicts[0].table
    if job.grade_model:
        table = with_grades(table, verdicts[1].table, findings)
    table = _with_facts(table, data, verdicts)
    summary = AssessmentSummary(
        job.out,
        table,
        data.cohort.findings,
        verdicts[0].left_out,
        [task for verdict in verdicts for task in verdict.uncalibrated],
    )
    _write(job, manifest, summary, data)
    return summary


def _graded_findings(job: AssessJob, tasks: Sequence[TaskSpec]) -> dict[str, str]:
    none_of = {task.name: task.classes[0] for task in tasks}
    unknown = [name for name in job.graded_findings if name not in none_of]
    if unknown or not job.graded_findings:
        raise ConfigError(
            f"graded_findings {', '.join(unknown) or '[]'}: {job.model} has the tasks "
            f"{', '.join(none_of)}; name those of them that call for a grade with "
            "--set graded_findings=[...]"
        )
    return {name: none_of[name] for name in job.graded_findings}


def _data(job: AssessJob, tasks: Sequence[TaskSpec]) -> StudyData:
    config = BagsConfig(labels=job.cases, features=job.features, level=job.level, pack=job.pack)
    cohort = read_cases(job.cases, TaskSet(name="assessment", tasks=tuple(tasks)))
    return StudyData(with_features(cohort, open_source(job.features).slide_ids()), config)


def _with_tasks(data: StudyData, tasks: Sequence[TaskSpec]) -> StudyData:
    labels_ST = np.full((len(data.cohort.slide_ids), len(tasks)), MISSING, dtype=np.int64)
    task_set = TaskSet(name="assessment", tasks=tuple(tasks))
    return replace(data, cohort=replace(data.cohort, task_set=task_set, labels_ST=labels_ST))


def _ask(job: AssessJob, model: str, paths: dict[int, str], data: StudyData) -> _Verdict:
    """What the networks of a model say, a Ray task a fold."""
    everything = Split((), (), data.cohort.slide_ids)
    found, left_out = predict_on_cluster(
        data, paths, dict.fromkeys(paths, everything), ("external",)
    )
    predictions = by_case(Predictions.concat(found.values()))
    val = val_predictions(model, "case")
    tasks = data.cohort.task_set.tasks
    probabilities, uncalibrated = {}, []
    for one in tasks:
        probabilities[one.name], calibrated = calibrated_ensemble(predictions, val, one)
        if not calibrated:
            uncalibrated.append(one.name)
    return _Verdict(
        tasks,
        assessment_table(tasks, probabilities, job.thresholds),
        uncalibrated,
        left_out,
        " ".join(load_checkpoint(path).fingerprint for path in paths.values()),
    )


def _with_facts(table: pd.DataFrame, data: StudyData, verdicts: Sequence[_Verdict]) -> pd.DataFrame:
    """The table with the number of slides of each case, and the networks behind it."""
    left_out = {slide.slide_id for verdict in verdicts for slide in verdict.left_out}
    slides = {
        case: sum(slide not in left_out for slide in own)
        for case, own in data.cohort.case_slides().items()
    }
    whole = table.copy()
    whole.insert(1, "num_slides", [slides[case] for case in whole["case_id"]])
    for name, verdict in zip(("assessment", "grade"), verdicts, strict=False):
        whole[f"{name}_models"] = verdict.fingerprints
    return whole


def _write(
    job: AssessJob, manifest: RunManifest, summary: AssessmentSummary, data: StudyData
) -> None:
    sink = io.BytesIO()
    summary.table.to_parquet(sink, index=False)
    text = summary.table.to_csv(index=False, lineterminator="\n")
    finished = manifest.finish(
        "failures" if summary.left_out else "done",
        counts={"cases": len(summary.table), "left_out": len(summary.left_out)},
        left_out=summary.left_out,
        facts={
            "features": study_provenance(data),
            "findings": [asdict(finding) for finding in summary.findings],
            "uncalibrated": summary.uncalibrated,
        },
    )
    files = {
        "assessment.parquet": sink.getvalue(),
        "assessment.csv": text.encode(),
        "config.yaml": job.to_yaml().encode(),
    }
    for name, content in files.items():
        storage.put_bytes(storage.join(job.out, name), content)
    finished.save(storage.join(job.out, "manifest.json"))
