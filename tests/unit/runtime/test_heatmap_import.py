"""CLAM's heatmap YAML as a config: what is taken, what is named, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from crane_ray.cli.main import cli
from crane_ray.errors import ConfigError
from crane_ray.runtime.clam_heatmap import ClamHeatmap
from crane_ray.runtime.heatmap_import import NOT_TAKEN, SAME, import_heatmap
from crane_ray.runtime.heatmap_jobs import HeatmapJob

CLAM: dict[str, dict[str, Any]] = {
    "exp_arguments": {
        "n_classes": 2,
        "save_exp_code": "HEATMAP_OUTPUT",
        "raw_save_dir": "heatmaps/heatmap_raw_results",
        "production_save_dir": "heatmaps/heatmap_production_results",
        "batch_size": 64,
    },
    "data_arguments": {
        "data_dir": "heatmaps/demo/slides/",
        "data_dir_key": "source",
        "process_list": "heatmap_demo_dataset.csv",
        "preset": "presets/bwh_biopsy.csv",
        "slide_ext": ".svs",
        "label_dict": {"normal_tissue": 0, "tumor_tissue": 1},
    },
    "patching_arguments": {
        "patch_size": 256, "overlap": 0.5, "patch_level": 0, "custom_downsample": 1,
    },
    "encoder_arguments": {"model_name": "resnet50_trunc", "target_img_size": 224},
    "model_arguments": {
        "ckpt_path": "/results/s_0_checkpoint.pt",
        "model_type": "clam_sb",
        "initiate_fn": "initiate_model",
        "model_size": "small",
        "drop_out": 0.0,
        "embed_dim": 1024,
    },
    "heatmap_arguments": {
        "vis_level": 1,
        "alpha": 0.3,
        "blank_canvas": False,
        "save_orig": True,
        "save_ext": "png",
        "use_ref_scores": True,
        "blur": True,
        "use_center_shift": True,
        "use_roi": False,
        "calc_heatmap": True,
        "binarize": True,
        "binary_thresh": 0.25,
        "custom_downsample": 2,
        "cmap": "jet",
    },
    "sample_arguments": {
        "samples": [
            {"name": "topk", "sample": True, "seed": 1, "k": 15, "mode": "topk"},
            {"name": "low", "sample": False, "seed": 1, "k": 15, "mode": "reverse_topk"},
            {
                "name": "mid", "sample": True, "seed": 2, "k": 5, "mode": "range_sample",
                "score_start": 0.4, "score_end": 0.6,
            },
        ]
    },
}  # fmt: skip
"""Every key of CLAM's file."""


def written(path: Path, **groups: dict[str, Any] | None) -> str:
    """The file with some groups' keys changed; None leaves a key, or a group, out."""
    tree = {name: dict(group) for name, group in CLAM.items()}
    for name, changes in groups.items():
        if changes is None:
            del tree[name]
            continue
        tree.setdefault(name, {}).update(changes)
        tree[name] = {key: value for key, value in tree[name].items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def test_what_means_the_same_is_taken(tmp_path: Path) -> None:
    found = import_heatmap(written(tmp_path / "clam.yaml"), "/cohort", features="/features")
    job = found.job
    assert (job.model, job.work) == ("/results/s_0_checkpoint.pt", "/cohort")
    assert (job.features, job.folder) == ("/features", "/cohort/heatmaps/HEATMAP_OUTPUT")
    assert (job.dense.overlap, job.dense.batch_size) == (0.5, 64)
    maps = job.maps
    assert (maps.scale, maps.cmap, maps.alpha, maps.vis_level) == ("reference", "jet", 0.3, 1)
    assert (maps.blur, maps.binarize, maps.threshold) == (True, True, 0.25)
    assert (maps.formats, maps.save_slide, maps.custom_downsample) == (("png",), True, 2)
    assert not maps.blank_canvas
    assert [(one.name, one.mode, one.k, one.seed) for one in maps.samples] == [
        ("topk", "topk", 15, 1),
        ("mid", "range_sample", 5, 2),
    ]
    assert (maps.samples[1].score_start, maps.samples[1].score_end) == (0.4, 0.6)


def test_the_config_is_read_back_as_it_was(tmp_path: Path) -> None:
    found = import_heatmap(written(tmp_path / "clam.yaml"), "/cohort")
    (tmp_path / "ours.yaml").write_text(found.yaml)
    assert HeatmapJob.load(tmp_path / "ours.yaml") == found.job


def test_each_key_is_taken_or_named(tmp_path: Path) -> None:
    found = import_heatmap(written(tmp_path / "clam.yaml"), "/cohort")
    told = "\n".join(found.notes)
    read = {
        "exp_arguments.save_exp_code", "data_arguments.process_list",
        "patching_arguments.overlap", "heatmap_arguments.save_ext",
        "heatmap_arguments.use_ref_scores", "heatmap_arguments.calc_heatmap",
        "heatmap_arguments.use_roi",
    }  # fmt: skip
    keys = {
        f"{group}.{key}"
        for group, field in ClamHeatmap.model_fields.items()
        for key in field.annotation.model_fields  # type: ignore[union-attr]
        if group != "sample_arguments"
    }
    assert keys == {f"{group}.{key}" for group, own in CLAM.items() for key in own} - {
        "sample_arguments.samples"
    }
    assert keys == {*SAME, *NOT_TAKEN, *read}
    for key in NOT_TAKEN:
        assert key in told
    assert "samples low: sample is false" in told
    assert "data_arguments.process_list: slides_of" in told


def test_without_overlapping_patches_maps_are_of_the_stored_ones(tmp_path: Path) -> None:
    coarse = import_heatmap(
        written(tmp_path / "a.yaml", patching_arguments={"overlap": 0}), "/cohort"
    )
    assert (coarse.job.dense.overlap, coarse.job.maps.scale) == (0, "percentile")
    assert any("use_ref_scores" in note for note in coarse.notes)
    skipped = import_heatmap(
        written(tmp_path / "b.yaml", heatmap_arguments={"calc_heatmap": False}), "/cohort"
    )
    assert skipped.job.dense.overlap == 0
    assert any("overlap 0.5 is not taken" in note for note in skipped.notes)
    own = import_heatmap(
        written(tmp_path / "c.yaml", heatmap_arguments={"use_ref_scores": False}), "/cohort"
    )
    assert (own.job.dense.overlap, own.job.maps.scale) == (0.5, "percentile")


def test_a_process_list_is_looked_for_where_clam_keeps_them(tmp_path: Path) -> None:
    path = written(tmp_path / "heatmaps" / "configs" / "clam.yaml")
    missing = import_heatmap(path, "/cohort")
    assert any("no such file" in note for note in missing.notes)
    there = tmp_path / "heatmaps" / "process_lists" / "heatmap_demo_dataset.csv"
    there.parent.mkdir()
    there.write_text("slide_id\na\n")
    assert import_heatmap(path, "/cohort").job.slides_of == str(there)


def test_a_region_of_interest_is_named(tmp_path: Path) -> None:
    found = import_heatmap(written(tmp_path / "a.yaml", heatmap_arguments={"use_roi": True}), "/w")
    assert any("--roi X,Y,W,H" in note for note in found.notes)


def test_what_the_file_leaves_out_is_clams_default(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "model_arguments: {ckpt_path: /s_0_checkpoint.pt}\ndata_arguments:\n"
    )
    job = import_heatmap(str(tmp_path / "a.yaml"), "/cohort").job
    assert (job.maps.cmap, job.maps.vis_level, job.slides_of) == ("jet", 1, None)
    assert job.maps.samples == ()


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        ("heatmap_arguments", {"cmapp": "jet"}, "did you mean heatmap_arguments.cmap"),
        ("exp_argument", {"n_classes": 2}, "did you mean exp_arguments"),
        ("patching_arguments", {"overlap": 1.0}, "patching_arguments.overlap"),
        ("model_arguments", {"ckpt_path": None}, "model_arguments.ckpt_path: missing"),
        ("heatmap_arguments", {"cmap": "jett"}, "did you mean jet"),
        ("heatmap_arguments", {"save_ext": "bmp"}, "'bmp'"),
    ],
)
def test_what_is_wrong_is_refused_by_name(
    tmp_path: Path, group: str, changes: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "clam.yaml", **{group: changes})
    with pytest.raises(ConfigError, match=r"clam\.yaml: ") as refused:
        import_heatmap(path, "/cohort")
    assert message in str(refused.value)


def test_the_command_writes_a_config_and_names_what_is_not_taken(tmp_path: Path) -> None:
    path, out = written(tmp_path / "clam.yaml"), tmp_path / "ours.yaml"
    words = ["import", "heatmap", "--from", path, "--work", str(tmp_path), "--out", str(out)]
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    assert result.exception is None
    assert HeatmapJob.load(out).maps.cmap == "jet"
    again = CliRunner().invoke(cli, words, standalone_mode=False)
    assert isinstance(again.exception, ConfigError)
    assert "--overwrite" in str(again.exception)
    assert CliRunner().invoke(cli, [*words, "--overwrite"], standalone_mode=False).exception is None
