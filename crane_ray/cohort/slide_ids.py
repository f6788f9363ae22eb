"""How ids and labels are spelled: with a file extension or not, with spaces, dashes, capitals."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from crane_ray.slides.listing import SUFFIXES

EXTENSIONS = SUFFIXES | {".h5", ".hdf5", ".pt", ".pth", ".zarr", ".npy", ".npz", ".parquet", ".zip"}
"""Endings of files that hold a slide or its features."""

_MINUS = re.compile(r"(?<!\S)-(?=\d)")
_SEPARATORS = re.compile(r"[\s_-]+")
_WHOLE = re.compile(r"-?\d+\.0+")


def bare_slide_id(slide_id: str) -> str:
    """A slide's id without one known file extension, in any case: ``A-1.SVS`` is ``A-1``."""
    suffix = PurePosixPath(slide_id).suffix
    return slide_id[: -len(suffix)] if suffix.lower() in EXTENSIONS else slide_id


def spelling_key(text: str) -> str:
    """What is equal for spellings that differ in case, spaces, dashes and underscores alone.

    A run of separators counts as one, so that ``P1-11`` is not ``P11-1``; a dash that begins a
    number (``-1``) is its sign.
    """
    signed = _MINUS.sub("\N{MINUS SIGN}", text.strip())
    return _SEPARATORS.sub("_", signed).casefold()


def whole_number(text: str) -> str:
    """``1`` for ``1.0``, which is how pandas writes integers of a column with gaps."""
    return text.partition(".")[0] if _WHOLE.fullmatch(text) else text


def undo_floats(ids: Sequence[str]) -> list[str]:
    """Ids as they were before pandas wrote all of them as floats because of gaps in the column."""
    if all(_WHOLE.fullmatch(text) for text in ids if text):
        return [whole_number(text) for text in ids]
    return list(ids)
