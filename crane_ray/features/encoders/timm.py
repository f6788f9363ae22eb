"""Any network of timm's, or of the hub in timm's format: timm:NAME, timm:hf-hub:ORG/NAME[@COMMIT].

Input size, mean, std and resampling are those that timm or the repository's config.json gives.
timm's crop of a border (crop_pct) is left out: the whole patch is encoded. Features are what the
network gives without its classifier (pooled, or the class token).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from crane_ray.errors import ConfigError
from crane_ray.features.encoder import HUB_ID, EncoderCard, HubWeights
from crane_ray.features.hub import fetch_file
from crane_ray.features.transformers import timm_network
from crane_ray.features.weights import without_wrappers

CLASSIFIERS = ("head.", "fc.", "classifier.", "head_dist.")


@dataclass(frozen=True)
class TimmModel:
    """The plug-in of one network."""

    argument: str

    @cached_property
    def CARD(self) -> EncoderCard:  # noqa: N802 - as in modules
        """Card from timm's tables, or from the repository's config.json (fetched once)."""
        hub_id = HUB_ID.match(self.argument)
        if hub_id:
            where = HubWeights(hub_id["repo"], revision=hub_id["revision"])
            path, _ = fetch_file(f"timm:{self.argument}", where, ("config.json",))
            return _hub_card(self.argument, where, path)
        return _timm_card(self.argument)

    def build(
        self, architecture: str | None = None, model_args: dict[str, Any] | None = None
    ) -> nn.Module:
        """The network with random weights.

        Args:
            architecture: timm's name of it; the plug-in's argument where not given.
            model_args: of a hub model, beside it.
        """
        if architecture is None and HUB_ID.match(self.argument):
            return self.build(**self.CARD.build_arguments)
        return timm_network(architecture or self.argument, **(model_args or {}))

    def prepare_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The published tensors but the classifier's."""
        bare = without_wrappers(state)
        return {key: tensor for key, tensor in bare.items() if not key.startswith(CLASSIFIERS)}


def plugin(argument: str) -> TimmModel:
    """The plug-in behind ``timm:ARGUMENT``."""
    return TimmModel(argument)


def _timm_card(name: str) -> EncoderCard:
    network = _on_no_device(name)
    config: Any = network.pretrained_cfg
    hub = HubWeights(config["hf_hub_id"]) if config.get("hf_hub_id") else None
    return _card(network, config, hub, {})


def _hub_card(argument: str, where: HubWeights, path: str) -> EncoderCard:
    with open(path, encoding="utf-8") as file:
        tree = json.load(file)
    if not tree.get("architecture"):
        raise ConfigError(
            f"encoder timm:{argument}: the config.json of {where.repo} names no architecture of "
            "timm's; models of other libraries need a module of your own (a dotted path)"
        )
    model_args = dict(tree.get("model_args", {}))
    model_args.pop("num_classes", None)
    if tree.get("global_pool") is not None:
        model_args.setdefault("global_pool", tree["global_pool"])
    arguments = {"architecture": tree["architecture"], "model_args": model_args}
    network = _on_no_device(tree["architecture"], **model_args)
    return _card(network, {**tree, **tree.get("pretrained_cfg", {})}, where, arguments)


def _on_no_device(name: str, **model_args: Any) -> nn.Module:
    """The network without storage: only its shape is asked for."""
    with torch.device("meta"):
        return timm_network(name, **model_args)


def _card(
    network: Any, config: Any, hub: HubWeights | None, arguments: dict[str, Any]
) -> EncoderCard:
    size_px = int(config.get("input_size", (3, 224, 224))[-1])
    features_BD = network.eval()(torch.empty(1, 3, size_px, size_px, device="meta"))
    if features_BD.ndim != 2:
        raise ConfigError(
            f"encoder {config.get('architecture', '')}: gives {tuple(features_BD.shape[1:])} for "
            "an image, not one vector; a module of your own (a dotted path) can pool that"
        )
    interpolation = config.get("interpolation")
    return EncoderCard(
        dim=features_BD.shape[1],
        input_size_px=size_px,
        mean=tuple(config.get("mean", (0.485, 0.456, 0.406))),
        std=tuple(config.get("std", (0.229, 0.224, 0.225))),
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
        hub=hub,
        license=str(config.get("license") or ""),
        requires=("timm",),
        build_arguments=arguments,
    )
