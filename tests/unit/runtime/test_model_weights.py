"""The weights of a model's encoder: found, known by their hash, or asked for by name."""

import hashlib
from pathlib import Path

import pytest

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.runtime.assessment_jobs import AskedEncoder
from crane_ray.runtime.jobs import ExtractJob
from crane_ray.runtime.model_recipes import ModelFeatures
from crane_ray.runtime.model_weights import own_encoder
from tests.unit.runtime.small_models import make_recipe

OWN = b"the weights"
VARIABLE = "CRANE_RAY_RESNET50_TRUNC_WEIGHTS"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.pth"
    path.write_bytes(OWN)
    return path


@pytest.fixture
def model(tmp_path: Path, file: Path) -> ModelFeatures:
    root = str(tmp_path / "work" / "features" / "resnet50_trunc")
    return ModelFeatures("RUN", 1024, make_recipe(str(file)), root)


def test_a_file_of_another_name_is_taken_if_it_is_the_same(
    model: ModelFeatures, file: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.bin"
    copy.write_bytes(OWN)
    file.unlink()
    found = own_encoder(model, AskedEncoder(weights=str(copy)), {})
    assert found.config.weights == str(copy)
    found = own_encoder(model, AskedEncoder(), {VARIABLE: str(copy)})
    assert found.weights.sha256 == hashlib.sha256(OWN).hexdigest()


@pytest.mark.parametrize("origin", ["--weights", VARIABLE])
def test_other_weights_are_refused_with_both_hashes(
    model: ModelFeatures, tmp_path: Path, origin: str
) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    asked = AskedEncoder(weights=str(other) if origin == "--weights" else None)
    environment = {VARIABLE: str(other)} if origin == VARIABLE else {}
    with pytest.raises(ConfigError) as told:
        own_encoder(model, asked, environment)
    for words in (
        f"own.pth, SHA-256 {hashlib.sha256(OWN).hexdigest()}",
        f"here ({origin}): other.pth, SHA-256 {hashlib.sha256(b'other weights').hexdigest()}",
    ):
        assert words in str(told.value)


def test_weights_that_are_nowhere_are_asked_for_by_name_and_hash(model: ModelFeatures) -> None:
    with pytest.raises(ConfigError) as told:
        own_encoder(model, AskedEncoder(), {})
    for words in ("own.pth", hashlib.sha256(OWN).hexdigest(), "--weights FILE", VARIABLE):
        assert words in str(told.value)
    with pytest.raises(ConfigError, match=r"needs weights own\.pth .*'/nowhere\.pth': no such"):
        own_encoder(model, AskedEncoder(weights="/nowhere.pth"), {})


def test_they_are_looked_for_where_they_lay_when_the_features_were_made(
    model: ModelFeatures, file: Path
) -> None:
    job = ExtractJob.load(overrides=[("work", "/w"), ("encoder.weights", str(file))])
    storage.put_bytes(storage.join(model.root, "config.yaml"), job.to_yaml().encode())
    assert own_encoder(model, AskedEncoder(), {}).config.weights == str(file)
    file.unlink()
    with pytest.raises(ConfigError, match="are not known here"):
        own_encoder(model, AskedEncoder(), {})


def test_random_weights_are_made_again_from_their_seed() -> None:
    model = ModelFeatures("RUN", 1024, make_recipe(seed=5))
    for asked in (AskedEncoder(), AskedEncoder(weights="random")):
        config = own_encoder(model, asked, {}).config
        assert (config.weights, config.seed) == ("random", 5)


def test_an_encoder_that_has_changed_since_is_refused(model: ModelFeatures, file: Path) -> None:
    recipe = model.recipe
    assert recipe is not None
    before = recipe.encoder.model_copy(update={"mean": (0.5, 0.5, 0.5)})
    old = ModelFeatures("RUN", 1024, recipe.model_copy(update={"encoder": before}))
    with pytest.raises(ConfigError, match=r"encoder\.mean: model \[0\.5, .* here \[0\.485"):
        own_encoder(old, AskedEncoder(weights=str(file)), {})
