"""Weights are looked for without anything being fetched."""

from pathlib import Path

import pytest

from crane_ray.errors import ConfigError
from crane_ray.features import hub
from crane_ray.features.encoder import EncoderConfig
from crane_ray.preflight import weights
from crane_ray.preflight.weights import look_for_weights


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, nobody logged in, and no way to fetch."""

    def refuse(*_: object) -> tuple[str, str]:
        raise AssertionError("fetched something")

    monkeypatch.setattr(hub, "fetch_file", refuse)
    monkeypatch.setattr(weights, "cached_file", lambda _: None)
    monkeypatch.setattr(weights, "is_logged_in", lambda: False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def look(name: str, given: str | None = None, **environment: str) -> weights.FoundWeights:
    return look_for_weights([EncoderConfig(name=name, weights=given)], environment)


def test_a_file_that_is_there_is_handed_to_the_nodes(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(b"1")
    assert look("resnet50_trunc", str(file)).paths == (str(file),)
    found = look("uni_v1", UNI_CKPT_PATH=str(file))
    assert (found.paths, found.findings, found.packages) == ((str(file),), (), ("timm",))
    assert look("resnet50_trunc", "random").findings == ()


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    (finding,) = look("resnet50_trunc", str(tmp_path / "none.pth")).findings
    assert finding.severity == "error"
    assert "none.pth" in finding.found


def test_what_would_be_fetched_first_is_told() -> None:
    (finding,) = look("resnet50_trunc").findings
    assert finding.severity == "warning"
    assert "https://" in finding.found


def test_gated_weights_are_an_error_for_somebody_who_is_not_logged_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (finding,) = look("uni_v1").findings
    assert finding.severity == "error"
    assert "huggingface.co/MahmoodLab" in finding.fix
    monkeypatch.setattr(weights, "is_logged_in", lambda: True)
    assert look("uni_v1").findings[0].severity == "warning"
    monkeypatch.setattr(weights, "cached_file", lambda _: "/cache/w")
    assert look("uni_v1").paths == ("/cache/w",)


def test_an_encoder_that_does_not_exist_ends_it() -> None:
    with pytest.raises(ConfigError, match="resnet50_trunc"):
        look("resnet50_trun")
