"""A pack: the features of a cohort in one memory-mapped file on a node's own disk.

::

    KEY/features.bin    rows of all slides one after the other, little-endian
    KEY/pack.json       type, length of a row, and where each slide's rows are

A store's chunks and CLAM's files are read once; every epoch afterwards reads mapped memory.
"""

import fcntl
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crane_ray.errors import ConfigError, StorageError
from crane_ray.manifest import LeftOut
from crane_ray.mil.configs import PackConfig
from crane_ray.mil.pack_writing import FORMAT, Wanted, write_pack

Array = npt.NDArray[Any]


class Pack:
    """The packed features of slides, mapped into memory and shared by a node's processes."""

    def __init__(
        self,
        features: Array,
        rows: Mapping[str, tuple[int, int]],
        left_out: tuple[LeftOut, ...],
    ) -> None:
        self._features = features
        self._rows = rows
        self.left_out = left_out
        """Slides whose features cannot be used, and why."""

    @classmethod
    def open(cls, folder: Path) -> Self:
        """An existing pack."""
        facts = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
        dim, dtype = facts["dim"], np.dtype(facts["dtype"])
        total = sum(stop - start for start, stop in facts["rows"].values())
        if total:
            path = folder / "features.bin"
            # "c": private pages where somebody writes, which torch takes without a warning.
            features: Array = np.memmap(path, dtype=dtype, mode="c", shape=(total, dim))
        else:
            features = np.empty((0, dim), dtype)
        rows = {slide_id: (start, stop) for slide_id, (start, stop) in facts["rows"].items()}
        return cls(features, rows, tuple(LeftOut(**item) for item in facts["left_out"]))

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return int(self._features.shape[1])

    @property
    def slide_ids(self) -> tuple[str, ...]:
        """The slides that are there."""
        return tuple(self._rows)

    def num_patches(self, slide_id: str) -> int:
        """Patches of a slide."""
        start, stop = self._rows[slide_id]
        return stop - start

    def read(self, slide_id: str) -> Array:
        """(N, D) features of a slide: a view of mapped memory, float16 or float32."""
        start, stop = self._rows[slide_id]
        return self._features[start:stop]


def build_pack(
    wanted: Iterable[Wanted],
    config: PackConfig,
    advance: Callable[[], object] = lambda: None,
) -> Pack:
    """The pack of slides on this node, built unless it is there.

    Slides that cannot be read, have no patches, numbers that are not finite, or another length of
    feature vectors than most, are left out with the reason.

    Args:
        wanted: the slides; their order is that of the rows.
        config: where packs are kept.
        advance: called after each slide that was packed.

    Raises:
        StorageError: the disk has no room, or the features' storage fails. A slide that is left
            out for a failure that passes would be missing from one node's pack and not another's.
        ConfigError: no slide has features that can be used, or the folder cannot be used.
    """
    slides = list(wanted)
    key = _key(slides)
    root = config.root()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        (root / f"{key}.lock").touch()
    except OSError as error:
        raise ConfigError(f"--pack-folder {root}: {error.strerror}; give another") from error
    with _locked(root / f"{key}.lock"):
        folder = root / key
        if not _is_whole(folder):
            _build(slides, folder, config, advance)
    pack = Pack.open(folder)
    if not pack.slide_ids:
        reasons = Counter(slide.reason for slide in pack.left_out).most_common(3)
        words = (
            "; ".join(f"{count} x {reason}" for reason, count in reasons) or "none was asked for"
        )
        raise ConfigError(f"no slide has features that can be used: {words}")
    return pack


def _is_whole(folder: Path) -> bool:
    """Whether a pack is there, and not cut short by a power cut or by somebody's hand."""
    try:
        facts = json.loads((folder / "pack.json").read_bytes())
        size = (folder / "features.bin").stat().st_size
    except (OSError, ValueError):
        return False
    num_rows = sum(stop - start for start, stop in facts["rows"].values())
    return bool(size == num_rows * facts["dim"] * np.dtype(facts["dtype"]).itemsize)


def _build(
    slides: list[Wanted], folder: Path, config: PackConfig, advance: Callable[[], object]
) -> None:
    """Writes a pack, which appears whole or not at all; a killed process's part is replaced."""
    partial = folder.with_name(f".{folder.name}")
    for leftover in (partial, folder):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        partial.mkdir()
        write_pack(slides, partial, config, advance)
        partial.rename(folder)
    except StorageError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise StorageError(
            f"--pack-folder {folder.parent}: {error.strerror or error}; give a larger disk",
            error.errno,
        ) from error


def _key(slides: list[Wanted]) -> str:
    digest = hashlib.sha256(str(FORMAT).encode())
    for root, source in sorted({slide.source.root: slide.source for slide in slides}.items()):
        digest.update(repr((root, source.identity())).encode())
    for slide in slides:
        digest.update(repr((slide.slide_id, slide.source.root, slide.name)).encode())
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one process of the node; the kernel lets go of it when that process dies."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
