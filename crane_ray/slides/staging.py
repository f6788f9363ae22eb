"""Slides from object storage or slow mounts, brought to the node that reads them."""

import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.slides.cache_folder import CacheFolder
from crane_ray.slides.slide_cache import GB, SlideCache


class StagingConfig(Config):
    """How slides are brought to the node that reads them."""

    local: Annotated[bool, Flag("--stage")] = False
    """Copy slides of local paths, too, before they are read: for slow network mounts."""
    folder: Annotated[str | None, Flag("--cache-folder", metavar="FOLDER")] = None
    """Folder on each node's own disk for copies of slides; CRANE_RAY_CACHE, or one below the
    temporary folder, where not given."""
    max_gb: Annotated[float, Flag("--cache-gb")] = Field(100, gt=0)
    """Size of that folder, GB; never more than half of the disk space that is free."""
    ahead: int = Field(2, ge=1, le=32)
    """Slides that each process fetches at once, ahead of use."""

    @field_validator("folder")
    @classmethod
    def _absolute_folder(cls, value: str | None) -> str | None:
        if value is not None and storage.is_uri(value):
            raise ValueError("a folder on each node's own disk is needed, no URI")
        return None if value is None else storage.absolute(value)

    def cache_for(self, uri: str) -> "SlideCache | None":
        """The cache that a slide goes through; None where it is read where it lies."""
        return self.open_cache() if self.local or storage.is_uri(uri) else None

    def open_cache(self) -> "SlideCache":
        """The cache of this process, the same one for the same config.

        Raises:
            ConfigError: the folder cannot be used.
        """
        return _open_cache(self)


_opened: list[SlideCache] = []


def opened_caches() -> tuple[SlideCache, ...]:
    """The caches of this process so far, in the order in which they were opened."""
    return tuple(_opened)


@functools.cache
def _open_cache(config: StagingConfig) -> "SlideCache":
    folder = Path(config.folder or default_folder())
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    held = CacheFolder(folder, 0, 0).used_bytes()
    max_bytes = min(int(config.max_gb * GB), (free + held) // 2)
    cache = SlideCache(folder, max_bytes, copy_local=config.local, threads=config.ahead)
    _opened.append(cache)
    return cache


def default_folder() -> str:
    """Where copies of slides go by default: CRANE_RAY_CACHE, else a user's own temporary folder."""
    named = os.environ.get("CRANE_RAY_CACHE")
    return named or str(Path(tempfile.gettempdir()) / f"crane-ray-slides-{os.getuid()}")
