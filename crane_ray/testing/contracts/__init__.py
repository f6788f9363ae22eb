"""Contract suites for plug-ins: call one from a test of your own plug-in.

Each raises AssertionError that says which promise of the plug-in's protocol is broken.
"""

from crane_ray.testing.contracts.aggregator import check_aggregator
from crane_ray.testing.contracts.encoder import check_encoder, check_encoder_plugin
from crane_ray.testing.contracts.reader import check_reader
from crane_ray.testing.contracts.segmenter import check_segmenter
from crane_ray.testing.contracts.slide_format import check_slide_format

__all__ = [
    "check_aggregator",
    "check_encoder",
    "check_encoder_plugin",
    "check_reader",
    "check_segmenter",
    "check_slide_format",
]
