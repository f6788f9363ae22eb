"""Slides to diagnoses: patched, extracted as the model needs it, assessed, mapped, in one Ray."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.manifest import LeftOut
from crane_ray.runtime.assessment import Subjects, assess
from crane_ray.runtime.assessment_files import AssessmentSummary
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.extraction import run_extraction
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.heatmaps import run_heatmaps
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured import measured
from crane_ray.runtime.model_recipes import scale_words
from crane_ray.runtime.patching import run_patching
from crane_ray.runtime.reporting import Reporter, Summary
from crane_ray.runtime.slide_plans import SlidePlan, plan_slides
from crane_ray.slides.patches import PatchSpec
from crane_ray.slides.workspace import Workspace


@dataclass
class SlideAssessment:
    """What came of slides."""

    assessment: AssessmentSummary
    patching: Summary
    extraction: Summary | None
    """None where no slide had patches."""
    store: str
    """Where the features are."""
    maps: tuple[Summary, ...] = ()
    """Of each model's attention maps."""

    @property
    def is_whole(self) -> bool:
        """Whether every slide got through every stage."""
        return not self.assessment.left_out and not any(one.left_out for one in self.maps)


def run_slide_assessment(job: AssessJob, reporter: Reporter | None = None) -> SlideAssessment:
    """Takes slides to diagnoses; what an interrupted run did is not done again.

    Slides that fail, and those without tissue, cost themselves alone: each is listed with its
    reason, and a case that has no other slide is a row of blanks.

    Raises:
        ConfigError: slides, networks, weights, or what is asked for do not fit together; nothing
            was done yet.
        RecipeMismatchError: the workspace holds patches or features of another kind.
        CraneError: a stage could not be started, or results cannot be written.
    """
    reporter = measured("assess", reporter)
    plan = plan_slides(job)
    for finding in (*plan.panel.findings, *plan.findings):
        reporter.note(f"{finding.severity}: {finding.message}")
    with connected(job.cluster, landmarks_of("assess", job)):
        patching = run_patching(plan.patching, reporter, reuse=plan.reuse)
        extraction = _extract(plan, reporter)
        subjects = _subjects(plan, patching, extraction)
        assessment = assess(job, plan.panel, subjects, reporter)
        maps = [run_heatmaps(own, reporter) for own in _map_jobs(job, plan, assessment)]
    return SlideAssessment(assessment, patching, extraction, plan.store, tuple(maps))


def _extract(plan: SlidePlan, reporter: Reporter) -> Summary | None:
    """Features of the slides that have patches; None where none has."""
    rows = Workspace(plan.patching.work).read_slides()
    asked = {entry.slide_id for entry in plan.entries}
    if not any(rows[slide].num_patches for slide in asked if slide in rows):
        return None
    return run_extraction(plan.extraction, reporter, only=asked)


def _map_jobs(
    job: AssessJob, plan: SlidePlan, assessment: AssessmentSummary
) -> Iterator[HeatmapJob]:
    """Maps of each model's heads on the slides that it was asked of."""
    if not job.maps:
        return
    left_out = {slide.slide_id for slide in assessment.left_out}
    slides = {
        case: [slide for slide in own if slide not in left_out]
        for case, own in plan.cohort.case_slides().items()
    }
    for own in plan.panel.members.values():
        decisions = assessment.table[[f"decision_{task.name}" for task in own.tasks]]
        asked = assessment.table.loc[decisions.notna().any(axis=1), "case_id"]
        wanted = tuple(slide for case in asked for slide in slides[case])
        if wanted:
            yield HeatmapJob(
                work=plan.patching.work,
                model=own.model,
                features=plan.store,
                slides=wanted,
                reader=job.reader,
                staging=job.staging,
                cluster=job.cluster,
            )


def _subjects(plan: SlidePlan, patching: Summary, extraction: Summary | None) -> Subjects:
    stages = [patching, *([extraction] if extraction is not None else [])]
    left_out = (slide for stage in stages for slide in stage.left_out)
    return Subjects(
        plan.cohort,
        plan.store,
        tuple(_first_reasons(left_out, plan.patching.patch)),
        plan.findings,
        {
            "patch": plan.patching.patch.model_dump(mode="json"),
            "manifests": {stage.verb: stage.manifest for stage in stages},
        },
    )


def _first_reasons(slides: Iterable[LeftOut], spec: PatchSpec) -> Iterator[LeftOut]:
    """Each slide once, with why it got no further; under its bare id, as cohorts spell them."""
    seen: set[str] = set()
    scale = scale_words(spec.mpp, spec.level)
    for slide in slides:
        if slide.slide_id in seen:
            continue
        seen.add(slide.slide_id)
        reason = slide.reason
        if "--mpp" in reason or "--patch-level" in reason:  # advice for patching by itself
            reason += f" (of another model: this one needs patches at {scale})"
        bare = bare_slide_id(slide.slide_id)
        yield slide.model_copy(update={"slide_id": bare, "reason": reason})
