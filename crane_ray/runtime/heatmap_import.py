"""CLAM's heatmap YAML as a config of ``crane-ray heatmap``. Imports no ray."""

from dataclasses import dataclass
from typing import Any

import yaml

from crane_ray import storage
from crane_ray.config import read_yaml, set_path
from crane_ray.errors import ConfigError
from crane_ray.maps.folder import FOLDER_NAME
from crane_ray.runtime.clam_heatmap import ClamHeatmap, SampleArguments
from crane_ray.runtime.heatmap_jobs import HeatmapJob

FROM_CHECKPOINT = "read from the checkpoint"
FROM_FEATURES = "that of the stored features, which maps are made from; check that it is the same"
FROM_WORKSPACE = "slides are found by the workspace's slides.parquet (crane-ray patch --slides)"
NOT_TAKEN = {
    "exp_arguments.n_classes": FROM_CHECKPOINT,
    "exp_arguments.raw_save_dir": "scores lie beside the maps, in out/scores and out/clam",
    "exp_arguments.production_save_dir": "maps go to out, in the workspace, where crane-ray view "
    "finds them",
    "data_arguments.data_dir": FROM_WORKSPACE,
    "data_arguments.data_dir_key": FROM_WORKSPACE,
    "data_arguments.slide_ext": FROM_WORKSPACE,
    "data_arguments.preset": "tissue is not segmented again: maps show the patches that were "
    "trained on (crane-ray patch --preset)",
    "data_arguments.label_dict": "classes are called as in the checkpoint, or class0, class1, ...",
    "patching_arguments.patch_size": FROM_FEATURES,
    "patching_arguments.patch_level": FROM_FEATURES,
    "patching_arguments.custom_downsample": FROM_FEATURES,
    "encoder_arguments.model_name": FROM_FEATURES,
    "encoder_arguments.target_img_size": FROM_FEATURES,
    "model_arguments.model_type": FROM_CHECKPOINT,
    "model_arguments.initiate_fn": FROM_CHECKPOINT,
    "model_arguments.model_size": FROM_CHECKPOINT,
    "model_arguments.drop_out": FROM_CHECKPOINT,
    "model_arguments.embed_dim": FROM_CHECKPOINT,
    "heatmap_arguments.use_center_shift": "overlapping patches lie on a lattice that begins at "
    "each contour's bounding box, and are kept by the contour_fn of crane-ray patch",
}
"""Keys without a counterpart, and what stands in for them."""

SAME = {
    "exp_arguments.batch_size": "dense.batch_size",
    "model_arguments.ckpt_path": "model",
    "heatmap_arguments.vis_level": "maps.vis_level",
    "heatmap_arguments.alpha": "maps.alpha",
    "heatmap_arguments.blank_canvas": "maps.blank_canvas",
    "heatmap_arguments.save_orig": "maps.save_slide",
    "heatmap_arguments.blur": "maps.blur",
    "heatmap_arguments.binarize": "maps.binarize",
    "heatmap_arguments.binary_thresh": "maps.threshold",
    "heatmap_arguments.custom_downsample": "maps.custom_downsample",
    "heatmap_arguments.cmap": "maps.cmap",
}
"""Keys that mean the same here, and their names."""


@dataclass(frozen=True)
class ImportedHeatmap:
    """What a file of CLAM's came to."""

    job: HeatmapJob
    yaml: str
    """The config with just what the file says."""
    notes: tuple[str, ...]
    """Each key of the file that is not taken, or means something else here."""


def import_heatmap(path: str, work: str, *, features: str | None = None) -> ImportedHeatmap:
    """The config of ``crane-ray heatmap`` that a heatmap YAML of CLAM's asks for.

    Args:
        path: of the file.
        work: workspace with the slides that it is about.
        features: where their features lie; found in the workspace where not given.

    Raises:
        ConfigError: it is no such file: a key is unknown (the nearest one is named), a value is
            impossible, or the checkpoint is not named.
    """
    given = read_yaml(path)
    clam = _validated(path, given)
    tree: dict[str, Any] = {"work": work}
    if features is not None:
        tree["features"] = features
    notes = _not_taken(given)
    for key, ours in SAME.items():
        value = _value(clam.model_dump(), key)
        if value is not None:
            set_path(tree, ours, value)
    code = clam.exp_arguments.save_exp_code
    if code:
        tree["out"] = storage.join(work, FOLDER_NAME, code)
    notes += _formats(clam, tree) + _overlap(clam, tree) + _slides(clam, tree, path)
    notes += _samples(clam, tree)
    try:
        job = HeatmapJob.load(None, tree.items())
    except ConfigError as error:
        raise ConfigError(f"{path}: under the names of crane-ray: {_bare(error)}") from None
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    return ImportedHeatmap(job, text, tuple(notes))


def _validated(path: str, tree: dict[str, Any]) -> ClamHeatmap:
    """The file's values; a group that is there without keys counts as not there."""
    filled = {key: value for key, value in tree.items() if value is not None}
    try:
        return ClamHeatmap.load(None, filled.items())
    except ConfigError as error:
        raise ConfigError(f"{path}: {_bare(error)}") from None


def _bare(error: ConfigError) -> str:
    return str(error).removeprefix("config: ")


def _not_taken(given: dict[str, Any]) -> list[str]:
    """The keys of the file without a counterpart, those of one reason in one line."""
    found: dict[str, list[str]] = {}
    for key, why in NOT_TAKEN.items():
        if _value(given, key) is not None:
            found.setdefault(why, []).append(key)
    return [f"{', '.join(keys)}: {why}" for why, keys in found.items()]


def _value(tree: dict[str, Any], key: str) -> Any:
    group, _, name = key.partition(".")
    below = tree.get(group)
    return below.get(name) if isinstance(below, dict) else None


def _formats(clam: ClamHeatmap, tree: dict[str, Any]) -> list[str]:
    suffix = clam.heatmap_arguments.save_ext.lstrip(".").lower()
    set_path(tree, "maps.formats", [{"jpeg": "jpg", "tiff": "tif"}.get(suffix, suffix)])
    return []


def _overlap(clam: ClamHeatmap, tree: dict[str, Any]) -> list[str]:
    """Coarse or dense, and what percentiles are taken among."""
    how = clam.heatmap_arguments
    overlap, notes = clam.patching_arguments.overlap, []
    if overlap and not how.calc_heatmap:
        notes.append(
            "heatmap_arguments.calc_heatmap false: no overlapping patches, so that "
            f"patching_arguments.overlap {overlap:g} is not taken"
        )
        overlap = 0
    if overlap:
        set_path(tree, "dense.overlap", overlap)
        notes.append(
            f"patching_arguments.overlap {overlap:g}: dense.overlap; the weights of the encoder "
            "must be at hand"
        )
    scale = "reference" if overlap and how.use_ref_scores else "percentile"
    if how.use_ref_scores and not overlap:
        notes.append(
            "heatmap_arguments.use_ref_scores: without overlap a slide's own patches are the "
            "reference: maps.scale percentile"
        )
    set_path(tree, "maps.scale", scale)
    return notes


def _slides(clam: ClamHeatmap, tree: dict[str, Any], path: str) -> list[str]:
    """Which slides; CLAM keeps its lists in a folder beside that of its configs."""
    notes, listed = [], clam.data_arguments.process_list
    if clam.heatmap_arguments.use_roi:
        notes.append(
            "heatmap_arguments.use_roi: the columns x1, x2, y1, y2 of the process list are not "
            "read; run crane-ray heatmap --slide ID --roi X,Y,W,H for such a slide"
        )
    if listed:
        configs = storage.absolute(path).rpartition("/")[0]
        beside = storage.join(configs.rpartition("/")[0], "process_lists", listed)
        places = (storage.absolute(listed), beside)
        found = next((place for place in places if storage.exists(place)), None)
        tree["slides_of"] = found or places[0]
        notes.append(
            "data_arguments.process_list: slides_of, of which the column slide_id is read; labels, "
            "parameters and process are not"
            + ("" if found else f" (no such file: {places[0]}; put its place there)")
        )
    return notes


def _samples(clam: ClamHeatmap, tree: dict[str, Any]) -> list[str]:
    wanted = clam.sample_arguments.samples or ()
    set_path(tree, "maps.samples", [_sample(one) for one in wanted if one.sample])
    return [
        f"sample_arguments.samples {one.name}: sample is false, so that it is left out"
        for one in wanted
        if not one.sample
    ]


def _sample(one: SampleArguments) -> dict[str, Any]:
    return one.model_dump(exclude={"sample"}, exclude_none=True)
