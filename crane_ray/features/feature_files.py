"""Feature files of other tools, read: CLAM's h5 and pt files, TRIDENT's h5 files.

======  ==========================================================================================
CLAM    ``h5_files/ID.h5``: ``features`` (N, D), ``coords`` (N, 2); ``pt_files/ID.pt``: a tensor
TRIDENT ``ID.h5``: ``features`` (N, D) or (1, N, D), ``coords`` the same way, attributes on both
        (patch_size, patch_size_level0, level0_magnification, target_magnification, overlap,
        encoder)
======  ==========================================================================================
"""

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import h5py
import numpy as np
import numpy.typing as npt

from crane_ray import storage
from crane_ray.errors import ConfigError, SlideError
from crane_ray.features.torch_files import load_tensors

Array = npt.NDArray[Any]
SUBFOLDERS = {"h5": "h5_files", "pt": "pt_files"}
SAMPLED_ROWS = 64
INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class FeatureFiles:
    """The files that hold one slide's features: an h5 file, a pt file, or both."""

    slide_id: str
    h5: str = ""
    pt: str = ""
    problem: str = ""
    """Why they cannot be used, if so."""


class Rows(Protocol):
    """Features on disk, read by rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers in the file."""
        ...

    def __getitem__(self, rows: slice) -> Array:
        """(n, D) features of a run of rows."""
        ...


@dataclass(frozen=True)
class OpenFeatures:
    """One slide's features, open for reading."""

    sources: tuple[Rows, ...]
    """Of each file there is; they must agree."""
    xy: npt.NDArray[np.int32] | None
    """(N, 2) level-0 px; None where no file has coordinates."""
    attributes: dict[str, Any]
    """What the h5 file says besides: numbers and texts."""

    @property
    def num_patches(self) -> int:
        """Number of rows."""
        return int(self.sources[0].shape[0])

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return int(self.sources[0].shape[1])

    @property
    def dtype(self) -> str:
        """The widest type of the files."""
        return str(np.result_type(*(source.dtype for source in self.sources)))

    def read(self, start: int, stop: int) -> Array:
        """Features of rows [start, stop) as they are stored.

        Raises:
            SlideError: the h5 and the pt file do not agree.
        """
        first, *others = [source[start:stop] for source in self.sources]
        for other in others:
            if not np.array_equal(first, other):
                raise SlideError(
                    f"its h5 and its pt file hold other features (rows {start} to {stop}); keep "
                    "the one that is right"
                )
        return first

    def identity(self) -> str:
        """16 hex digits that tell these features from others without reading all of them.

        Of coordinates, shape, types, attributes and 64 rows spread over the slide: features made
        anew differ in every row.
        """
        digest = hashlib.sha256(repr(sorted(self.attributes.items())).encode())
        if self.xy is not None:
            digest.update(np.ascontiguousarray(self.xy, dtype="<i4").data)
        picked = np.unique(np.linspace(0, self.num_patches - 1, SAMPLED_ROWS, dtype=int))
        for source in self.sources:
            digest.update(repr((tuple(source.shape), str(source.dtype))).encode())
            for row in picked.tolist():
                digest.update(np.ascontiguousarray(source[row : row + 1]).tobytes())
        return digest.hexdigest()[:16]


def list_feature_files(folder: str) -> list[FeatureFiles]:
    """The slides that a folder has features of, sorted by slide_id (a file's name).

    Looks for ``*.h5`` and ``*.pt`` in the folder itself and in its ``h5_files`` and ``pt_files``.

    Raises:
        ConfigError: there are none.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for kind, below in SUBFOLDERS.items():
        for place in (folder, storage.join(folder, below)):
            for path in storage.list_files(place, f".{kind}"):
                slide_id = path.rsplit("/", 1)[-1].removesuffix(f".{kind}")
                found.setdefault(slide_id, {}).setdefault(kind, []).append(path)
    if not found:
        raise ConfigError(
            f"--from {folder}: no feature files there; give the folder that holds CLAM's h5_files "
            "and pt_files, or one of .h5 or .pt files (TRIDENT: .../features_ENCODER)"
        )
    return [_files(slide_id, kinds) for slide_id, kinds in sorted(found.items())]


def _files(slide_id: str, kinds: dict[str, list[str]]) -> FeatureFiles:
    twice = [path for paths in kinds.values() if len(paths) > 1 for path in paths]
    problem = f"several files for it ({', '.join(twice)}); keep one of a kind" if twice else ""
    one = {kind: paths[0] for kind, paths in kinds.items()}
    return FeatureFiles(slide_id, **one, problem=problem)


@contextmanager
def open_features(files: FeatureFiles) -> Iterator[OpenFeatures]:
    """A slide's features, read from its files by rows.

    Raises:
        SlideError: a file is broken, is not laid out as CLAM's or TRIDENT's, or two disagree.
    """
    if files.problem:
        raise SlideError(files.problem)
    sources: list[Rows] = []
    xy, attributes = None, dict[str, Any]()
    with ExitStack() as stack:
        if files.h5:
            try:
                file = stack.enter_context(h5py.File(_raw(stack, files.h5), "r"))
                sources.append(_H5Rows(file["features"]))
                xy, attributes = _coords(file), _attributes(file)
            except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
                raise SlideError(f"{files.h5} cannot be used: {error}") from error
        if files.pt:
            sources.append(_load_tensor(files.pt))
        shapes = [tuple(source.shape) for source in sources]
        if len(set(shapes)) > 1:
            raise SlideError(f"its h5 and its pt file have other shapes: {shapes[0]}, {shapes[1]}")
        if xy is not None and len(xy) != shapes[0][0]:
            raise SlideError(f"{files.h5} has {shapes[0][0]} features and {len(xy)} coordinates")
        yield OpenFeatures(tuple(sources), xy, attributes)


def _raw(stack: ExitStack, path: str) -> Any:
    return stack.enter_context(storage.open_read(path)) if storage.is_uri(path) else path


class _H5Rows:
    """An HDF5 dataset of shape (N, D) or (1, N, D)."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        self.shape: tuple[int, ...] = _two_axes("features", dataset.shape)
        self.dtype: np.dtype[Any] = dataset.dtype
        if dataset.dtype.kind != "f":
            raise ValueError(f"features are {dataset.dtype}, not floating-point numbers")

    def __getitem__(self, rows: slice) -> Array:
        try:
            found = self._dataset[0, rows] if self._dataset.ndim == 3 else self._dataset[rows]
        except OSError as error:
            raise SlideError(f"{self._dataset.file.filename} cannot be read: {error}") from error
        return np.asarray(found)


def _two_axes(what: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    axes = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    if len(axes) != 2:
        raise ValueError(f"{what} of shape {shape}; (N, D) or (1, N, D) is needed")
    return tuple(axes)


def _coords(file: Any) -> npt.NDArray[np.int32] | None:
    if "coords" not in file:
        return None
    shape = _two_axes("coords", file["coords"].shape)
    if shape[1] != 2:
        raise ValueError(f"coords of shape {shape}; (N, 2) is needed")
    found = np.asarray(file["coords"][()]).reshape(shape)
    whole = found.astype(np.int64)
    if (whole != found).any() or (len(whole) and not _fits(whole)):
        raise ValueError("coords are not whole numbers of level-0 px")
    return whole.astype(np.int32)


def _fits(numbers: npt.NDArray[np.int64]) -> bool:
    return bool(INT32.min <= numbers.min() and numbers.max() <= INT32.max)


def _attributes(file: Any) -> dict[str, Any]:
    """Numbers and texts on ``features`` and ``coords``, the latter's where both say something."""
    attributes: dict[str, Any] = {}
    for name in ("features", "coords"):
        for key, value in file[name].attrs.items() if name in file else ():
            plain = value.decode() if isinstance(value, bytes) else value
            plain = plain.item() if isinstance(plain, np.generic) else plain
            if isinstance(plain, str | int | float):
                attributes[key] = plain
    return attributes


def _load_tensor(path: str) -> Rows:
    """The tensor in a .pt file, mapped where it is local; nothing in it is ever executed."""
    import torch

    try:
        with ExitStack() as stack:
            mapped = not storage.is_uri(path) and zipfile.is_zipfile(path)
            found = load_tensors(_raw(stack, path), mapped=mapped)
        if not isinstance(found, torch.Tensor):
            raise ValueError(f"holds a {type(found).__name__}, not a bare (N, D) tensor")
        if not found.is_floating_point():
            raise ValueError(f"features are {found.dtype}, not floating-point numbers")
        found = found.detach()
        if found.dtype == torch.bfloat16:
            found = found.float()
        array: Array = found.reshape(_two_axes("the tensor", tuple(found.shape))).numpy()
        return array
    except (OSError, ValueError, RuntimeError) as error:
        raise SlideError(f"{path} cannot be used: {error}") from error
