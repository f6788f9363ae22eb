"""Opens a slide with the reader that knows its format."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from crane_ray import storage
from crane_ray.errors import SlideError
from crane_ray.plugins import Plugin, load_plugin
from crane_ray.slides.readers import image, openslide, tiff
from crane_ray.slides.slide import Slide, SlideReader
from crane_ray.slides.staging import StagingConfig
from crane_ray.slides.tiff.errors import StepAsideError

logger = logging.getLogger(__name__)

READERS_PACKAGE = "crane_ray.slides.readers"
AUTO = "auto"
"""The fastest reader whose pixels are OpenSlide's."""

MANY_FILES = frozenset({".mrxs", ".vms", ".vmu", ".dcm"})
"""Formats whose slides are several files: without the others OpenSlide does not know them."""


def open_slide(slide: Slide, reader: str = AUTO) -> SlideReader:
    """An open reader of a slide.

    Args:
        slide: which; its uri is a path that this node sees.
        reader: ``auto`` takes tiled TIFF and SVS directly where that gives OpenSlide's pixels,
            else OpenSlide where it knows the format, else a plain image. A reader's name
            (``tiff``, ``openslide``, ``image``) or the dotted path of the user's own module,
            with ``detects(path)`` and ``open_reader(path)``, is taken without alternative.

    Raises:
        SlideError: no such file, not a slide, broken, or not for the reader asked for; the
            message says which.
        ConfigError: there is no such reader.
    """
    if storage.is_uri(slide.uri):
        raise SlideError(
            f"slide {slide.slide_id}: {slide.uri} is not a local path; slides are read from "
            "paths that every node sees (a mounted bucket works)"
        )
    plugin = None if reader == AUTO else load_plugin(READERS_PACKAGE, reader)
    path = Path(slide.uri)
    if not path.exists():
        raise SlideError(f"slide {slide.slide_id}: no such file on this node: {slide.uri}")
    try:
        opened = _open_any(path) if plugin is None else _open_with(plugin, path)
    except SlideError as error:
        raise SlideError(f"slide {slide.slide_id}: {error}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise SlideError(f"slide {slide.slide_id}: {slide.uri}: {reason}") from error
    if opened is not None:
        return opened
    raise SlideError(f"slide {slide.slide_id}: {_unknown(path, reader)}")


@contextmanager
def open_staged(
    slide: Slide, staging: StagingConfig, reader: str = AUTO
) -> Iterator[tuple[Slide, SlideReader]]:
    """The slide with a path on this node and its open reader, both good inside the block.

    Args:
        slide: which; its uri may be far away.
        staging: which slides are brought to this node first, and where to.
        reader: see `open_slide`.

    Raises:
        SlideError: it cannot be brought here, or as `open_slide`.
        ConfigError: the cache folder cannot be used, or as `open_slide`.
    """
    cache = staging.cache_for(slide.uri)
    with ExitStack() as held:
        if cache is not None:
            lease = held.enter_context(cache.lease(slide.uri))
            slide = replace(slide, uri=str(lease.path))
        yield slide, held.enter_context(open_slide(slide, reader))


def _open_any(path: Path) -> SlideReader | None:
    """The first reader that takes a file; None where none knows it."""
    if not openslide.detects(path):
        return image.open_reader(path) if image.detects(path) else None
    try:
        return _open_tiff(path)
    except StepAsideError as error:
        logger.debug("%s is read through OpenSlide: %s", path.name, error)
        return openslide.open_reader(path)


def _open_with(plugin: Plugin, path: Path) -> SlideReader | None:
    if plugin is tiff:
        try:
            return _open_tiff(path)
        except StepAsideError as error:
            raise SlideError(
                f"{path.name} cannot be read by --reader tiff: {error}; use --reader auto"
            ) from error
    reader: SlideReader | None = plugin.open_reader(path) if plugin.detects(path) else None
    return reader


def _open_tiff(path: Path) -> SlideReader:
    """The direct reader, with OpenSlide for what it leaves; here, as readers know no other."""
    return tiff.open_reader(path, partial(openslide.open_reader, path))


def _unknown(path: Path, reader: str) -> str:
    size = path.stat().st_size
    who = "neither OpenSlide nor the image reader knows its content; check that the file came whole"
    if reader != AUTO:
        who = f"the reader {reader} does not know its content; use --reader auto"
    elif path.suffix.lower() in MANY_FILES:
        who += " with its companion files beside it"
    return f"not a slide that can be read ({path.name}, {size:,} bytes): {who}"
