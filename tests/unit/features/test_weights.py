import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crane_ray.errors import ConfigError
from crane_ray.features.encoder import EncoderCard, EncoderConfig
from crane_ray.features.weights import Weights, fetch_weights, read_state

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


def test_published_weights_are_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def download(url: str, path: str, *, hash_prefix: str, progress: bool) -> None:
        calls.append((url, hash_prefix, progress))
        Path(path).write_bytes(b"net")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    found = [fetch_weights(EncoderConfig(weights="published"), CARD) for _ in range(2)]
    assert calls == [(URL, "0123abcd", False)]
    assert {one.label for one in found} == {"published"}
    assert {one.sha256 for one in found} == {hashlib.sha256(b"net").hexdigest()}


def test_a_failed_download_says_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    place = tmp_path / "checkpoints" / "net-0123abcd.pth"
    with pytest.raises(ConfigError, match="no route to host") as caught:
        fetch_weights(EncoderConfig(weights="published"), CARD)
    assert str(place) in str(caught.value)


def test_a_state_dict_is_read_also_out_of_a_checkpoint() -> None:
    state = {"a": torch.ones(2)}
    for data in (saved(state), saved({"state_dict": state, "epoch": 1})):
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
