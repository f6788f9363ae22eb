from typing import Any

import pytest

from crane_ray.errors import RecipeMismatchError
from crane_ray.features.recipe import Recipe
from tests.unit.features.small_store import make_recipe


def changed(path: str, value: Any) -> Recipe:
    tree = make_recipe().model_dump()
    *parents, last = path.split(".")
    below = tree
    for key in parents:
        below = below[key]
    assert below.get(last) != value
    below[last] = value
    return Recipe.model_validate(tree)


CHANGES = {
    "patch.size_px": 128,
    "patch.level": 1,
    "patch.step_px": 32,
    "patch.custom_downsample": 2,
    "encoder.name": "other",
    "encoder.dim": 13,
    "encoder.input_size_px": 96,
    "encoder.mean": (0.1, 0.0, 0.0),
    "encoder.std": (1.0, 1.0, 0.9),
    "encoder.precision": "bf16",
    "encoder.weights_sha256": "1",
    "encoder.interpolation": "bicubic",
    "encoder.resize_px": 72,
    "encoder.compiled": True,
    "dtype": "float16",
}


@pytest.mark.parametrize("path", CHANGES)
def test_whatever_changes_features_changes_the_fingerprint(path: str) -> None:
    mine, other = make_recipe(), changed(path, CHANGES[path])
    assert mine.fingerprint() != other.fingerprint()
    with pytest.raises(RecipeMismatchError, match=rf"  {path}: .* in the store, .* asked for"):
        mine.require(other, "/store")


def test_where_weights_lay_does_not() -> None:
    mine, other = make_recipe(), changed("encoder.weights", "/elsewhere/net.pth")
    assert mine.fingerprint() == other.fingerprint() == make_recipe().fingerprint()
    mine.require(other, "/store")


def test_every_field_counts_but_the_label() -> None:
    """A field added later is in the fingerprint, or this test is told of it."""
    paths = {
        f"{group}.{name}" if group else name
        for group, model in (
            ("", Recipe),
            ("patch", type(make_recipe().patch)),
            ("encoder", type(make_recipe().encoder)),
        )
        for name in model.model_fields
    }
    assert paths - set(CHANGES) == {
        "patch",
        "encoder",
        "patch.mpp",
        "patch.mpp_tolerance",
        "encoder.weights",
    }


def test_a_refusal_shows_both_recipes_and_only_what_differs() -> None:
    mine, other = make_recipe(), changed("patch.size_px", 128)
    with pytest.raises(RecipeMismatchError) as caught:
        mine.require(other, "/cohort/store")
    text = str(caught.value)
    assert "/cohort/store" in text
    assert [line for line in text.splitlines() if line.startswith("  ")] == [
        "  patch.size_px: 64 in the store, 128 asked for"
    ]
    for recipe in (mine, other):
        assert recipe.canonical_json() in text
        assert recipe.fingerprint() in text
