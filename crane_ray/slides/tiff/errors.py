"""When the direct reader leaves something to OpenSlide."""

from crane_ray.errors import SlideError


class StepAsideError(SlideError):
    """A file or tile for which OpenSlide's pixels cannot be promised; OpenSlide decides."""
