"""Where the weights of asked-for encoders are, without fetching any."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crane_ray.errors import CraneError
from crane_ray.features.cards import ENCODERS
from crane_ray.features.encoder import EncoderCard, EncoderConfig
from crane_ray.features.hub import cached_file, is_logged_in
from crane_ray.features.weights import find_weights, variable_names, weights_on_hub
from crane_ray.plugins import load_plugin
from crane_ray.preflight.judging import Finding


@dataclass(frozen=True)
class FoundWeights:
    """What there is of the weights on the driver's machine."""

    paths: tuple[str, ...]
    """Files, for the nodes to be asked about."""
    packages: tuple[str, ...]
    """Packages that the networks are built with."""
    findings: tuple[Finding, ...]


def look_for_weights(
    encoders: Sequence[EncoderConfig], environment: Mapping[str, str] = os.environ
) -> FoundWeights:
    """The weights of encoders, or findings that say what to put where.

    Raises:
        ConfigError: there is no such encoder.
    """
    paths: list[str] = []
    packages: dict[str, None] = {}
    findings: list[Finding] = []
    for config in encoders:
        card: EncoderCard = load_plugin(ENCODERS, config.name).CARD
        packages |= dict.fromkeys(card.requires)
        try:
            path, finding = _look(config, card, environment)
        except CraneError as error:
            path, finding = "", _missing(config, str(error), "put the file there, as it says")
        paths += [path] if path else []
        findings += [finding] if finding else []
    return FoundWeights(tuple(paths), tuple(packages), tuple(findings))


def _look(
    config: EncoderConfig, card: EncoderCard, environment: Mapping[str, str]
) -> tuple[str, Finding | None]:
    hub = weights_on_hub(config, card, environment)
    variable = variable_names(config.name, card)[0]
    by_file = f"give the file with --weights FILE or in {variable}"
    if hub is not None:
        path = cached_file(hub)
        if path is not None:
            return path, None
        ask = f"ask for access at {hub.page} and run hf auth login, or " if hub.gated else ""
        found = f"not in the hub's cache; the first run fetches {hub.repo}"
        return "", _missing(config, found, ask + by_file, breaks=hub.gated and not is_logged_in())
    source = find_weights(config, card, environment)
    if source.url and not Path(source.path).is_file():
        found = f"not at {source.path}; the first run fetches {source.url}"
        return "", _missing(
            config, found, f"nothing, where this machine has internet; else {by_file}", breaks=False
        )
    return source.path, None


def _missing(config: EncoderConfig, found: str, fix: str, *, breaks: bool = True) -> Finding:
    needed = f"the weights of {config.name}, on the driver's machine"
    return Finding("error" if breaks else "warning", "driver", "weights", found, needed, fix)
