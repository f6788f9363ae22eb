"""Networks in files: ours (safetensors with their config), and CRANE's and CLAM's state dicts.

Ours is ``NAME.safetensors``, complete in itself: its header holds format version, config, length
of features, tasks and provenance as JSON. ``NAME.json`` beside it is the same for people.
"""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as make_safetensors

from crane_ray import storage
from crane_ray.cohort.tasks import TaskSpec
from crane_ray.config import explain
from crane_ray.errors import ConfigError
from crane_ray.features.torch_files import load_tensors
from crane_ray.mil.aggregator import Aggregator, build_aggregator
from crane_ray.mil.configs import ModelConfig
from crane_ray.mil.published import Format, read_state, some

FORMAT_VERSION = 1
HEADER_KEY = "crane_ray"
NESTED = ("state_dict", "model_state_dict", "model", "network")
"""Keys under which training code puts a state dict in its files."""


@dataclass(frozen=True)
class Checkpoint:
    """A network that was read from a file."""

    network: Aggregator
    """On the CPU, in evaluation mode; float32, or float64 where the file has that."""
    config: ModelConfig
    dim: int
    """Length of a patch's features."""
    tasks: tuple[TaskSpec, ...]
    format: Format
    provenance: dict[str, Any]
    """What was saved with it; of a published file its name and SHA-256."""
    names_classes: bool
    """Whether the file says what its heads and their classes are, or they are numbered."""

    @property
    def fingerprint(self) -> str:
        """16 hex digits of what its weights are a function of, else of the file; '' if unknown."""
        facts = self.provenance
        return str(facts.get("fingerprint") or facts.get("sha256", "")[:16])


def load_checkpoint(path: str, *, tasks: Sequence[TaskSpec] | None = None) -> Checkpoint:
    """The network in a file; nothing in it is ever unpickled but tensors.

    Args:
        path: or URI of a ``.safetensors`` file of ours, or of a state dict that CRANE's or CLAM's
            training wrote; see `published` for what is accepted.
        tasks: the heads' names and classes, which published files do not hold; for a file of
            ours they must be the ones it was trained with (columns and aliases may differ).

    Raises:
        ConfigError: it is corrupt, holds other things than tensors, is of no network that is
            known, or of other tasks; what does not fit is listed.
        StorageError: it cannot be read.
    """
    data = storage.read_bytes(path)
    try:
        state, header = _parse_ours(data) if path.endswith(".safetensors") else (_unpack(data), {})
        if header:
            return _load_ours(state, header, tasks)
        published = read_state(state)
        named = published.name_tasks()
        if tasks is not None:
            _require_tasks(published.num_classes, tasks)
            named = tuple(tasks)
        network = _network(published.config, published.dim, named, published.state)
    except ConfigError as error:
        raise ConfigError(f"checkpoint {path}: {error}") from None
    provenance = {"file": storage.name_of(path), "sha256": hashlib.sha256(data).hexdigest()}
    whose = published.format
    return Checkpoint(network, published.config, published.dim, named, whose, provenance, False)


def save_checkpoint(
    path_without_suffix: str,
    network: Aggregator,
    config: ModelConfig,
    *,
    dim: int,
    tasks: Sequence[TaskSpec],
    provenance: Mapping[str, Any],
) -> None:
    """Writes ``.safetensors`` and ``.json``: equal networks and provenance, equal bytes.

    Args:
        path_without_suffix: or URI; missing folders are made.
        network: on any device.
        config: it was built from.
        dim: length of a patch's features.
        tasks: its heads.
        provenance: what it was made from, as JSON can hold it.

    Raises:
        StorageError: it cannot be written.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "model": config.model_dump(mode="json"),
        "dim": dim,
        "tasks": [task.model_dump(mode="json") for task in tasks],
        "provenance": dict(provenance),
    }
    metadata = {HEADER_KEY: json.dumps(header, sort_keys=True)}
    data = make_safetensors(_copied_state(network), metadata)
    storage.put_bytes(f"{path_without_suffix}.safetensors", data)
    text = json.dumps(header, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    storage.put_bytes(f"{path_without_suffix}.json", text.encode())


def save_published(path: str, network: Aggregator) -> None:
    """Writes a state dict under the published keys, as ``s_0_checkpoint.pt`` is one.

    Raises:
        StorageError: it cannot be written.
    """
    buffer = io.BytesIO()
    torch.save(_copied_state(network), buffer)
    storage.put_bytes(path, buffer.getvalue())


def _copied_state(network: Aggregator) -> dict[str, torch.Tensor]:
    """Copies: a view would drag its whole storage into the file."""
    return {
        key: tensor.detach().to("cpu", copy=True).contiguous()
        for key, tensor in network.state_dict().items()
    }


def _parse_ours(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and our header of a safetensors file; the header is empty in somebody else's."""
    try:
        state = parse_safetensors(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        return state, json.loads(metadata.get(HEADER_KEY, "{}"))
    except (SafetensorError, ValueError) as error:
        raise ConfigError(f"no safetensors file, or cut short: {error}") from None


def _unpack(data: bytes) -> dict[str, torch.Tensor]:
    """The state dict in a file of torch, without unpickling anything but tensors."""
    try:
        tree = load_tensors(io.BytesIO(data))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    while isinstance(tree, dict):
        inner = next((tree[key] for key in NESTED if isinstance(tree.get(key), dict)), None)
        if inner is None:
            break
        tree = inner
    if not isinstance(tree, dict):
        raise ConfigError(f"holds a {type(tree).__name__}, not the state dict of a network")
    others = [str(key) for key, value in tree.items() if not isinstance(value, torch.Tensor)]
    if others or not tree:
        raise ConfigError(
            f"holds no state dict: {some(others) or 'it is empty, nothing'} is no tensor; save "
            "the network's state_dict() alone"
        )
    return tree


def _load_ours(
    state: dict[str, torch.Tensor], header: dict[str, Any], tasks: Sequence[TaskSpec] | None
) -> Checkpoint:
    version = header.get("format_version")
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"has format version {version}, this crane-ray reads {FORMAT_VERSION}; update it"
        )
    try:
        config = ModelConfig.model_validate(header["model"])
        own_tasks = tuple(TaskSpec.model_validate(task) for task in header["tasks"])
    except ValidationError as error:
        raise ConfigError(explain(error, ModelConfig, " in its header")) from None
    if tasks is not None:
        _require_same(own_tasks, tasks)
        own_tasks = tuple(tasks)
    network = _network(config, header["dim"], own_tasks, state)
    dim, provenance = header["dim"], header["provenance"]
    return Checkpoint(network, config, dim, own_tasks, "crane-ray", provenance, True)


def _network(
    config: ModelConfig, dim: int, tasks: tuple[TaskSpec, ...], state: dict[str, torch.Tensor]
) -> Aggregator:
    """The network of a config with the tensors of a state dict, every one of which must fit."""
    with torch.random.fork_rng(devices=[]):  # its own draws are overwritten
        network = build_aggregator(config, dim, tasks)
    expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state.items()}
    problems = [f"{key} is missing" for key in expected if key not in found]
    problems += [f"{key} is of no use" for key in found if key not in expected]
    problems += [
        f"{key} is {shape}, {expected[key]} expected"
        for key, shape in found.items()
        if expected.get(key, shape) != shape
    ]
    if problems:
        raise ConfigError(f"looks like {config.name} on features of {dim}, but {some(problems)}")
    broken = [key for key, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise ConfigError(
            f"{some(broken)} holds values that are not finite: its training diverged; take an "
            "earlier checkpoint"
        )
    is_double = any(tensor.dtype == torch.float64 for tensor in state.values())
    network.to(torch.float64 if is_double else torch.float32).load_state_dict(state)
    return network.eval()


def _require_tasks(num_classes: tuple[int, ...], tasks: Sequence[TaskSpec]) -> None:
    given = tuple(task.num_classes for task in tasks)
    if given != num_classes:
        names = ", ".join(f"{task.name} ({task.num_classes})" for task in tasks)
        raise ConfigError(
            f"has heads of {', '.join(map(str, num_classes))} classes, the tasks are {names}; "
            "take the tasks that it was trained for"
        )


def _require_same(own: Sequence[TaskSpec], tasks: Sequence[TaskSpec]) -> None:
    """The same count of classes would do for the weights, but not for what they mean."""
    trained, given = (
        "; ".join(f"{task.name} ({', '.join(task.classes)})" for task in some_tasks)
        for some_tasks in (own, tasks)
    )
    if trained != given:
        raise ConfigError(
            f"was trained for {trained}, the tasks are {given}; take the same tasks with their "
            "classes in the same order"
        )
