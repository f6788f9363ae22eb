from dataclasses import replace

import pytest

from crane_ray.errors import ConfigError
from crane_ray.features.cards import (
    auto_precision,
    check_requirements,
    describe_encoders,
    encoder_info,
    scale_warning,
)
from crane_ray.features.encoder import EncoderCard, EncoderConfig, EncoderInfo
from crane_ray.plugins import plugin_names
from crane_ray.slides.patches import PatchSpec

CARD = EncoderCard(
    dim=4,
    input_size_px=224,
    token_px=14,
    interpolation="bicubic",
    resize_px=256,
    recommended_mpp=(0.5, 0.25),
    recommended_patch_px=(256,),
)


def info_of(card: EncoderCard = CARD, input_size: int | str | None = None) -> EncoderInfo:
    config = EncoderConfig.model_validate({"name": "net", "input_size": input_size})
    return encoder_info(config, card, patch_px=280, precision="bf16", label="w.bin", sha256="1")


def test_every_encoder_is_described() -> None:
    described = dict(describe_encoders())
    assert set(described) == {*plugin_names("crane_ray.features.encoders"), "timm:NAME"} - {"timm"}
    for name, card in described.items():
        if card is None:
            assert name == "timm:NAME"
            continue
        assert card.hub or card.downloads, name
        if card.hub is not None:
            assert card.hub.revision is not None, name
            assert len(card.hub.revision) == 40, name
            assert card.license, name
            assert card.recommended_mpp[0] == 0.5, name
        if card.token_px:
            assert card.input_size_px % card.token_px == 0, name


def test_clams_variables() -> None:
    described = dict(describe_encoders())
    for name, variable in (("uni_v1", "UNI_CKPT_PATH"), ("conch_v1", "CONCH_CKPT_PATH")):
        card = described[name]
        assert card is not None
        assert card.environment == (variable,)


def test_the_input_is_the_cards_unless_asked_otherwise() -> None:
    info = info_of()
    assert (info.input_size_px, info.resize_px, info.interpolation) == (224, 256, "bicubic")
    assert (info.weights, info.weights_sha256, info.precision) == ("w.bin", "1", "bf16")
    other = info_of(input_size=448)
    assert (other.input_size_px, other.resize_px) == (448, None)
    assert info_of(input_size="patch").input_size_px == 280


def test_an_input_that_cannot_be_cut_into_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"256 px cannot .* 14 px; take --input-size 252 or 266"):
        info_of(input_size=256)
    with pytest.raises(ConfigError, match=r"take --input-size 14,"):
        info_of(input_size=8)
    assert info_of(replace(CARD, token_px=None), 256).input_size_px == 256


def test_stores_from_before_keep_their_fingerprint() -> None:
    plain = info_of(EncoderCard(dim=4, input_size_px=8))
    assert set(plain.model_dump()) == {
        "name",
        "dim",
        "input_size_px",
        "mean",
        "std",
        "precision",
        "weights",
        "weights_sha256",
    }
    for info in (plain, info_of()):
        assert EncoderInfo.model_validate_json(info.model_dump_json()) == info
    assert "resize_px" in info_of().canonical_json()


def test_missing_packages_are_named() -> None:
    check_requirements("net", CARD)
    with pytest.raises(ConfigError, match=r"net: needs the package nobody_has_it, .*pip install"):
        check_requirements("net", replace(CARD, requires=("torch", "nobody_has_it")))


def test_the_authors_precision_is_for_gpus() -> None:
    asking = replace(CARD, precision="fp16")
    assert auto_precision(asking, "bf16", on_gpu=True) == "fp16"
    assert auto_precision(asking, "bf16", on_gpu=False) == "bf16"
    assert auto_precision(CARD, "fp32", on_gpu=True) == "fp32"


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        (PatchSpec(mpp=0.5, size_px=256), None),
        (PatchSpec(mpp=0.25, size_px=256), None),
        (PatchSpec(mpp=0.48, size_px=256), None),
        (PatchSpec(mpp=0.5, size_px=384), None),
        (PatchSpec(mpp=0.5, size_px=512), ["512 px", "shrunk 2.0 times", "--patch-size 256"]),
        (PatchSpec(mpp=0.5, size_px=96), ["96 px", "enlarged 2.7 times"]),
        (PatchSpec(mpp=1.0, size_px=256), ["trained at 0.5 or 0.25 um/px; these patches are 1 um"]),
        (PatchSpec(mpp=0.35, size_px=256), ["0.35 um/px; crane-ray patch --mpp 0.5 --patch-size"]),
        (PatchSpec(level=0, size_px=256), ["pyramid level 0", "from slide to slide", "--mpp 0.5"]),
    ],
)
def test_another_scale_than_the_one_of_training_is_told(
    spec: PatchSpec, parts: list[str] | None
) -> None:
    warning = scale_warning(info_of(), CARD, spec)
    if parts is None:
        assert warning is None
    else:
        assert warning is not None
        assert warning.startswith("net was trained at")
        for part in parts:
            assert part in warning


def test_an_encoder_without_a_scale_of_its_own_takes_any() -> None:
    card = replace(CARD, recommended_mpp=())
    assert scale_warning(info_of(card), card, PatchSpec(mpp=4.0)) is None
    loose = replace(CARD, recommended_patch_px=())
    assert scale_warning(info_of(loose), loose, PatchSpec(mpp=0.5, size_px=2048)) is None
