"""crane-ray: cohorts of whole-slide images to diagnoses, on Ray.

Public names load on first use: ``import crane_ray`` itself loads neither ray nor torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crane_ray.version import __version__

if TYPE_CHECKING:
    from crane_ray.errors import CraneError
    from crane_ray.features.store import FeatureStore, SlideFeatures
    from crane_ray.slides.opening import open_slide
    from crane_ray.slides.patches import PatchGrid, PatchSpec, plan_patches
    from crane_ray.slides.slide import Slide, SlideInfo
    from crane_ray.slides.tissue import TissueContours

_HOMES = {
    "CraneError": "crane_ray.errors",
    "FeatureStore": "crane_ray.features.store",
    "PatchGrid": "crane_ray.slides.patches",
    "PatchSpec": "crane_ray.slides.patches",
    "Slide": "crane_ray.slides.slide",
    "SlideFeatures": "crane_ray.features.store",
    "SlideInfo": "crane_ray.slides.slide",
    "TissueContours": "crane_ray.slides.tissue",
    "open_slide": "crane_ray.slides.opening",
    "plan_patches": "crane_ray.slides.patches",
}

__all__ = [
    "CraneError",
    "FeatureStore",
    "PatchGrid",
    "PatchSpec",
    "Slide",
    "SlideFeatures",
    "SlideInfo",
    "TissueContours",
    "__version__",
    "open_slide",
    "plan_patches",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'crane_ray' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
