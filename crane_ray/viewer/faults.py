"""What can be wrong with what a browser asks for."""

from crane_ray.errors import CraneError


class MissingError(CraneError, LookupError):
    """Something asked for that the workspace does not have."""


class BadRequestError(CraneError, ValueError):
    """An address that makes no sense."""
