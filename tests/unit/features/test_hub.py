"""Files of the hub: from a cache laid out as the hub's own library does it, and its refusals."""

import sys
from pathlib import Path
from typing import Any

import pytest

from crane_ray.errors import ConfigError
from crane_ray.features.encoder import EncoderCard, EncoderConfig, HubWeights
from crane_ray.features.hub import fetch_file
from crane_ray.features.weights import find_weights
from tests.unit.features.fetched import fetch_weights

hub = pytest.importorskip("huggingface_hub", reason="the extra 'encoders' is not installed")
from huggingface_hub import constants, errors  # noqa: E402

COMMIT, NEWER = "ab" * 20, "cd" * 20
GATED = HubWeights("lab/net", ("model.safetensors", "pytorch_model.bin"), COMMIT, gated=True)
CARD = EncoderCard(dim=4, input_size_px=8, hub=GATED)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no way to the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def put(cache: Path, repo: str, commit: str, file: str, data: bytes) -> None:
    folder = cache / f"models--{repo.replace('/', '--')}"
    (folder / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
    (folder / "snapshots" / commit / file).write_bytes(data)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(NEWER)


def test_a_pinned_revision_is_read_from_the_cache(cache: Path) -> None:
    put(cache, "lab/net", COMMIT, "pytorch_model.bin", b"pinned")
    put(cache, "lab/net", NEWER, "pytorch_model.bin", b"newer")
    found = fetch_weights(EncoderConfig(name="net"), CARD, {})
    assert found.data is not None
    assert found.data.tobytes() == b"pinned"
    assert found.label == f"lab/net@{COMMIT}/pytorch_model.bin"
    assert found.suffix == ".bin"


def test_the_first_of_the_files_wins(cache: Path) -> None:
    for file in GATED.files:
        put(cache, "lab/net", COMMIT, file, file.encode())
    assert find_weights(EncoderConfig(), CARD, {}).suffix == ".safetensors"


@pytest.mark.parametrize(
    ("asked", "label"),
    [
        ("hf-hub:lab/net", f"lab/net@{COMMIT}/pytorch_model.bin"),
        ("hf_hub:Lab/net", f"lab/net@{COMMIT}/pytorch_model.bin"),
        (f"hf-hub:lab/net@{NEWER}", f"lab/net@{NEWER}/pytorch_model.bin"),
        ("hf-hub:lab/net@main", f"lab/net@{NEWER}/pytorch_model.bin"),
        (f"hf-hub:lab/net/other.bin@{NEWER}", f"lab/net@{NEWER}/other.bin"),
        ("hf-hub:else/where", f"else/where@{NEWER}/pytorch_model.bin"),
    ],
)
def test_a_hub_id_names_repository_file_and_revision(cache: Path, asked: str, label: str) -> None:
    put(cache, "lab/net", COMMIT, "pytorch_model.bin", b"pinned")
    for repo in ("lab/net", "else/where"):
        put(cache, repo, NEWER, "pytorch_model.bin", b"newer")
        put(cache, repo, NEWER, "other.bin", b"other")
    assert find_weights(EncoderConfig(weights=asked), CARD, {}).label == label


def test_the_environment_may_name_a_hub_id(cache: Path) -> None:
    put(cache, "else/where", NEWER, "pytorch_model.bin", b"newer")
    environment = {"CRANE_RAY_RESNET50_TRUNC_WEIGHTS": "hf-hub:else/where"}
    found = find_weights(EncoderConfig(), CARD, environment)
    assert found.label == f"else/where@{NEWER}/pytorch_model.bin"


def test_offline_without_the_file_says_where_to_get_it(cache: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        fetch_weights(EncoderConfig(name="net"), CARD, {})
    text = str(caught.value)
    assert text.startswith("encoder net: model.safetensors or pytorch_model.bin of lab/net at abab")
    for part in ("HF_HUB_OFFLINE", "https://huggingface.co/lab/net", "--weights FILE", "asked for"):
        assert part in text


class Response:
    """As much of an HTTP response as the library's errors look at."""

    def __init__(self, status: int) -> None:
        self.status_code = status
        self.headers: dict[str, str] = {}
        self.request = None


def refusal(kind: str, status: int) -> Exception:
    made: Any = getattr(errors, kind)
    error: Exception = made("no", response=Response(status))
    return error


@pytest.mark.parametrize(
    ("error", "gated", "parts"),
    [
        (refusal("GatedRepoError", 403), False, ["ask for it at https://huggingface.co/lab/net"]),
        (refusal("GatedRepoError", 401), True, ["hf auth login", "HF_TOKEN", "--weights FILE"]),
        (refusal("RepositoryNotFoundError", 401), True, ["ask for it at https://huggingface.co"]),
        (refusal("HfHubHTTPError", 403), True, ["ask for it at https://huggingface.co/lab/net"]),
        (refusal("RepositoryNotFoundError", 404), False, ["no such repository, or a private one"]),
        (refusal("RevisionNotFoundError", 404), False, ["no such revision", "commits/main"]),
        (refusal("RemoteEntryNotFoundError", 404), False, ["a.bin or b.bin", "no such file"]),
        (refusal("HfHubHTTPError", 500), True, ["cannot be fetched: no", "try again"]),
        (OSError("disk full"), True, ["cannot be fetched: disk full"]),
        (errors.HFValidationError("bad id"), False, ["no such repository"]),
    ],
)
def test_a_refusal_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception, gated: bool, parts: list[str]
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> str:
        raise error

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    where = HubWeights("lab/net", revision=COMMIT, gated=gated)
    with pytest.raises(ConfigError) as caught:
        fetch_file("net", where, ("a.bin", "b.bin"))
    for part in ["encoder net: ", "lab/net", *parts]:
        assert part in str(caught.value)


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo: str, file: str, *, revision: str | None) -> str:
        asked.append((repo, file, revision))
        return f"/cache/models--lab--net/snapshots/{NEWER}/{file}"

    monkeypatch.setattr(hub, "hf_hub_download", download)
    found = fetch_file("net", HubWeights("lab/net"), ("a.bin",))
    assert asked == [("lab/net", "a.bin", None)]
    assert found == (f"/cache/models--lab--net/snapshots/{NEWER}/a.bin", f"lab/net@{NEWER}/a.bin")


def test_the_library_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install 'crane-ray\[encoders\]'"):
        fetch_file("net", GATED, GATED.files)
