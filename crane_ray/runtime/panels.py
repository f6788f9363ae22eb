"""The networks that are asked of a case: they assess, or grade. Imports no ray."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crane_ray.cohort.findings import Finding
from crane_ray.cohort.tasks import TaskSet, TaskSpec
from crane_ray.errors import ConfigError
from crane_ray.evaluation.summary import check_thresholds
from crane_ray.mil.checkpoints import load_checkpoint
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.trained import find_checkpoints, folds_without_network


@dataclass(frozen=True)
class Networks:
    """The networks of one model, a fold each."""

    model: str
    paths: Mapping[int, str]
    tasks: tuple[TaskSpec, ...]
    fingerprints: Mapping[int, str]


@dataclass(frozen=True)
class Panel:
    """All networks that are asked of a case."""

    assessing: Networks
    grading: Networks | None = None
    graded: Mapping[str, str] = field(default_factory=dict)
    """By task whose finding calls for a grade, the class that is none."""
    findings: tuple[Finding, ...] = ()

    @property
    def members(self) -> dict[str, Networks]:
        """The models by what they do."""
        found = {"assessment": self.assessing}
        return found if self.grading is None else {**found, "grade": self.grading}

    @property
    def task_set(self) -> TaskSet:
        """The tasks of the assessment."""
        return TaskSet(name="assessment", tasks=self.assessing.tasks)


def open_panel(job: AssessJob) -> Panel:
    """The networks of a job, if what it asks of them can be done.

    Raises:
        ConfigError: there are none, or thresholds or graded findings are not of their tasks.
    """
    assessing = _networks(job.model)
    grading = _networks(job.grade_model) if job.grade_model else None
    members = [assessing] if grading is None else [assessing, grading]
    check_thresholds(job.thresholds, [task for own in members for task in own.tasks])
    findings = [folds_without_network(own.model, own.paths) for own in members]
    return Panel(
        assessing,
        grading,
        _graded_findings(job, assessing.tasks) if grading else {},
        tuple(finding for own in findings for finding in own),
    )


def _networks(model: str) -> Networks:
    paths = find_checkpoints(model)
    loaded = {fold: load_checkpoint(path) for fold, path in paths.items()}
    tasks = next(iter(loaded.values())).tasks
    return Networks(model, paths, tasks, {fold: own.fingerprint for fold, own in loaded.items()})


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
