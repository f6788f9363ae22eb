"""timm:NAME and timm:hf-hub:ORG/NAME against timm itself."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.errors import ConfigError
from crane_ray.features.cards import ENCODERS, encoder_info
from crane_ray.features.encoder import EncoderConfig
from crane_ray.features.torch_encoder import TorchEncoder, load_network
from crane_ray.features.weights import Weights
from crane_ray.plugins import load_plugin
from tests.unit.features.fetched import fetch_weights

timm = pytest.importorskip("timm", reason="the extra 'encoders' is not installed")
constants = pytest.importorskip("huggingface_hub.constants")

COMMIT = "ab" * 20
HALF = (0.5, 0.5, 0.5)


def plugin(argument: str) -> Any:
    return load_plugin(ENCODERS, f"timm:{argument}")


@pytest.mark.parametrize(
    ("name", "dim", "mean"),
    [
        ("resnet18", 512, (0.485, 0.456, 0.406)),
        ("mobilenetv3_small_100", 1024, (0.485, 0.456, 0.406)),
        ("vit_tiny_patch16_224.augreg_in21k", 192, HALF),
        ("convnext_atto", 320, (0.485, 0.456, 0.406)),
    ],
)
def test_a_card_comes_from_timms_tables(name: str, dim: int, mean: tuple[float, ...]) -> None:
    card = plugin(name).CARD
    config = timm.get_pretrained_cfg(name)
    assert (card.dim, card.mean, card.std) == (dim, mean, config.std)
    assert card.input_size_px == config.input_size[-1]
    assert card.interpolation == config.interpolation == "bicubic"
    assert card.hub is not None
    assert (card.hub.repo, card.hub.revision) == (config.hf_hub_id, None)
    features = plugin(name).build().eval()(torch.zeros(1, 3, 224, 224))
    assert features.shape == (1, dim)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"Unknown model \(resnet18000\); .*list_models"):
        _ = plugin("resnet18000").CARD
    with pytest.raises(ConfigError, match="lab/net"):
        _ = plugin("lab/net").CARD


def test_random_weights_are_seeded_and_a_published_file_fits_without_its_classifier() -> None:
    one, same = (load_network(plugin("resnet18"), Weights("r", "0", None)) for _ in range(2))
    assert torch.equal(one.state_dict()["conv1.weight"], same.state_dict()["conv1.weight"])
    whole = timm.create_model("resnet18", pretrained=False).eval()
    prepared = plugin("resnet18").prepare_state(whole.state_dict())
    assert set(prepared) == set(one.state_dict())
    one.load_state_dict(prepared)
    batch = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = whole.forward_head(whole.forward_features(batch), pre_logits=True)
        torch.testing.assert_close(one.eval()(batch), expected)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache with a repository in timm's format, and no way to the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--lab--small" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs" / "main").write_text(COMMIT)
    return folder


def write_model(folder: Path, **config: Any) -> Any:
    from safetensors.torch import save_file

    arguments = {"embed_dim": 48, "depth": 1, "num_heads": 3, "img_size": 64, "reg_tokens": 2}
    tree = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "global_pool": "token",
        "model_args": {**arguments, "num_classes": 0},
        "pretrained_cfg": {
            "input_size": [3, 64, 64],
            "mean": [0.7, 0.6, 0.7],
            "std": [0.2, 0.25, 0.2],
            "interpolation": "bilinear",
            "license": "mit",
        },
    }
    (folder / "config.json").write_text(json.dumps({**tree, **config}))
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0, **arguments).eval()
    save_file(network.state_dict(), folder / "model.safetensors")
    return network


def test_a_hub_model_brings_its_architecture_and_input(cached: Path) -> None:
    expected = write_model(cached)
    config = EncoderConfig(name="timm:hf-hub:lab/small")
    card = plugin("hf-hub:lab/small").CARD
    assert (card.dim, card.input_size_px, card.license) == (48, 64, "mit")
    assert (card.mean, card.std) == ((0.7, 0.6, 0.7), (0.2, 0.25, 0.2))
    assert card.interpolation == "bilinear"
    weights = fetch_weights(config, card, {})
    assert weights.label == f"lab/small@{COMMIT}/model.safetensors"

    # An actor has the weights alone: neither the hub nor its cache.
    (cached / "config.json").unlink()
    network = load_network(plugin("hf-hub:lab/small"), weights)
    info = encoder_info(config, card, patch_px=64, precision="fp32", label="", sha256="0")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    found = TorchEncoder(info, network, "cpu").encode(pixels)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (card.mean, card.std))
    with torch.inference_mode():
        np.testing.assert_allclose(found, expected((images - mean) / std).numpy(), atol=1e-4)


def test_a_hub_model_at_a_commit(cached: Path) -> None:
    write_model(cached)
    card = plugin(f"hf-hub:lab/small@{COMMIT}").CARD
    assert card.hub is not None
    assert card.hub.revision == COMMIT


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"architecture": None, "model_type": "dinov2"}, "names no architecture of timm's"),
        ({"global_pool": ""}, r"gives \(19, 48\) for an image, not one vector"),
    ],
)
def test_a_hub_model_that_does_not_fit_is_refused(
    cached: Path, config: dict[str, Any], message: str
) -> None:
    write_model(cached, **config)
    with pytest.raises(ConfigError, match=message):
        _ = plugin("hf-hub:lab/small").CARD


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224", "resnet18"])
def test_a_network_that_is_loaded_equals_one_that_was_drawn(name: str) -> None:
    """EVA-02 has tables of rotations that are in no file."""
    source = timm.create_model(name, pretrained=False, num_classes=0).eval()
    buffer = io.BytesIO()
    torch.save(source.state_dict(), buffer)
    data = np.frombuffer(buffer.getvalue(), dtype=np.uint8)
    network = load_network(plugin(name), Weights("w", "0", data)).eval()
    batch = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(network(batch), source(batch))
