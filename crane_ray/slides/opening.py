"""Opens a slide with the reader that knows its format."""

from pathlib import Path

from crane_ray import storage
from crane_ray.errors import SlideError
from crane_ray.slides.readers import image, openslide
from crane_ray.slides.slide import Slide, SlideReader

MANY_FILES = frozenset({".mrxs", ".vms", ".vmu", ".dcm"})
"""Formats whose slides are several files: without the others OpenSlide does not know them."""


def open_slide(slide: Slide) -> SlideReader:
    """An open reader of a slide: OpenSlide where it knows the format, else a plain image.

    Raises:
        SlideError: no such file, not a slide, or broken; the message says which.
    """
    if storage.is_uri(slide.uri):
        raise SlideError(
            f"slide {slide.slide_id}: {slide.uri} is not a local path; slides are read from "
            "paths that every node sees (a mounted bucket works)"
        )
    path = Path(slide.uri)
    if not path.exists():
        raise SlideError(f"slide {slide.slide_id}: no such file on this node: {slide.uri}")
    try:
        if openslide.detects(path):
            return openslide.open_reader(path)
        if image.detects(path):
            return image.open_reader(path)
    except SlideError as error:
        raise SlideError(f"slide {slide.slide_id}: {error}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise SlideError(f"slide {slide.slide_id}: {slide.uri}: {reason}") from error
    size = path.stat().st_size
    companions = " with its companion files beside it" if path.suffix.lower() in MANY_FILES else ""
    raise SlideError(
        f"slide {slide.slide_id}: not a slide that can be read ({path.name}, {size:,} bytes): "
        "neither OpenSlide nor the image reader knows its content; check that the file came whole"
        f"{companions}"
    )
