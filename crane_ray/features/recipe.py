"""The recipe of a feature store: everything that decides what its features are."""

import json
from typing import Literal

from crane_ray.config import Config
from crane_ray.errors import RecipeMismatchError
from crane_ray.features.encoder import EncoderInfo
from crane_ray.slides.patches import PatchSpec

FeatureType = Literal["float16", "float32"]


class Recipe(Config):
    """What was done to which kind of patch; features of unequal recipes are never mixed."""

    patch: PatchSpec
    """Size and scale of a patch."""
    encoder: EncoderInfo
    """The network, its weights by hash, its input and precision."""
    dtype: FeatureType
    """How features are stored."""

    def fingerprint(self) -> str:
        """Fingerprint of all that changes features: where weights lay does not, their hash does."""
        encoder = self.encoder.model_copy(update={"weights": ""})
        return Config.fingerprint(self.model_copy(update={"encoder": encoder}))

    def require(self, asked: "Recipe", where: str, *, is_empty: bool = False) -> None:
        """Checks that a store of this recipe may take what another recipe asks for.

        Args:
            asked: the other recipe.
            where: the store's place, for the message.
            is_empty: no slide of the store is finished, so that it may be given up.

        Raises:
            RecipeMismatchError: they differ; both are shown, and in what they differ.
        """
        if self.fingerprint() == asked.fingerprint():
            return
        there, here = _flat(self), _flat(asked)
        keys = sorted({*there, *here})
        lines = [
            f"  {key}: {there.get(key)} in the store, {here.get(key)} asked for"
            for key in keys
            if there.get(key) != here.get(key)
        ]
        raise RecipeMismatchError(
            f"store {where}: made with another recipe; features of two recipes are never mixed\n"
            + "\n".join(lines)
            + f"\nstore's recipe ({self.fingerprint()}): {self.canonical_json()}\n"
            f"asked for ({asked.fingerprint()}): {asked.canonical_json()}\n"
            "Ask for the store's recipe, or name another store with --store"
            + ("; this one has no finished slide yet and may be removed" if is_empty else "")
        )


def _flat(recipe: Recipe) -> dict[str, str]:
    flat = {}
    todo = [("", recipe.model_dump(mode="json"))]
    while todo:
        prefix, tree = todo.pop()
        for key, value in tree.items():
            if isinstance(value, dict):
                todo.append((f"{prefix}{key}.", value))
            else:
                flat[prefix + key] = json.dumps(value)
    return flat
