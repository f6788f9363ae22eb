"""A layout on a disk that is full."""

import errno

from crane_ray import storage
from crane_ray.features.store import Array, SlideHeader
from crane_ray.features.stores.zarr import ZarrFormat


class FullDisk(ZarrFormat):
    def write(self, path: str, header: SlideHeader, start: int, features: Array, xy: Array) -> None:
        raise storage.write_error(path, OSError(errno.ENOSPC, "No space left on device"))


FORMAT = FullDisk()
