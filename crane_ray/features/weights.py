"""Weights, fetched once by the driver and handed to actors as bytes, with their hash."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.features.encoder import EncoderCard, EncoderConfig

RANDOM = "random"


@dataclass(frozen=True)
class Weights:
    """A model's weights on their way to the workers."""

    label: str
    sha256: str
    data: npt.NDArray[np.uint8] | None
    """The weight file's bytes, zero-copy through the object store; None for random weights."""
    suffix: str = ""
    seed: int = 0


def fetch_weights(config: EncoderConfig, card: EncoderCard) -> Weights:
    """The weights that a config names, read or downloaded here and now.

    Raises:
        ConfigError: there is no such file or name, or it cannot be downloaded; the message says
            what to put where.
    """
    if config.weights == RANDOM:
        label = f"random seed {config.seed}"
        return Weights(label, hashlib.sha256(label.encode()).hexdigest(), None, seed=config.seed)
    path = Path(config.weights).expanduser()
    if config.weights in card.downloads:
        path = _download(config, card.downloads[config.weights])
    elif not path.is_file():
        known = ", ".join([*card.downloads, RANDOM])
        raise ConfigError(
            f"encoder {config.name}: no weights {config.weights!r}: no such file, and not one of "
            f"{known}; give --weights FILE"
        )
    data = storage.read_bytes(str(path))
    label = config.weights if config.weights in card.downloads else path.name
    digest = hashlib.sha256(data).hexdigest()
    return Weights(label, digest, np.frombuffer(data, dtype=np.uint8), suffix=path.suffix)


def read_state(weights: Weights) -> dict[str, Any]:
    """The state dict in a weight file (safetensors, or torch with ``weights_only=True``).

    Raises:
        ConfigError: it is no state dict.
    """
    assert weights.data is not None
    try:
        if weights.suffix == ".safetensors":
            from safetensors.torch import load

            return dict(load(weights.data.tobytes()))
        import torch

        state = torch.load(io.BytesIO(weights.data.data), map_location="cpu", weights_only=True)
    except Exception as error:  # both libraries raise many kinds for a broken file
        raise ConfigError(f"weights {weights.label}: cannot be read: {error}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ConfigError(
            f"weights {weights.label}: hold a {type(state).__name__}, a state dict is needed"
        )
    return state


def _download(config: EncoderConfig, url: str) -> Path:
    import torch

    name = Path(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = path.stem.rsplit("-", 1)[-1]
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"encoder {config.name}: weights {config.weights!r} cannot be fetched ({error}); put "
            f"the file {name} at {path} or give it with --weights FILE (--weights random makes "
            "seeded random ones, for a trial run)"
        ) from error
    return path
