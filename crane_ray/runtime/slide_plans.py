"""What an assessment of slides will do, settled and checked before any of it is done.

A model's checkpoints say which features it needs; slides, weights and workspace must fit them.
Imports no ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from crane_ray.cohort.cohort import Cohort, make_cases
from crane_ray.cohort.findings import Finding, counted, some
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.runtime.assessment_files import require_free
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.jobs import ExtractJob, PatchJob
from crane_ray.runtime.model_recipes import (
    ModelFeatures,
    model_features,
    require_alike,
    require_asked,
    spec_as_asked,
)
from crane_ray.runtime.model_weights import asked_encoder, own_encoder
from crane_ray.runtime.panels import Panel, open_panel
from crane_ray.runtime.used_workspaces import (
    require_maps,
    require_patches,
    require_store,
    tissue_ways,
)
from crane_ray.slides.listing import Entry, list_slides
from crane_ray.slides.patches import PatchSpec


@dataclass(frozen=True)
class SlidePlan:
    """All that is to be done for an assessment of slides."""

    panel: Panel
    entries: tuple[Entry, ...]
    cohort: Cohort
    """The same slides, and whose they are."""
    patching: PatchJob
    reuse: bool
    """Whether patches of the same spec are used however their tissue was found."""
    extraction: ExtractJob
    findings: tuple[Finding, ...] = ()

    @property
    def store(self) -> str:
        """Where the features go."""
        return self.extraction.store_roots[0]


def plan_slides(job: AssessJob) -> SlidePlan:
    """What a job on slides will do.

    Raises:
        ConfigError: slides, networks, weights, or what is asked for do not fit together.
        RecipeMismatchError: the workspace holds patches or features of another kind.
    """
    assert job.slides is not None
    panel = open_panel(job)
    require_free(job, panel.members)
    entries = list_slides(job.slides.source, recursive=job.slides.recursive)
    cohort, about_cases = _cases(job.slides.source, entries, panel)
    if job.maps:
        require_maps(job, panel)
    own, about_recipe = _features(panel)
    spec, extraction = _extraction(job, own, entries)
    patching, about_tissue = _patching(job, own, spec)
    return SlidePlan(
        panel,
        tuple(entries),
        cohort,
        patching,
        reuse=job.tissue is None and job.segmenter is None,
        extraction=extraction,
        findings=(*about_cases, *about_recipe, *about_tissue),
    )


def _extraction(
    job: AssessJob, own: ModelFeatures, entries: Sequence[Entry]
) -> tuple[PatchSpec, ExtractJob]:
    """The patches that the model needs, and the extraction of its features of them."""
    assert job.work is not None
    dtype = job.encoder.dtype
    if own.recipe is not None:
        require_asked(own, job.patch, job.encoder)
        spec, dtype = own.recipe.patch, own.recipe.dtype
        found = own_encoder(own, job.encoder)
    else:
        spec = spec_as_asked(own, job.patch, job.encoder)
        found = asked_encoder(own, job.encoder)
    extraction = ExtractJob(
        work=job.work,
        encoder=found.config,
        dtype=dtype,
        replace_stale=job.replace_stale,
        actors=job.actors,
        cluster=job.cluster,
        reader=job.reader,
        staging=job.staging,
    )
    require_patches(job, spec, entries)
    require_store(extraction, spec, found, own)
    return spec, extraction


def _patching(
    job: AssessJob, own: ModelFeatures, spec: PatchSpec
) -> tuple[PatchJob, list[Finding]]:
    """The patching of the slides, their tissue found as is said, or as is usual there."""
    assert job.slides is not None
    assert job.work is not None
    ways, findings = tissue_ways(job, own)
    patching = PatchJob(
        work=job.work,
        slides=job.slides,
        patch=spec,
        tissue=ways.tissue,
        segmenter=ways.segmenter,
        contours=ways.contours,
        pictures=job.pictures,
        cluster=job.cluster,
        reader=job.reader,
        staging=job.staging,
    )
    return patching, findings


def _cases(source: str, entries: Sequence[Entry], panel: Panel) -> tuple[Cohort, list[Finding]]:
    """Whose the slides are: as a slide table says, else each is a case of its own."""
    alone = [entry.slide_id for entry in entries if not entry.case_id]
    rows = pd.DataFrame(
        {
            "case_id": [entry.case_id or bare_slide_id(entry.slide_id) for entry in entries],
            "slide_id": [entry.slide_id for entry in entries],
        },
        index=pd.RangeIndex(2, 2 + len(entries)),
        dtype=object,
    )
    cohort = make_cases(source, rows, panel.task_set)
    findings = list(cohort.findings)
    if alone:
        whose = "each slide is" if len(alone) == len(entries) else f"{some(alone)} are each"
        findings.append(
            Finding(
                "note",
                "own_cases",
                f"no case_id of {counted(len(alone), 'slide')}: {whose} a case of its own; where a "
                "patient has several slides, give a slide table (uri, slide_id, case_id)",
                tuple(alone),
            )
        )
    return cohort, findings


def _features(panel: Panel) -> tuple[ModelFeatures, list[Finding]]:
    """What is known of the features that the models need; of two, by the one that says more."""
    found = [model_features(own.model, own.paths) for own in panel.members.values()]
    for other in found[1:]:
        require_alike(found[0], other)
    findings = [
        Finding(
            "warning",
            "recipe_not_recorded",
            f"{own.model}: it is not recorded which features it was trained on; that they were "
            "made as those of these slides is your word",
            (own.model,),
        )
        for own in found
        if own.recipe is None
    ]
    return next((own for own in found if own.recipe is not None), found[0]), findings
