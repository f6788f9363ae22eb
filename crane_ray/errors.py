"""Errors that a user can mend; messages name object, value, what is allowed and the next step."""


class CraneError(Exception):
    """Anything that went wrong for a reason the user can see and mend."""


class ConfigError(CraneError, ValueError):
    """A config, flag or table that cannot be used as it is."""


class SlideError(CraneError, ValueError):
    """A slide that cannot be opened, read or placed; costs that slide alone."""


class ScaleError(SlideError):
    """A slide whose resolution is missing, impossible, or does not fit what is asked for."""


class StoreError(CraneError, RuntimeError):
    """A feature store or workspace that cannot be used as it is."""


class RecipeMismatchError(StoreError):
    """A feature store made with another recipe than the one asked for."""


class StorageError(CraneError, OSError):
    """Storage that cannot be read or written: no space, no permission, no such place."""

    def __init__(self, message: str, number: int | None = None) -> None:
        # OSError with one argument keeps the message whole, but forgets the errno; it must
        # survive pickling, since workers raise it and drivers look at it.
        super().__init__(message)
        self.errno = number

    def __reduce__(self) -> tuple[type["StorageError"], tuple[str, int | None]]:
        return type(self), (str(self), self.errno)


class ClusterError(CraneError, RuntimeError):
    """A Ray cluster or job that cannot be reached or used."""


class EncoderError(CraneError, RuntimeError):
    """An encoder that cannot work on this hardware; no other slide would do better."""
