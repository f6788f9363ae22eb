"""Writing a pack: what can be used of each slide, in the widest of their types."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import SlideError, StorageError
from crane_ray.manifest import LeftOut
from crane_ray.mil.configs import PackConfig
from crane_ray.mil.sources import FeatureSource, as_float

Array = npt.NDArray[Any]
FORMAT = 1
WIDENED_BYTES = 1 << 24
SAMPLED = 25
"""Slides that are looked at to find the length of feature vectors."""


@dataclass(frozen=True)
class Wanted:
    """A slide that a pack shall have."""

    slide_id: str
    """As the cohort spells it."""
    source: FeatureSource
    name: str
    """As the source spells it."""


def write_pack(
    slides: list[Wanted], folder: Path, config: PackConfig, advance: Callable[[], object]
) -> None:
    """Writes ``features.bin`` and ``pack.json`` of slides into a folder.

    Slides that cannot be used are left out with the reason.

    Args:
        slides: in the order of their rows.
        folder: an empty one.
        config: how much room to leave.
        advance: called after each slide.

    Raises:
        StorageError: the disk has no room, or the features' storage fails.
    """
    rows: dict[str, tuple[int, int]] = {}
    left_out: list[LeftOut] = []
    dim, dtype = _common(slides)
    with _RowsFile(folder / "features.bin", dim, dtype, config) as file:
        for slide in slides:
            try:
                features = _usable(slide.source.read(slide.name), dim)
            except SlideError as error:
                left_out.append(
                    LeftOut(slide_id=slide.slide_id, status="failed", reason=str(error))
                )
            else:
                rows[slide.slide_id] = file.append(features)
            advance()
    facts = {
        "format": FORMAT,
        "dim": dim,
        "dtype": file.dtype.str,
        "rows": rows,
        "left_out": [slide.model_dump() for slide in left_out],
    }
    storage.put_bytes(str(folder / "pack.json"), json.dumps(facts).encode(), durable=True)


class _RowsFile:
    """The features of all slides in a file, in the widest of their types."""

    def __init__(self, path: Path, dim: int, dtype: np.dtype[Any], config: PackConfig) -> None:
        self.dtype = dtype
        self._path, self._dim, self._config = path, dim, config
        self._num_rows = 0
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def append(self, features: Array) -> tuple[int, int]:
        """Writes (N, D) features; where their rows begin and end."""
        wider = np.promote_types(self.dtype, features.dtype)
        if wider != self.dtype:
            self._widen(wider)
        start, self._num_rows = self._num_rows, self._num_rows + len(features)
        self._leave_room(features.size)
        np.ascontiguousarray(features, dtype=self.dtype).tofile(self._file)
        return start, self._num_rows

    def _widen(self, dtype: np.dtype[Any]) -> None:
        """Turns what is there into another type; a float32 slide after float16 ones is rare."""
        narrow, self.dtype = self.dtype, dtype
        self._leave_room(self._num_rows * self._dim)
        self._file.close()
        old = self._path.rename(self._path.with_suffix(".narrow"))
        self._file = self._path.open("wb")
        with old.open("rb") as source:
            while block := source.read(WIDENED_BYTES):
                np.frombuffer(block, narrow).astype(dtype).tofile(self._file)
        old.unlink()

    def _leave_room(self, num_numbers: int) -> None:
        _leave_room(self._path.parent, num_numbers * self.dtype.itemsize, self._config)


def _common(slides: list[Wanted]) -> tuple[int, np.dtype[Any]]:
    """The length of most slides' feature vectors and their type, of a sample spread over them.

    Where nothing of the sample can be used, the first slide that can says it.
    """
    spread = np.linspace(0, len(slides) - 1, min(SAMPLED, len(slides)))
    sample = dict.fromkeys(spread.astype(int).tolist())
    dims, dtypes = Counter[int](), set[np.dtype[Any]]()
    for place in [*sample, *(place for place in range(len(slides)) if place not in sample)]:
        if dims and place not in sample:
            break
        try:
            features = as_float(slides[place].source.read(slides[place].name))
        except SlideError:
            continue
        if features.size:
            dims[int(features.shape[1])] += 1
            dtypes.add(features.dtype)
    if not dims:
        return 0, np.dtype(np.float32)
    return dims.most_common(1)[0][0], np.result_type(*dtypes)


def _usable(features: Array, dim: int) -> Array:
    """The features of a slide as float16 or float32, unless they cannot be trained on."""
    found = as_float(features)
    if not found.size:
        raise SlideError("it has no patches; leave it out of the table or extract it again")
    if found.shape[1] != dim:
        raise SlideError(
            f"its feature vectors have {found.shape[1]} numbers, those of most slides {dim}; "
            "extract it again with the same encoder"
        )
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
