"""The page's own files: a fixed list, read once, so that no address can name another."""

from importlib.resources import files
from importlib.resources.abc import Traversable

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Endings of files that are served; licences and notes beside them are not."""


def read_assets() -> dict[str, tuple[bytes, str]]:
    """Content and media type of each file of the page by its name (``openseadragon/...``)."""
    return dict(_below(files("crane_ray.viewer") / "static", ""))


def _below(folder: Traversable, prefix: str) -> list[tuple[str, tuple[bytes, str]]]:
    found = []
    for entry in folder.iterdir():
        ending = entry.name.rpartition(".")[2]
        if entry.is_dir():
            found += _below(entry, f"{prefix}{entry.name}/")
        elif ending in TYPES:
            found.append((prefix + entry.name, (entry.read_bytes(), TYPES[ending])))
    return found
