"""Weights found and read in one go, as a run does in two places."""

import os
from collections.abc import Mapping

from crane_ray.features.encoder import EncoderCard, EncoderConfig
from crane_ray.features.weights import Weights, find_weights, read_weights


def fetch_weights(
    config: EncoderConfig, card: EncoderCard, environment: Mapping[str, str] = os.environ
) -> Weights:
    return read_weights(config, card, find_weights(config, card, environment))
