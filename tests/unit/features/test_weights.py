import hashlib
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from crane_ray.errors import ConfigError
from crane_ray.features.encoder import EncoderCard, EncoderConfig, HubWeights
from crane_ray.features.weights import (
    Weights,
    find_weights,
    read_state,
    read_weights,
    variable_names,
)
from tests.unit.features.fetched import fetch_weights

URL = "https://models.example/net-0123abcd.pth"
CARD = EncoderCard(dim=4, input_size_px=8, downloads={"published": URL})


def weights(data: bytes, suffix: str = ".pth") -> Weights:
    return Weights("w.pth", "0", np.frombuffer(data, dtype=np.uint8), suffix=suffix)


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def test_a_local_file_is_known_by_its_name_and_hash(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"some bytes")
    found = fetch_weights(EncoderConfig(weights=str(path)), CARD)
    assert (found.label, found.suffix) == ("mine.safetensors", ".safetensors")
    assert found.sha256 == hashlib.sha256(b"some bytes").hexdigest()
    assert found.data is not None
    assert found.data.tobytes() == b"some bytes"


def test_random_weights_are_known_by_their_seed() -> None:
    one, two = (fetch_weights(EncoderConfig(weights="random", seed=s), CARD) for s in (1, 2))
    assert one.data is None
    assert (one.label, one.seed) == ("random seed 1", 1)
    assert one.sha256 != two.sha256


def test_what_is_neither_file_nor_name_is_refused(tmp_path: Path) -> None:
    for name in ("imagenet", str(tmp_path)):
        with pytest.raises(ConfigError, match="not one of published, random; give --weights FILE"):
            fetch_weights(EncoderConfig(weights=name), CARD)


def test_an_encoder_without_published_weights_says_so() -> None:
    with pytest.raises(ConfigError, match="has no published weights; give --weights FILE, or rand"):
        fetch_weights(EncoderConfig(), EncoderCard(dim=4, input_size_px=8), {})


def test_the_published_ones_are_taken_where_nothing_is_said(tmp_path: Path) -> None:
    source = find_weights(EncoderConfig(), CARD, {})
    assert (source.label, source.url) == ("published", URL)
    hub = replace(CARD, hub=HubWeights("org/net"))
    assert find_weights(EncoderConfig(weights="published"), hub, {}) == source


def test_the_environment_may_name_the_file_and_a_config_overrules_it(tmp_path: Path) -> None:
    card = replace(CARD, environment=("NET_CKPT_PATH",))
    files = {name: tmp_path / f"{name}.bin" for name in ("clam", "ours", "config")}
    for file in files.values():
        file.write_bytes(file.name.encode())
    environment = {"NET_CKPT_PATH": str(files["clam"])}
    assert find_weights(EncoderConfig(), card, environment).label == "clam.bin"
    environment["CRANE_RAY_RESNET50_TRUNC_WEIGHTS"] = str(files["ours"])
    assert find_weights(EncoderConfig(), card, environment).label == "ours.bin"
    named = EncoderConfig(weights=str(files["config"]))
    assert find_weights(named, card, environment).label == "config.bin"
    assert find_weights(EncoderConfig(), CARD, {"NET_CKPT_PATH": "x"}).label == "published"
    assert find_weights(EncoderConfig(), card, {"NET_CKPT_PATH": ""}).label == "published"


def test_a_variable_that_names_no_file_is_named() -> None:
    card = replace(CARD, environment=("NET_CKPT_PATH",))
    with pytest.raises(
        ConfigError, match=r"'/gone.bin' \(from the environment variable NET_CKPT_P"
    ):
        find_weights(EncoderConfig(), card, {"NET_CKPT_PATH": "/gone.bin"})


def test_the_variable_of_every_encoder() -> None:
    names = {
        "uni_v1": "CRANE_RAY_UNI_V1_WEIGHTS",
        "my_lab.nets": "CRANE_RAY_NETS_WEIGHTS",
        "timm:hf-hub:org/net.x": "CRANE_RAY_TIMM_HF_HUB_ORG_NET_X_WEIGHTS",
    }
    for name, variable in names.items():
        assert variable_names(name, CARD) == [variable]


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_large_file_is_read_where_the_actor_sees_it(tmp_path: Path, suffix: str) -> None:
    path, state = tmp_path / f"net{suffix}", {"a": torch.arange(5.0)}
    path.write_bytes(saved(state) if suffix == ".bin" else save(state))
    config = EncoderConfig(weights=str(path))
    found = read_weights(config, CARD, find_weights(config, CARD), by_path=True)
    whole = fetch_weights(config, CARD)
    assert found.data is None
    assert not found.are_random
    assert (found.sha256, found.label, found.path) == (whole.sha256, path.name, str(path))
    assert torch.equal(read_state(found)["a"], read_state(whole)["a"])

    path.write_bytes(saved({"a": torch.ones(5)}))
    with pytest.raises(ConfigError, match=f"{path.name}.*not the one that the driver read"):
        read_state(found)
    path.unlink()
    with pytest.raises(ConfigError, match="missing on this node"):
        read_state(found)


def test_a_large_file_of_an_old_torch_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save({"a": torch.arange(5.0)}, path, _use_new_zipfile_serialization=False)
    config = EncoderConfig(weights=str(path))
    found = read_weights(config, CARD, find_weights(config, CARD), by_path=True)
    assert torch.equal(read_state(found)["a"], torch.arange(5.0))


def test_what_the_network_is_built_with_goes_along() -> None:
    card = replace(CARD, build_arguments={"architecture": "vit"})
    assert fetch_weights(EncoderConfig(weights="random"), card).build_arguments == {
        "architecture": "vit"
    }


def test_published_weights_are_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(url: str, path: str, *, hash_prefix: str, progress: bool) -> None:
        calls.append((url, hash_prefix, progress))
        Path(path).write_bytes(b"net")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    found = [fetch_weights(EncoderConfig(weights="published"), CARD) for _ in range(2)]
    assert calls == [(URL, "0123abcd", False)]
    assert {one.label for one in found} == {"published"}
    assert (Path(torch.hub.get_dir()) / "checkpoints" / "net-0123abcd.pth").is_file()
    assert {one.sha256 for one in found} == {hashlib.sha256(b"net").hexdigest()}


def test_a_failed_download_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    place = tmp_path / "hub" / "checkpoints" / "net-0123abcd.pth"
    with pytest.raises(ConfigError, match="no route to host") as caught:
        fetch_weights(EncoderConfig(weights="published"), CARD)
    assert str(place) in str(caught.value)


def test_a_state_dict_is_read_also_out_of_a_checkpoint() -> None:
    state = {"a": torch.ones(2)}
    nested = {"model": {"state_dict": state}, "optimizer": {"lr": 1.0}}
    for data in (saved(state), saved({"state_dict": state, "epoch": 1}), saved(nested)):
        assert torch.equal(read_state(weights(data))["a"], torch.ones(2))


@pytest.mark.parametrize(
    ("data", "suffix", "message"),
    [
        (b"no weights", ".pth", "cannot be read"),
        (b"no weights", ".safetensors", "cannot be read"),
        (saved({"a": torch.ones(2)})[:-40], ".pth", "cannot be read"),
        (saved([torch.ones(2)]), ".pth", "hold a list"),
        (saved(torch.ones(2)), ".pth", "hold a Tensor"),
        (saved(torch.nn.Linear(1, 1)), ".pth", "cannot be read"),
    ],
)
def test_what_is_no_state_dict_is_refused(data: bytes, suffix: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"weights w\.pth: {message}"):
        read_state(weights(data, suffix))
