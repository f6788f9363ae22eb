"""Networks in the state dicts of CRANE and CLAM: what keys and shapes say, and our names for them.

Accepted, with ``module`` anywhere in a key (data parallel) and ``module.``, ``model.`` or
``network.`` before it; ``instance_loss_fn.*`` is dropped:

* ``attention_net.{0,2|3}`` (CRANE) or ``.0`` (CLAM), then under the next number ``attention_a.0``,
  ``attention_b.0`` and ``attention_c`` (gated) or ``module.0`` and ``module.{2|3}`` (plain, also
  without ``module``). Dropout is read from the places: a layer takes three with it, two without.
* ``classifier`` or ``classifier_{1..T}``: crane. ``classifiers``: clam_sb. ``classifiers.{c}``:
  clam_mb. With CLAM's, ``instance_classifiers.{c}``.
* Max pooling (CLAM's mil): ``fc.0`` with ``classifier``, ``classifiers``, ``classifiers.{c}`` or
  ``fc.{2|3}``; older: ``classifier.{0,2|3}``.
* ``embedding.0`` with ``classifier`` or ``classifier_{1..T}``: mean_pool (of crane-ray).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from crane_ray.cohort.tasks import TaskSpec, load_task_set
from crane_ray.errors import ConfigError
from crane_ray.mil.configs import ATTENTION_DIMS, InstanceConfig, ModelConfig

State = dict[str, torch.Tensor]
Format = Literal["crane-ray", "crane", "clam"]

DROPOUT = 0.25
"""Share of dropout where the keys say only that there is some: CRANE's and CLAM's."""
FORMATS: dict[str, Format] = {"crane": "crane", "mean_pool": "crane-ray"}
"""Whose state dict an aggregator has; CLAM's otherwise."""
KNOWN = (
    "known are CRANE's (attention_net.*, classifier or classifier_1..T), CLAM's (attention_net.*, "
    "classifiers, instance_classifiers.*), CLAM's mil (fc.0, classifier or classifiers) and "
    "crane-ray's own"
)


@dataclass(frozen=True)
class PublishedNetwork:
    """A network as a state dict describes it."""

    config: ModelConfig
    dim: int
    """Length of a patch's features."""
    num_classes: tuple[int, ...]
    """Classes of each head."""
    state: State
    """The tensors under the names that our network of this config has."""

    @property
    def format(self) -> Format:
        """Whose file it is."""
        return FORMATS.get(self.config.name, "clam")

    def name_tasks(self) -> tuple[TaskSpec, ...]:
        """Tasks for the heads, whose names a state dict does not hold.

        Three binary heads of CRANE are its assessment; others are task1.. with class0..
        """
        if self.config.name == "crane" and self.num_classes == (2, 2, 2):
            return load_task_set("cardiac-mtl").tasks
        return tuple(
            TaskSpec(
                name=f"task{place}",
                column=f"task{place}",
                classes=tuple(f"class{index}" for index in range(num_classes)),
            )
            for place, num_classes in enumerate(self.num_classes, start=1)
        )


def read_state(state: Mapping[str, torch.Tensor]) -> PublishedNetwork:
    """The network that a state dict is of.

    Whether every tensor fits shows when it is loaded.

    Raises:
        ConfigError: it is none that is known; the keys that do not fit are listed.
    """
    cleaned = _clean(state)
    for holds, read in (
        ("attention_net.", _read_attention),
        ("embedding.", _read_mean_pool),
        ("fc.", _read_max_pool),
        ("classifier.0.", _read_max_pool),
    ):
        if any(key.startswith(holds) for key in cleaned):
            try:
                return read(cleaned)
            except KeyError as error:
                raise ConfigError(f"{error.args[0]} is missing; {KNOWN}") from None
    raise ConfigError(f"no network that is known: {some(cleaned)} do not fit; {KNOWN}")


def some(keys: Sequence[str] | Mapping[str, object], most: int = 6) -> str:
    """Keys in a message, the first few of many."""
    shown = ", ".join([*keys][:most])
    return shown + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _clean(state: Mapping[str, torch.Tensor]) -> State:
    cleaned: State = {}
    for key, tensor in state.items():
        name = re.sub(r"^((module|model|network)\.)+", "", key)
        name = re.sub(r"(\.module)+\.", ".", name)
        if name.startswith("instance_loss_fn."):
            continue
        if name in cleaned:
            raise ConfigError(f"{name} is there twice, the second time as {key}")
        cleaned[name] = tensor
    return cleaned


def _read_attention(state: State) -> PublishedNetwork:
    layers = _places(state, r"attention_net\.(\d+)\.weight")
    attention = max(_places(state, r"attention_net\.(\d+)\..+\..+"), default=0)
    if [*layers, attention] not in ([0, 2], [0, 3], [0, 2, 4], [0, 3, 6]):
        raise ConfigError(
            f"attention_net has weights at {some([str(at) for at in (*layers, attention)])}; known "
            "are 0 and 3 or 0, 3 and 6 with dropout, 0 and 2 or 0, 2 and 4 without"
        )
    old = f"attention_net.{attention}"
    is_gated = f"{old}.attention_c.weight" in state
    inner = _places(state, rf"{re.escape(old)}\.(\d+)\.weight")
    # CLAM since 2024 has a Dropout of share 0 in its place, but none in a plain attention
    has_dropout = attention == 3 * len(layers) and inner[-1:] != [2]
    step = 3 if has_dropout else 2
    new = f"attention_net.{step * len(layers)}"
    names = {f"attention_net.{at}": f"attention_net.{step * n}" for n, at in enumerate(layers)}
    if is_gated:
        names |= {f"{old}.{part}": f"{new}.{part}" for part in ("attention_a.0", "attention_b.0")}
        names[f"{old}.attention_c"] = f"{new}.attention_c"
    else:
        names |= {f"{old}.{at}": f"{new}.module.{step * n}" for n, at in enumerate(inner)}
    state = _renamed(state, names)
    hidden_dim, dim = _shape(state, "attention_net.0.weight")
    branch = f"{new}.attention_a.0.weight" if is_gated else f"{new}.module.0.weight"
    width, _ = _shape(state, branch)
    name, num_classes = _heads(state)
    size = next((size for size, known in ATTENTION_DIMS.items() if known == width), None)
    config = ModelConfig.model_validate(
        {
            "name": name,
            "size": size,
            "hidden_dim": hidden_dim,
            "attention_dim": None if size else width,
            "dropout": DROPOUT if has_dropout else 0,
            "gated": is_gated,
            "instances": _instances(name, state, num_classes[0], hidden_dim),
        }
    )
    return PublishedNetwork(config, dim, num_classes, state)


def _heads(state: State) -> tuple[str, tuple[int, ...]]:
    """Aggregator and number of classes of each task, from the classifiers of an attention net."""
    if "classifiers.weight" in state:
        return "clam_sb", _shape(state, "classifiers.weight")[:1]
    branches = _places(state, r"classifiers\.(\d+)\.weight")
    if branches:
        return "clam_mb", (len(branches),)
    return "crane", _tasks(state)


def _tasks(state: State) -> tuple[int, ...]:
    places = _places(state, r"classifier_(\d+)\.weight")
    names = [f"classifier_{place}.weight" for place in places] or ["classifier.weight"]
    return tuple(_shape(state, name)[0] for name in names)


def _instances(name: str, state: State, num_classes: int, hidden_dim: int) -> InstanceConfig:
    """Instance clustering; what a state dict lacks of its classifiers is filled with zeros."""
    if name == "crane" or any(key.startswith("instance_classifiers.") for key in state):
        return InstanceConfig()
    for place in range(num_classes):
        state[f"instance_classifiers.{place}.weight"] = torch.zeros(2, hidden_dim)
        state[f"instance_classifiers.{place}.bias"] = torch.zeros(2)
    return InstanceConfig(enabled=False)


def _read_max_pool(state: State) -> PublishedNetwork:
    layer = "fc" if "fc.0.weight" in state else "classifier"
    heads = [at for at in _places(state, rf"{layer}\.(\d+)\.weight") if at]
    branches = _places(state, r"classifiers\.(\d+)\.weight")
    names = {f"{layer}.0": "fc.0"} | {f"{layer}.{at}": "classifier" for at in heads}
    for part in ("weight", "bias") if branches else ():
        rows = [state.pop(f"classifiers.{place}.{part}") for place in branches]
        if len({row.shape for row in rows}) > 1:
            raise ConfigError(f"classifiers.*.{part} are of different shapes")
        state[f"classifiers.{part}"] = torch.cat(rows)
    state = _renamed(state, names)
    old = "classifiers" if "classifiers.weight" in state else "classifier"
    num_classes, _ = _shape(state, f"{old}.weight")
    state = _renamed(state, {old: "classifier" if num_classes == 2 else "classifiers"})
    hidden_dim, dim = _shape(state, "fc.0.weight")
    dropout = 0 if heads == [2] else DROPOUT
    config = ModelConfig(name="max_pool", hidden_dim=hidden_dim, dropout=dropout)
    return PublishedNetwork(config, dim, (num_classes,), state)


def _read_mean_pool(state: State) -> PublishedNetwork:
    hidden_dim, dim = _shape(state, "embedding.0.weight")
    config = ModelConfig(name="mean_pool", hidden_dim=hidden_dim)
    return PublishedNetwork(config, dim, _tasks(state), state)


def _shape(state: State, name: str) -> tuple[int, int]:
    """Outputs and inputs of a Linear, from its weights."""
    shape = state[name].shape
    if len(shape) != 2 or 0 in shape:
        raise ConfigError(f"{name} is {tuple(shape)}; the weights of a Linear have two dimensions")
    return shape[0], shape[1]


def _places(state: State, pattern: str) -> list[int]:
    """The numbers that a pattern's group has among the keys, in order."""
    matches = (re.fullmatch(pattern, key) for key in state)
    return sorted({int(match[1]) for match in matches if match})


def _renamed(state: State, names: Mapping[str, str]) -> State:
    """The tensors of modules under other names; modules that are not named keep theirs."""
    renamed: State = {}
    for key, tensor in state.items():
        module, _, part = key.rpartition(".")
        renamed[f"{names.get(module, module)}.{part}" if module else key] = tensor
    return renamed
