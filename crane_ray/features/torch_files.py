"""Files of ``torch.save``: loaded without executing anything, refused in words of our own."""

import pickle
import re
import warnings
from typing import IO, Any

FORBIDDEN = re.compile(r"GLOBAL (\S+)")
"""How torch names the kind of an object that it does not unpickle with ``weights_only=True``."""


def load_tensors(source: str | IO[bytes], *, device: Any = "cpu", mapped: bool = False) -> Any:
    """What a file of ``torch.save`` holds: tensors, and containers and plain values of them.

    Args:
        source: the file or its path.
        device: where the tensors go.
        mapped: leave tensors in the file until they are used; zip archives by path alone.

    Raises:
        ValueError: it is no such file, is damaged, or holds other objects; the message follows
            the file's name.
        OSError: it cannot be read.
    """
    import torch

    try:
        with warnings.catch_warnings():  # torch's own on odd files: the error says it better
            warnings.simplefilter("ignore")
            return torch.load(source, map_location=device, weights_only=True, mmap=mapped)
    except OSError:
        raise
    except Exception as error:  # torch raises many kinds for a broken file
        raise ValueError(_why_refused(error)) from error


def _why_refused(error: Exception) -> str:
    """Torch's own words go on for lines and recommend to execute what the file says."""
    if isinstance(error, pickle.UnpicklingError):
        found = FORBIDDEN.search(str(error))
        kind = f" ({found[1]})" if found else ""
        return (
            f"it holds pickled objects, which are never loaded{kind}, or is cut short, or no file "
            "of torch.save; save the tensors alone, with torch.save"
        )
    if isinstance(error, EOFError):
        return "it is empty or cut short"
    return "it is cut short or damaged"
