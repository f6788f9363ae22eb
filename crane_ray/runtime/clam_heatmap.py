"""CLAM's heatmap YAML: its keys, so that no other is taken. Imports no ray."""

from typing import Any, Literal

from pydantic import Field

from crane_ray.config import Config


class ExpArguments(Config):
    """exp_arguments."""

    n_classes: int | None = None
    save_exp_code: str | None = None
    raw_save_dir: str | None = None
    production_save_dir: str | None = None
    batch_size: int | None = None


class DataArguments(Config):
    """data_arguments."""

    data_dir: str | dict[str, str] | None = None
    data_dir_key: str | None = None
    process_list: str | None = None
    preset: str | None = None
    slide_ext: str | None = None
    label_dict: dict[Any, Any] | None = None


class PatchingArguments(Config):
    """patching_arguments."""

    patch_size: int | None = None
    overlap: float = Field(0, ge=0, lt=1)
    patch_level: int | None = None
    custom_downsample: int | None = None


class EncoderArguments(Config):
    """encoder_arguments."""

    model_name: str | None = None
    target_img_size: int | None = None


class ModelArguments(Config):
    """model_arguments."""

    ckpt_path: str
    """Checkpoint of the network (s_0_checkpoint.pt)."""
    model_type: str | None = None
    initiate_fn: str | None = None
    model_size: str | None = None
    drop_out: float | bool | None = None
    embed_dim: int | None = None


class HeatmapArguments(Config):
    """heatmap_arguments; the defaults of CLAM's own file."""

    vis_level: int = 1
    alpha: float = 0.4
    blank_canvas: bool = False
    save_orig: bool = True
    save_ext: str = "jpg"
    use_ref_scores: bool = True
    blur: bool = False
    use_center_shift: bool = True
    use_roi: bool = False
    calc_heatmap: bool = True
    binarize: bool = False
    binary_thresh: float = -1
    custom_downsample: int = 1
    cmap: str = "jet"


class SampleArguments(Config):
    """One of sample_arguments.samples."""

    name: str
    """What the sample is called."""
    sample: bool = True
    seed: int = 1
    k: int = 15
    mode: Literal["topk", "reverse_topk", "range_sample"] = "topk"
    score_start: float | None = None
    score_end: float | None = None


class SamplesArguments(Config):
    """sample_arguments."""

    samples: tuple[SampleArguments, ...] | None = None


class ClamHeatmap(Config):
    """The whole file."""

    exp_arguments: ExpArguments = ExpArguments()
    data_arguments: DataArguments = DataArguments()
    patching_arguments: PatchingArguments = PatchingArguments()
    encoder_arguments: EncoderArguments = EncoderArguments()
    model_arguments: ModelArguments
    """The network; needed for its ckpt_path."""
    heatmap_arguments: HeatmapArguments = HeatmapArguments()
    sample_arguments: SamplesArguments = SamplesArguments()
