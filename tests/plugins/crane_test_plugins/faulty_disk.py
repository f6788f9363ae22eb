"""The zarr layout on a disk that fails or hangs when a test orders it to, for all files.

Every file of a store, whether crane-ray or zarr writes it, gets its name by a rename: that is
where a full disk, a network mount with a hiccup, or a process that dies in mid-write is put.
"""

import errno
import os
from itertools import count
from typing import Any

from crane_ray.features.stores.zarr import FORMAT

from .faults import first, hold, note, order

__all__ = ["FORMAT"]

PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY)
RENAMES = count(1)
_replace = os.replace


def replace(source: Any, target: Any, **options: Any) -> None:
    """``os.replace``, and what may befall it."""
    hold(str(target))
    if "/slides/" in str(target):
        if order("full disk"):
            note("refused", str(target))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        dying = order("death in mid-write")
        if dying and dying in str(target) and first("deaths in mid-write"):
            note("deaths in mid-write", str(target))
            os._exit(1)
    every = int(order("writes that fail") or 0)
    if every and (number := next(RENAMES)) % every == 0:
        code = PASSING[number // every % len(PASSING)]
        note("failed writes", str(target))
        raise OSError(code, os.strerror(code))
    _replace(source, target, **options)


os.replace = replace  # type: ignore[assignment]
