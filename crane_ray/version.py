"""The version of this package, alone so that a build reads it without imports."""

__version__ = "0.1.0"
