"""Overlapping patches for maps finer than the diagnosis: patched and extracted as any others.

Below the maps' folder lies a workspace of its own for each step, ``dense/step_128``, with
overlapping patches on the stored tissue, and a feature store whose recipe is that of the stored
features but for the step; so all of it is resumable, and tiles are decoded once for the patches
that share them.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pandas as pd
import yaml

from crane_ray import storage
from crane_ray.cohort.slide_ids import bare_slide_id
from crane_ray.errors import ConfigError, RecipeMismatchError
from crane_ray.features.encoder import EncoderConfig, EncoderInfo
from crane_ray.features.recipe import Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.maps.bags import BagPlace
from crane_ray.maps.slide_maps import MapTask
from crane_ray.mil.sources import StoreSource
from crane_ray.plugins import file_name
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.extraction import run_extraction
from crane_ray.runtime.heatmap_inputs import bag_places
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.heatmap_plan import Plan
from crane_ray.runtime.jobs import ExtractJob, PatchJob, SlidesConfig
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.patching import run_patching
from crane_ray.runtime.reporting import Reporter
from crane_ray.slides.params import TissueParams
from crane_ray.slides.workspace import Workspace

WITHOUT_CONTOURS = (
    "overlapping patches are placed on the tissue that was found, and there is no {path}; run "
    "crane-ray patch over it"
)


@dataclass(frozen=True)
class DensePatches:
    """The overlapping patches of a job: where they lie, and what they are."""

    job: HeatmapJob
    store: FeatureStore
    """Of the coarse patches."""

    @property
    def recipe(self) -> Recipe:
        """That of the stored features, but for the step."""
        spec = self.store.recipe.patch
        step_px = max(1, round(spec.size_px * (1 - self.job.dense.overlap)))
        patch = spec.model_copy(update={"step_px": step_px})
        return self.store.recipe.model_copy(update={"patch": patch})

    @property
    def workspace(self) -> Workspace:
        """Of the overlapping patches."""
        step_px = self.recipe.patch.step
        return Workspace(storage.join(self.job.folder, "dense", f"step_{step_px}"))

    @property
    def root(self) -> str:
        """Of their store."""
        return storage.join(self.workspace.features, file_name(self.recipe.encoder.name))

    def places(self) -> dict[str, BagPlace]:
        """The slides whose overlapping patches are extracted."""
        if not storage.exists(storage.join(self.root, "store.json")):
            return {}
        return bag_places(StoreSource(self.root))


def densify(job: HeatmapJob, plan: Plan, reporter: Reporter) -> None:
    """Extracts the overlapping patches of a plan's slides, and puts them in place of the coarse.

    Slides of which that fails leave the plan's tasks for its failures.

    Raises:
        ConfigError: the features do not say how they were made, or their encoder's weights cannot
            be had; they are named.
        CraneError: nothing could be started, or a folder cannot be written any more.
    """
    dense = DensePatches(job, _coarse_store(plan))
    _leave_out(plan, _without_contours(plan))
    if plan.tasks:
        with ExitStack() as stack:
            if not set(plan.tasks) <= set(dense.places()):
                # One Ray for all that follows.
                stack.enter_context(connected(job.cluster, landmarks_of("heatmap", job)))
            _leave_out(plan, _patch(dense, plan.tasks, reporter))
            _leave_out(plan, _extract(dense, plan.tasks, reporter))
    places = dense.places()
    for slide_id, task in plan.tasks.items():
        update = {
            "bag": places[bare_slide_id(slide_id)],
            "reference": task.bag,
            "patches": dense.workspace.patches(slide_id),
        }
        plan.tasks[slide_id] = task.model_copy(update=update)


def _coarse_store(plan: Plan) -> FeatureStore:
    root = plan.header.features
    if not plan.header.recipe_fingerprint:
        raise ConfigError(
            f"--overlap: {root} is a folder of files, which do not say how their features were "
            "made; overlapping patches need a store of crane-ray extract, or leave --overlap out"
        )
    store = FeatureStore.open(root)
    encoder = store.recipe.encoder
    if encoder.precision == "unknown" or not encoder.weights_sha256:
        raise ConfigError(
            f"--overlap: the features in {root} were imported, and with which weights of "
            f"{encoder.name} they were made is not known; extract them with crane-ray extract, or "
            "leave --overlap out"
        )
    return store


def _without_contours(plan: Plan) -> dict[str, str]:
    return {
        slide_id: WITHOUT_CONTOURS.format(path=task.contours)
        for slide_id, task in plan.tasks.items()
        if not storage.exists(task.contours)
    }


def _leave_out(plan: Plan, failed: Mapping[str, str]) -> None:
    for slide_id, reason in failed.items():
        plan.failed[slide_id] = reason
        plan.tasks.pop(slide_id)


def _patch(dense: DensePatches, tasks: Mapping[str, MapTask], reporter: Reporter) -> dict[str, str]:
    """Places the overlapping patches; why that failed, by slide."""
    job, work = dense.job, dense.workspace.root
    table = storage.join(work, "cohort.csv")
    has_mpp = dense.recipe.patch.mpp is not None  # by level none is needed, nor looked at
    rows = [
        (task.uri, slide_id, task.case_id, task.mpp if has_mpp else None)
        for slide_id, task in sorted(tasks.items())
    ]
    listed = pd.DataFrame(rows, columns=["uri", "slide_id", "case_id", "mpp"])
    storage.put_bytes(table, listed.to_csv(index=False).encode())
    config = PatchJob(
        work=work,
        slides=SlidesConfig(source=table),
        patch=dense.recipe.patch,
        tissue=_tissue_rule(job.work),
        contours=storage.join(job.work, "contours"),
        pictures=False,
        reader=job.reader,
        staging=job.staging,
        cluster=job.cluster,
    )
    summary = run_patching(config, reporter)
    return {one.slide_id: f"no overlapping patches: {one.reason}" for one in summary.left_out}


def _tissue_rule(work: str) -> TissueParams:
    """How the workspace's patches were placed on its contours, which were chosen already."""
    path = Workspace(work).config("patch")
    if not storage.exists(path):
        return TissueParams()
    tree = yaml.safe_load(storage.read_bytes(path))
    return PatchJob.model_validate(tree).tissue.model_copy(
        update={"keep_ids": (), "exclude_ids": ()}
    )


def _extract(
    dense: DensePatches, tasks: Mapping[str, MapTask], reporter: Reporter
) -> dict[str, str]:
    """Extracts what is missing of the overlapping patches; why that failed, by slide."""
    patched = dense.workspace.read_slides()
    recipe, job = dense.recipe, dense.job
    store = FeatureStore.open_or_create(dense.root, recipe, layout=dense.store.header.layout)
    there = {row.slide_id: row.coords_checksum for row in store.index.rows()}
    if all(there.get(one) == patched[one].coords_checksum for one in tasks):
        return {}
    config = ExtractJob(
        work=dense.workspace.root,
        encoder=_encoder(dense),
        store=dense.root,
        layout=dense.store.header.layout,
        dtype=recipe.dtype,
        replace_stale=True,
        actors=job.dense.actors,
        reader=job.reader,
        staging=job.staging,
        cluster=job.cluster,
    )
    try:
        summary = run_extraction(config, reporter, only=set(tasks))
    except (ConfigError, RecipeMismatchError) as error:
        encoder = recipe.encoder
        raise ConfigError(
            f"--overlap: overlapping patches need {encoder.name} with the weights of the stored "
            f"features ({encoder.weights}, SHA-256 {encoder.weights_sha256[:12]}...), and these "
            f"cannot be had; name their file with --weights. {error}"
        ) from error
    return {
        one.slide_id: f"no features of its overlapping patches: {one.reason}"
        for one in summary.left_out
        if one.slide_id in tasks
    }


def _encoder(dense: DensePatches) -> EncoderConfig:
    """The encoder of the stored features, its weights where the extraction found them."""
    info = dense.recipe.encoder
    settings = {
        "name": info.name,
        "precision": info.precision,
        "input_size": None if info.resize_px else info.input_size_px,
        "compile": info.compiled,
        "batch_size": dense.job.dense.batch_size,
        **_weights(dense.store, info),
    }
    if dense.job.dense.weights:
        settings["weights"] = dense.job.dense.weights
    return EncoderConfig.model_validate(settings)


def _weights(store: FeatureStore, info: EncoderInfo) -> dict[str, object]:
    """Where the extraction of a store had its weights from, as its config says."""
    if info.weights.startswith("random seed "):
        return {"weights": "random", "seed": int(info.weights.rsplit(" ", 1)[1])}
    path = storage.join(store.root, "config.yaml")
    if not storage.exists(path):
        return {}
    config = ExtractJob.model_validate(yaml.safe_load(storage.read_bytes(path)))
    own = [one for one in config.encoder_configs if one.name == info.name]
    return {"weights": own[0].weights} if own else {}
