"""What doctor measured, as a file that plan reads."""

import json
from collections.abc import Sequence

from pydantic import Field, ValidationError

from crane_ray import storage
from crane_ray.config import Config, explain
from crane_ray.errors import ConfigError
from crane_ray.preflight.report import Node


class NodeRates(Config):
    """One node's part."""

    node: str
    """Its name."""
    cpus: float = Field(ge=0)
    """That Ray gives to tasks."""
    gpus: float = Field(ge=0)
    """That Ray gives to tasks."""
    decode: float = Field(gt=0)
    """Patches a second that one core decodes."""
    encode: float = Field(gt=0)
    """Patches a second that one GPU encodes, or one core where there is none."""
    on_gpu: bool
    """Which of the two."""
    precision: str = ""
    """Arithmetic of the network."""
    hardware: str = ""
    """The GPU's name."""


class RatesFile(Config):
    """rates.json."""

    format: int = Field(1, ge=1, le=1)
    """Version of the file."""
    encoder: str
    """Whose network was measured."""
    dim: int = Field(ge=1)
    """Numbers in its feature vectors."""
    nodes: tuple[NodeRates, ...] = Field(min_length=1)
    """Those that were measured."""


def rates_of(nodes: Sequence[Node]) -> RatesFile | None:
    """What was measured on a cluster; None where nothing was."""
    found, encoder, dim = [], "", 0
    for node in nodes:
        rates = node.rates
        if rates is None:
            continue
        encoder, dim = rates.encoder, rates.dim
        gpus = node.report.gpus if node.report is not None else ()
        found.append(
            NodeRates(
                node=node.name,
                cpus=node.cpus,
                gpus=node.gpus,
                decode=round(rates.decode, 1),
                encode=round(rates.encode, 2),
                on_gpu=rates.on_gpu,
                precision=rates.precision,
                hardware=gpus[0].name if gpus else "",
            )
        )
    return RatesFile(encoder=encoder, dim=dim, nodes=tuple(found)) if found else None


def write_rates(path: str, rates: RatesFile) -> None:
    """Writes the file in one piece.

    Raises:
        StorageError: it cannot be written.
    """
    storage.put_bytes(path, rates.model_dump_json(indent=2).encode())


def read_rates(path: str) -> RatesFile:
    """What such a file holds.

    Raises:
        ConfigError: it is none.
        StorageError: it cannot be read.
    """
    what = f"--rates {path}: not what crane-ray doctor --rates-out writes"
    try:
        return RatesFile.model_validate(json.loads(storage.read_bytes(path)))
    except ValidationError as error:
        raise ConfigError(f"{what}; {explain(error, RatesFile)}") from error
    except ValueError as error:  # neither JSON nor text
        raise ConfigError(f"{what}: no JSON ({error})") from error
