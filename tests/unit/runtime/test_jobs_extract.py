"""What an extraction may be asked for: one encoder or several, and where their stores are."""

from pathlib import Path
from typing import Any

import pytest

from crane_ray.config import parse_setting
from crane_ray.errors import ConfigError
from crane_ray.features.encoder import EncoderConfig
from crane_ray.runtime.jobs import ExtractJob


def job(*settings: str, **fields: Any) -> ExtractJob:
    overrides = [("work", "/w"), *fields.items(), *(parse_setting(text) for text in settings)]
    return ExtractJob.load(None, overrides)


def test_one_encoder_is_the_default() -> None:
    assert job().encoder_configs == (EncoderConfig(),)
    assert job().store_roots == ("/w/features/resnet50_trunc",)


def test_settings_of_the_encoder_reach_the_one_that_is_named() -> None:
    (only,) = job("encoder.precision=fp32", "encoder.input_size=96", encoders=["uni_v1"])\
        .encoder_configs  # fmt: skip
    assert only == EncoderConfig(name="uni_v1", precision="fp32", input_size=96)


def test_several_encoders_share_settings_and_have_a_store_each() -> None:
    asked = job("encoder.weights=random", "encoder.batch_size=8", encoders=["uni_v1", "virchow2"])
    assert asked.encoder_configs == tuple(
        EncoderConfig(name=name, weights="random", batch_size=8) for name in ("uni_v1", "virchow2")
    )
    assert asked.store_roots == ("/w/features/uni_v1", "/w/features/virchow2")


def test_an_encoder_with_settings_of_its_own_shares_the_others() -> None:
    own = {"name": "uni_v1", "weights": "/u.pth", "precision": "bf16"}
    asked = job("encoder.precision=fp32", "encoder.input_size=96", encoders=["virchow2", own])
    assert asked.encoder_configs == (
        EncoderConfig(name="virchow2", precision="fp32", input_size=96),
        EncoderConfig(name="uni_v1", weights="/u.pth", precision="bf16", input_size=96),
    )


def test_encoders_of_hubs_get_folders_of_their_own() -> None:
    roots = job(encoders=["timm:resnet18", "timm:hf-hub:ORG/NAME", "my.own.module"]).store_roots
    assert len(set(roots)) == 3
    for root in roots:
        assert Path(root).parent == Path("/w/features")
        assert ":" not in Path(root).name


def test_a_store_can_be_named_for_one_encoder() -> None:
    assert job(store="/s").store_roots == ("/s",)
    assert job(store="/s", encoders=["uni_v1"]).store_roots == ("/s",)
    assert job(store="s").store_roots == (str(Path.cwd() / "s"),)
    assert job(work="s3://bucket/w").store_roots == ("s3://bucket/w/features/resnet50_trunc",)


@pytest.mark.parametrize(
    ("settings", "encoders", "message"),
    [
        (["store=/s"], ["uni_v1", "virchow2"], r"\(--store\) names one store; .*WORK/features/ENC"),
        (["encoder.weights=/u.pth"], ["uni_v1", "virchow2"], r"'/u\.pth' cannot fit several"),
        (["encoder.weights=imagenet"], ["uni_v1", "virchow2"], r"encoders: \[\{name: uni_v1, wei"),
        ([], ["uni_v1", "uni_v1"], r"two of them share a store: /w/features/uni_v1, /w/feat"),
        ([], ["uni_v1", {"name": "uni_v1", "weights": "/u.pth"}], r"two of them share a store"),
        ([], [{"name": "uni_v1", "batch_size": 8}], r"give encoder\.batch_size \(--batch-size\)"),
        ([], [{"nme": "uni_v1"}], r"nme"),
        (["encoder.weights=/u.pth"], [{"name": "uni_v1"}, "virchow2"], r"cannot fit several"),
    ],
)
def test_what_does_not_fit_several_encoders_is_refused(
    settings: list[str], encoders: list[Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        job(*settings, encoders=encoders)


def test_weights_of_one_encoder_may_be_a_file() -> None:
    assert job("encoder.weights=/u.pth", encoders=["uni_v1"]).encoder_configs[0].weights == "/u.pth"
    asked = job("encoder.weights=random", encoders=["uni_v1", "virchow2"])
    assert {one.weights for one in asked.encoder_configs} == {"random"}


def test_a_job_is_the_same_after_yaml(tmp_path: Path) -> None:
    own = {"name": "uni_v1", "weights": "/u.pth"}
    asked = job("encoder.precision=fp32", encoders=["virchow2", own])
    (tmp_path / "config.yaml").write_text(asked.to_yaml())
    again = ExtractJob.load(tmp_path / "config.yaml")
    assert again.store_roots == asked.store_roots
    assert again.encoder_configs == asked.encoder_configs
