"""Weights: found by the driver, read once, handed to actors as bytes or a path, with their hash."""

import hashlib
import io
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.features.encoder import HUB_ID, EncoderCard, EncoderConfig, HubWeights
from crane_ray.features.hub import fetch_file
from crane_ray.features.torch_files import load_tensors
from crane_ray.plugins import file_name

log = logging.getLogger(__name__)

RANDOM = "random"
LARGE_BYTES = 128 * 2**20
"""Larger files are read by each actor where it sees them: half of a local Ray's object store."""
NESTED = ("state_dict", "model", "teacher", "model_state_dict")
"""Keys under which training code puts a state dict in its checkpoints."""
WRAPPERS = re.compile(r"^(module\.|model\.|backbone\.)+")


@dataclass(frozen=True)
class WeightSource:
    """Where weights are, before they are read."""

    label: str
    """A published name, a file's name, ORG/NAME@COMMIT/FILE, or random with its seed."""
    path: str = ""
    """Of the file; empty for random ones."""
    url: str = ""
    """Where the file comes from if it is not at ``path`` yet."""
    suffix: str = ""


@dataclass(frozen=True)
class Weights:
    """A model's weights on their way to the workers."""

    label: str
    sha256: str
    data: npt.NDArray[np.uint8] | None
    """The weight file's bytes, zero-copy through the object store; None for random weights, and
    for files that each actor reads itself."""
    suffix: str = ""
    seed: int = 0
    path: str = ""
    """Of the file that each actor reads itself; empty otherwise."""
    build_arguments: dict[str, Any] = field(default_factory=dict)
    """For the plug-in's ``build``; see `EncoderCard`."""

    @property
    def are_random(self) -> bool:
        """True where there is no file."""
        return self.data is None and not self.path


def find_weights(
    config: EncoderConfig, card: EncoderCard, environment: Mapping[str, str] = os.environ
) -> WeightSource:
    """Where the weights are that a config names, fetched from the hub if they come from there.

    For the driver: it has the user's environment, and needs no torch for this.

    Args:
        config: names them, or leaves it to the environment and the card.
        card: of the encoder.
        environment: variables that may name a file.

    Raises:
        ConfigError: there is no such file or name, or it cannot be fetched; the message says
            what to put where, and where to ask for access.
    """
    asked, variable = _asked_for(config, card, environment)
    if asked == RANDOM:
        return WeightSource(f"random seed {config.seed}")
    if asked in card.downloads:
        return _published(asked, card.downloads[asked])
    hub = weights_on_hub(config, card, environment)
    if hub is not None:
        path, label = fetch_file(config.name, hub, hub.files)
        return WeightSource(label, path, suffix=Path(label).suffix)
    path = str(Path(asked).expanduser().absolute())
    if asked and Path(path).is_file():
        return WeightSource(Path(path).name, path, suffix=Path(path).suffix)
    raise ConfigError(_no_such(config, card, asked, variable))


def weights_on_hub(
    config: EncoderConfig, card: EncoderCard, environment: Mapping[str, str] = os.environ
) -> HubWeights | None:
    """What `find_weights` would take from the hub, or from its cache; None for all others."""
    asked, _ = _asked_for(config, card, environment)
    hub_id = HUB_ID.match(asked)
    return _hub_weights(hub_id, card) if hub_id else card.hub if not asked else None


def read_weights(
    config: EncoderConfig, card: EncoderCard, source: WeightSource, *, by_path: bool = False
) -> Weights:
    """The weights of a source, with their hash.

    Args:
        config: names the encoder, and the seed of random weights.
        card: of the encoder.
        source: what `find_weights` found.
        by_path: leave the bytes in the file, for actors that see it, too.

    Raises:
        ConfigError: the file cannot be fetched.
        StorageError: it cannot be read.
    """
    blank = Weights(
        source.label,
        hashlib.sha256(source.label.encode()).hexdigest(),
        None,
        source.suffix,
        config.seed,
        build_arguments=card.build_arguments,
    )
    if not source.path:
        return blank
    if source.url and not Path(source.path).is_file():
        _download(config, source)
    if by_path:
        return replace(blank, sha256=_hash_file(source.path), path=source.path)
    data = storage.read_bytes(source.path)
    digest = hashlib.sha256(data).hexdigest()
    return replace(blank, sha256=digest, data=np.frombuffer(data, dtype=np.uint8))


def read_state(weights: Weights) -> dict[str, Any]:
    """The state dict in a weight file (safetensors, or torch with ``weights_only=True``).

    Raises:
        ConfigError: it is no state dict, or another file than the driver saw.
    """
    try:
        state = _load_path(weights) if weights.path else _load_bytes(weights)
    except ConfigError:
        raise
    except Exception as error:  # both libraries raise many kinds for a broken file
        raise ConfigError(
            f"weights {weights.label}: cannot be read: {error}; give another file with --weights"
        ) from error
    while isinstance(state, dict):
        inner = next((state[key] for key in NESTED if isinstance(state.get(key), dict)), None)
        if inner is None:
            return {key: value for key, value in state.items() if hasattr(value, "shape")}
        state = inner
    raise ConfigError(
        f"weights {weights.label}: hold a {type(state).__name__}, a state dict is needed"
    )


def without_wrappers(state: dict[str, Any]) -> dict[str, Any]:
    """A state dict without the prefixes that data parallel and training code put before names."""
    return {WRAPPERS.sub("", key): tensor for key, tensor in state.items()}


def variable_names(name: str, card: EncoderCard) -> list[str]:
    """The environment variables that may name an encoder's weights, the stronger first."""
    word = re.sub(r"\W", "_", file_name(name)).upper()
    return [f"CRANE_RAY_{word}_WEIGHTS", *card.environment]


def _asked_for(
    config: EncoderConfig, card: EncoderCard, environment: Mapping[str, str]
) -> tuple[str, str]:
    """What the config or else the environment names ("" for the card's own), and the variable."""
    if config.weights is not None:
        return config.weights, ""
    for variable in variable_names(config.name, card):
        if environment.get(variable):
            log.info("encoder %s: weights from %s", config.name, variable)
            return environment[variable], variable
    return ("" if card.hub else next(iter(card.downloads), "")), ""


def _hub_weights(hub_id: re.Match[str], card: EncoderCard) -> HubWeights:
    """What ``hf-hub:ORG/NAME[/FILE][@REVISION]`` names, the rest as on the encoder's own card."""
    own = card.hub if card.hub and card.hub.repo.lower() == hub_id["repo"].lower() else None
    known = own or HubWeights(hub_id["repo"])
    return replace(
        known,
        revision=hub_id["revision"] or known.revision,
        files=(hub_id["file"],) if hub_id["file"] else known.files,
    )


def _no_such(config: EncoderConfig, card: EncoderCard, asked: str, variable: str) -> str:
    known = ", ".join([*card.downloads, RANDOM])
    if not asked:
        return f"encoder {config.name}: has no published weights; give --weights FILE, or {known}"
    origin = f" (from the environment variable {variable})" if variable else ""
    return (
        f"encoder {config.name}: no weights {asked!r}{origin}: no such file, and not one of "
        f"{known}; give --weights FILE, or hf-hub:ORG/NAME@COMMIT"
    )


def _published(name: str, url: str) -> WeightSource:
    """Where torch.hub keeps what it fetches, told without torch, whose import the driver spares."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "torch"
    home = Path(os.environ.get("TORCH_HOME") or cache).expanduser()
    path = home / "hub" / "checkpoints" / Path(urlparse(url).path).name
    return WeightSource(name, str(path), url, path.suffix)


def _download(config: EncoderConfig, source: WeightSource) -> None:
    import torch

    path = Path(source.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    prefix = path.stem.rsplit("-", 1)[-1]
    try:
        torch.hub.download_url_to_file(source.url, str(path), hash_prefix=prefix, progress=False)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"encoder {config.name}: weights {source.label!r} cannot be fetched ({error}); put "
            f"the file {path.name} at {path} or give it with --weights FILE (--weights random "
            "makes seeded random ones, for a trial run)"
        ) from error


def _hash_file(path: str) -> str:
    with storage.open_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _load_bytes(weights: Weights) -> Any:
    assert weights.data is not None
    if weights.suffix == ".safetensors":
        from safetensors.torch import load

        return load(weights.data.tobytes())
    return load_tensors(io.BytesIO(weights.data.data))


def _load_path(weights: Weights) -> Any:
    if not Path(weights.path).is_file() or _hash_file(weights.path) != weights.sha256:
        raise ConfigError(
            f"weights {weights.label}: the file at {weights.path} is missing on this node or "
            "not the one that the driver read; put the same file there on every node"
        )
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(weights.path)
    # Mapped, so that a network and its file do not take memory twice (no zip before torch 1.6).
    return load_tensors(weights.path, mapped=zipfile.is_zipfile(weights.path))
