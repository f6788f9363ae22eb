"""The files that make up one slide: mostly one, for some formats several that belong together."""

import hashlib
import json
from dataclasses import dataclass

from crane_ray import storage
from crane_ray.storage import FileFacts


@dataclass(frozen=True)
class SlideFile:
    """One file of a slide."""

    name: str
    """Its path below the slide's folder, which OpenSlide goes by."""
    facts: FileFacts


def slide_files(uri: str) -> list[SlideFile]:
    """The files of a slide, its own first.

    ``x.mrxs`` has all below the folder ``x``; ``.vms`` and ``.vmu`` have the files beside them
    that they name; ``.dcm`` has every ``.dcm`` of its folder (so a folder should be one series).
    Other formats are one file.

    Raises:
        StorageError: the slide is not there, or the storage cannot say.
    """
    own = SlideFile(storage.name_of(uri), storage.facts_of(uri))
    folder = uri.rsplit("/", 1)[0]
    stem, _, suffix = own.name.rpartition(".")
    suffix = suffix.lower()
    beside: list[SlideFile] = []
    if suffix == "mrxs":
        beside = _below(storage.join(folder, stem), f"{stem}/", recursive=True)
    elif suffix == "dcm":
        beside = [file for file in _below(folder) if file.name.lower().endswith(".dcm")]
    elif suffix in {"vms", "vmu"}:
        named = _values(storage.read_bytes(uri))
        beside = [file for file in _below(folder) if file.name in named]
    return [own, *(file for file in beside if file.name != own.name)]


def content_key(uri: str, files: list[SlideFile]) -> str:
    """A name for this content of a slide: another one once any of its files changes."""
    parts = [uri, *([file.name, file.facts.size, file.facts.version] for file in files)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def _below(folder: str, prefix: str = "", *, recursive: bool = False) -> list[SlideFile]:
    start = len(folder.rstrip("/")) + 1
    found = storage.list_facts(folder, recursive=recursive)
    return [SlideFile(prefix + facts.uri[start:], facts) for facts in found]


def _values(ini: bytes) -> set[str]:
    """What stands behind the equals signs of Hamamatsu's index files."""
    lines = ini.decode("utf-8", errors="replace").splitlines()
    return {line.partition("=")[2].strip() for line in lines if "=" in line}
