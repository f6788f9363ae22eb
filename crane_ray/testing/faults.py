"""Makers of broken slides: each damages a file in place in one well-defined way.

What OpenSlide 4.0.1 makes of each (the tests hold it to that):

==================  =========================================================================
`truncate_file`     does not open: the lower levels' directories or tiles are gone. A single
                    level of more than 5 MB opens, and raises for the tiles that are gone.
`corrupt_tiles`     opens; reading such a tile raises, and so does every later call of that
                    handle, whatever it asks for
`cut_tiles`         the same; other decoders fill what is missing with grey and say nothing
`remove_tiles`      opens; such tiles read as transparent black **without any error**, like
                    the tiles that a scanner left out
==================  =========================================================================
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from crane_ray.errors import ConfigError


def truncate_file(path: Path, keep_fraction: float) -> None:
    """Cuts a file after the given fraction of its bytes, as an interrupted copy does.

    Raises:
        ConfigError: the fraction is not in [0, 1).
    """
    if not 0 <= keep_fraction < 1:
        raise ConfigError(f"keep_fraction {keep_fraction:g}: a fraction from 0 to below 1 is kept")
    os.truncate(path, int(path.stat().st_size * keep_fraction))


def corrupt_tiles(
    path: Path, *, level: int = 0, tiles: Collection[int] | None = None, seed: int = 0
) -> None:
    """Overwrites tiles of one level with noise; directories and other levels stay intact.

    Only compressed tiles become unreadable so; uncompressed ones hold noise for pixels.

    Args:
        path: a tiled TIFF.
        level: which level's tiles; level n is the file's n-th directory, as in `write_pyramid`.
        tiles: indices of tiles, row by row; None means all of them.
        seed: of the noise.

    Raises:
        ConfigError: there is no such level or tile.
    """
    rng = np.random.default_rng(seed)
    with tifffile.TiffFile(path) as tiff:
        page = _page(tiff, path, level)
        spans = [(page.dataoffsets[i], page.databytecounts[i]) for i in _chosen(page, path, tiles)]
    with path.open("r+b") as file:
        for offset, count in spans:
            file.seek(offset)
            # A leading zero byte: noise can then never start like a JPEG stream.
            file.write(b"\0" + rng.bytes(count - 1))


def cut_tiles(
    path: Path,
    *,
    level: int = 0,
    tiles: Collection[int] | None = None,
    keep_fraction: float = 0.5,
) -> None:
    """Cuts tiles short: their byte counts shrink, so that each stream ends in the middle.

    Arguments and errors as in `corrupt_tiles`; `keep_fraction` of each tile's bytes is kept.
    """
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = _page(tiff, path, level)
        counts = list(page.databytecounts)
        for index in _chosen(page, path, tiles):
            counts[index] = max(1, int(counts[index] * keep_fraction))
        _set_tag(page, "TileByteCounts", counts)


def remove_tiles(path: Path, *, level: int = 0, tiles: Collection[int] | None = None) -> None:
    """Makes tiles missing: offset and byte count become 0, which is how sparse TIFFs say so.

    Arguments and errors as in `corrupt_tiles`.
    """
    with tifffile.TiffFile(path, mode="r+") as tiff:
        page = _page(tiff, path, level)
        gone = set(_chosen(page, path, tiles))
        for name, values in (
            ("TileOffsets", page.dataoffsets),
            ("TileByteCounts", page.databytecounts),
        ):
            _set_tag(page, name, [0 if i in gone else value for i, value in enumerate(values)])


def _page(tiff: Any, path: Path, level: int) -> Any:
    if not 0 <= level < len(tiff.pages) or not tiff.pages[level].is_tiled:
        raise ConfigError(
            f"{path.name}: no tiled level {level}; it has {len(tiff.pages)} directories"
        )
    return tiff.pages[level]


def _chosen(page: Any, path: Path, tiles: Collection[int] | None) -> list[int]:
    num_tiles = len(page.dataoffsets)
    chosen = sorted(range(num_tiles) if tiles is None else tiles)
    if chosen and not 0 <= chosen[0] <= chosen[-1] < num_tiles:
        raise ConfigError(f"{path.name}: tiles {chosen} asked for; they are 0 to {num_tiles - 1}")
    return chosen


def _set_tag(page: Any, name: str, values: list[int]) -> None:
    page.tags[name].overwrite(values)
