"""A pack: the features of a cohort in one memory-mapped file on a node's own disk.

::

    KEY/features.bin    rows of all slides one after the other, little-endian
    KEY/pack.json       type, length of a row, and where each slide's rows are

A store's chunks and CLAM's files are read once; every epoch afterwards reads mapped memory.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from crane_ray import storage
from crane_ray.config import Config, Flag
from crane_ray.errors import ConfigError, SlideError, StorageError
from crane_ray.manifest import LeftOut
from crane_ray.mil.sources import FeatureSource, as_float

Array = npt.NDArray[Any]
FORMAT = 1


class PackConfig(Config):
    """Where a node keeps features for training."""

    folder: Annotated[str | None, Flag("--pack-folder", metavar="FOLDER")] = None
    """Folder on each node's own disk for packed features; CRANE_RAY_PACKS, or one below the
    temporary folder, where not given. It may be removed whenever nothing trains."""
    reserve_gb: float = Field(2.0, ge=0)
    """Disk space that packing leaves free."""

    @field_validator("folder")
    @classmethod
    def _absolute_folder(cls, value: str | None) -> str | None:
        if value is not None and storage.is_uri(value):
            raise ValueError("a folder on each node's own disk is needed, no URI")
        return None if value is None else storage.absolute(value)

    def root(self) -> Path:
        """The folder on this node."""
        default = os.environ.get("CRANE_RAY_PACKS")
        below = Path(tempfile.gettempdir()) / f"crane-ray-packs-{os.getuid()}"
        return Path(self.folder or default or below)


@dataclass(frozen=True)
class Wanted:
    """A slide that a pack shall have."""

    slide_id: str
    """As the cohort spells it."""
    source: FeatureSource
    name: str
    """As the source spells it."""


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
        StorageError: the disk has no room.
        ConfigError: no slide has features that can be used, or the folder cannot be used.
    """
    slides = list(wanted)
    key = _key(slides)
    root = config.root()
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"--pack-folder {root}: {error.strerror}; give another") from error
    folder = root / key
    with _locked(root / f"{key}.lock"):
        if not (folder / "pack.json").exists():
            partial = root / f".{key}"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                _write(slides, partial, config, advance)
            except OSError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise StorageError(
                    f"--pack-folder {root}: {error.strerror or error}; give a larger disk",
                    error.errno,
                ) from error
            partial.rename(folder)
    pack = Pack.open(folder)
    if not pack.slide_ids:
        reasons = Counter(slide.reason for slide in pack.left_out).most_common(3)
        words = (
            "; ".join(f"{count} x {reason}" for reason, count in reasons) or "none was asked for"
        )
        raise ConfigError(f"no slide has features that can be used: {words}")
    return pack


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


def _write(
    slides: list[Wanted], folder: Path, config: PackConfig, advance: Callable[[], object]
) -> None:
    rows: dict[str, tuple[int, int]] = {}
    left_out: list[LeftOut] = []
    common, dtype = _common(slides)
    with (folder / "features.bin").open("wb") as file:
        start = 0
        for slide in slides:
            try:
                features = _usable(slide.source.read(slide.name), common, dtype)
            except (SlideError, StorageError) as error:
                left_out.append(
                    LeftOut(slide_id=slide.slide_id, status="failed", reason=str(error))
                )
            else:
                _leave_room(folder, features.nbytes, config)
                np.ascontiguousarray(features, dtype=dtype).tofile(file)
                rows[slide.slide_id] = (start, start + len(features))
                start += len(features)
            advance()
        file.flush()
        os.fsync(file.fileno())
    facts = {
        "format": FORMAT,
        "dim": common,
        "dtype": np.dtype(dtype).str,
        "rows": rows,
        "left_out": [slide.model_dump() for slide in left_out],
    }
    (folder / "pack.json").write_text(json.dumps(facts), encoding="utf-8")


SAMPLED = 25
"""Slides that are looked at to find the length of feature vectors."""


def _common(slides: list[Wanted]) -> tuple[int, Any]:
    """The length and the type of most slides' features, of a sample spread over them."""
    dims, dtypes = Counter[int](), set[Any]()
    for place in np.unique(np.linspace(0, len(slides) - 1, min(SAMPLED, len(slides))).astype(int)):
        try:
            features = as_float(slides[place].source.read(slides[place].name))
        except (SlideError, StorageError):
            continue
        dims[int(features.shape[1])] += 1
        dtypes.add(features.dtype)
    if not dims:
        return 0, np.dtype(np.float32)
    return dims.most_common(1)[0][0], np.result_type(*dtypes)


def _usable(features: Array, dim: int, dtype: Any) -> Array:
    found = as_float(features)
    if not len(found):
        raise SlideError("it has no patches; leave it out of the table or extract it again")
    if found.shape[1] != dim:
        raise SlideError(
            f"its feature vectors have {found.shape[1]} numbers, those of most slides {dim}; "
            "extract it again with the same encoder"
        )
    if found.dtype != dtype:
        found = found.astype(dtype)  # to float32, or to a float16 that overflows below
    finite = np.isfinite(found).all(axis=1)
    if not finite.all():
        raise SlideError(
            f"{int((~finite).sum())} of its {len(found)} patches have features that are no finite "
            f"numbers (the first is patch {int(np.argmin(finite))}); extract it again"
        )
    return found


def _leave_room(folder: Path, num_bytes: int, config: PackConfig) -> None:
    free = shutil.disk_usage(folder).free - config.reserve_gb * 1e9
    if num_bytes > free:
        raise StorageError(
            f"--pack-folder {folder.parent}: {max(free, 0) / 1e9:.1f} GB are free beside the "
            f"reserve of {config.reserve_gb:g} GB, and features need more; give a larger disk"
        )
