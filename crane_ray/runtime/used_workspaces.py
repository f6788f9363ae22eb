"""What a workspace holds already, and whether an assessment may go on with it. Imports no ray."""

from collections.abc import Sequence

import yaml

from crane_ray import storage
from crane_ray.cohort.findings import Finding
from crane_ray.errors import ConfigError, RecipeMismatchError
from crane_ray.features.recipe import Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.maps.folder import MapsFolder
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.jobs import ExtractJob, PatchJob, SlidesConfig
from crane_ray.runtime.model_recipes import (
    ModelFeatures,
    recipe_differences,
    spec_words,
    table_of,
)
from crane_ray.runtime.model_weights import FoundEncoder
from crane_ray.runtime.panels import Panel
from crane_ray.slides.listing import Entry
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.patches import PatchSpec
from crane_ray.slides.workspace import Workspace


def require_patches(job: AssessJob, spec: PatchSpec, entries: Sequence[Entry]) -> None:
    """Refuses a workspace with other patches, or with other slides of the same names."""
    assert job.work is not None
    workspace = Workspace(job.work)
    rows = workspace.read_slides()
    for entry in entries:
        row = rows.get(entry.slide_id)
        if row is None or not row.num_patches:
            continue
        if row.spec_fingerprint != spec.fingerprint():
            path = workspace.patches(row.slide_id)
            there = read_patches(path, row.slide_id).spec if storage.exists(path) else None
            words = spec_words(there) if there is not None else "other patches"
            raise RecipeMismatchError(
                f"--work {job.work}: slide {row.slide_id} has {words} there, the model needs "
                f"{spec_words(spec)}; give another --work"
            )
        if row.uri != entry.uri and not entry.problem and not job.replace_stale:
            raise ConfigError(
                f"--work {job.work}: slide {row.slide_id} there is {row.uri}, the one of --slides "
                f"is {entry.uri}; give another --work, or --replace-stale if it is the same slide "
                "in another place or is to replace it"
            )


def require_store(
    extraction: ExtractJob, spec: PatchSpec, found: FoundEncoder, own: ModelFeatures
) -> None:
    """Refuses a workspace that has features of another recipe where these would go."""
    root = extraction.store_roots[0]
    there = FeatureStore.recipe_at(root)
    if there is None:
        return
    needed = own.recipe
    if needed is None:  # what is not said, a store settles
        config = found.config
        info = found.info(
            spec,
            precision=there.encoder.precision if config.precision == "auto" else config.precision,
            compiled=there.encoder.compiled,
        )
        needed = Recipe(patch=spec, encoder=info, dtype=extraction.dtype or there.dtype)
    if there.fingerprint() != needed.fingerprint():
        raise RecipeMismatchError(
            f"--work {extraction.work}: the features in {root} are of another kind than the model "
            f"needs\n{table_of(recipe_differences(needed, there), 'model', 'there')}\n"
            "Give another --work"
        )


def require_maps(job: AssessJob, panel: Panel) -> None:
    """Refuses a workspace with maps of other networks where these would go.

    Raises:
        ConfigError: it has some.
        StoreError: what is there cannot be read.
    """
    assert job.work is not None
    for own in panel.members.values():
        folder = MapsFolder(HeatmapJob(work=job.work, model=own.model).folder)
        networks = {str(fold): name for fold, name in own.fingerprints.items()}
        if storage.exists(folder.header_path) and folder.read_header().checkpoints != networks:
            raise ConfigError(
                f"--work {job.work}: the maps in {folder.root} are of other networks than those of "
                f"{own.model}; give another --work, remove that folder, or make none (--no-maps)"
            )


def tissue_ways(job: AssessJob, own: ModelFeatures) -> tuple[PatchJob, list[Finding]]:
    """A patching whose ways of finding tissue are to be taken, and what is to be said of them.

    Those that are asked for; else those of the workspace's last patching; else those of the slides
    that the model was trained on, if their workspace is still there; else the default ones.
    """
    assert job.work is not None
    trained = _patched_as(own.root.rpartition("/features/")[0])
    here = _patched_as(job.work)
    taken, said = PatchJob(work=job.work, slides=job.slides or SlidesConfig(source=".")), ""
    if job.tissue is not None or job.segmenter is not None:
        asked = {"tissue": job.tissue or taken.tissue, "segmenter": job.segmenter or "saturation"}
        taken = taken.model_copy(update=asked)
    elif here is not None:
        taken, said = here, f"as in {job.work} before"
    elif trained is not None:
        taken = trained.model_copy(update={"contours": None})
        said = f"as on the slides that {own.model} was trained on"
    else:
        said = "in the usual way, since it is not known how it was on those of the model"
    if taken.contours is not None and not storage.exists(taken.contours):
        taken = taken.model_copy(update={"contours": None})
    findings = []
    if said:
        message = f"tissue is found {said}: preset {taken.tissue.preset} (--preset names another)"
        findings.append(Finding("note", "tissue", message))
    if trained is not None and _ways(trained) != _ways(taken):
        findings.append(_other_tissue(own, trained, taken))
    return taken, findings


def _other_tissue(own: ModelFeatures, trained: PatchJob, taken: PatchJob) -> Finding:
    differing = [
        (name, str(here), str(there))
        for (name, here), there in zip(_ways(trained).items(), _ways(taken).values(), strict=True)
        if here != there
    ]
    return Finding(
        "warning",
        "other_tissue",
        f"tissue is found in another way than on the slides that {own.model} was trained on; "
        f"--preset {trained.tissue.preset} is theirs\n"
        f"{table_of(differing, 'theirs', 'here')}",
    )


def _ways(job: PatchJob) -> dict[str, object]:
    """All that decides where tissue is found."""
    drawn = {"preset", "vis_level", "line_thickness"}
    return {"segmenter": job.segmenter, **job.tissue.model_dump(mode="json", exclude=drawn)}


def _patched_as(work: str) -> PatchJob | None:
    """The last patching of a workspace; None where there is none, or it is not to be read."""
    path = Workspace(work).config("patch")
    if not work or not storage.exists(path):
        return None
    try:
        return PatchJob.model_validate(yaml.safe_load(storage.read_bytes(path)))
    except (ValueError, yaml.YAMLError):
        return None
