"""Which paths of a job's config the cluster has to see, and whether it does.

The submitting machine notes what it sees itself (`paths_of`); the job compares that with what its
own node sees (`problems`) before its verb begins. Imports no ray.
"""

import glob
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from crane_ray import storage
from crane_ray.config import Config

INPUTS = (
    "slides.source", "slides", "contours", "process_list", "labels", "bags.labels", "locked_test",
    "bags.features", "bags.sources", "splits", "model", "grade_model", "run", "maps", "cases",
    "features", "slides_of", "source", "rates", "encoder.weights", "encoders", "dense.weights",
)  # fmt: skip
"""Keys of what a verb reads."""
FOLDERS = ("work", "store", "results", "out", "to", "clam", "rates_out")
"""Keys of folders that a verb writes to, and may make."""
TRAVELLING = ("task", "space")
"""Keys of small YAML files that go along with the job."""
COHORT = (
    "work", "slides.source", "slides", "bags.labels", "labels", "cases", "bags.features",
    "features", "store", "source", "model", "run",
)  # fmt: skip
"""Keys that say to somebody which cohort a job is about."""


class JobPath(Config):
    """A local path of a config, as the submitting machine sees it."""

    key: str
    """Where it stands in the config."""
    path: str
    """The path itself."""
    seen_as: str
    """What has to be there: the path, the folder of a glob, or the folder that it would be made
    in."""
    role: Literal["input", "folder", "travels"]
    """Read, written, or sent along with the job."""
    here: bool
    """True where the submitting machine has it."""
    copy_name: str | None = None
    """Name of the copy in the job's own folder, of what travels."""


class JobPaths(Config):
    """All local paths of a config."""

    paths: tuple[JobPath, ...] = ()
    """In the order of the config's kinds."""


def paths_of(job: Config) -> JobPaths:
    """The local paths of a config; URIs and names (``imagenet``) are none."""
    tree = job.model_dump(mode="json")
    found = [_input(key, path) for key in INPUTS for key, path in local_paths(tree, key)]
    found += [_folder(key, path) for key in FOLDERS for key, path in local_paths(tree, key)]
    found += [_travelling(key, path) for key in TRAVELLING for key, path in local_paths(tree, key)]
    return JobPaths(paths=tuple(one for one in found if one.seen_as != "/"))


def problems(paths: Sequence[JobPath]) -> list[str]:
    """A line for each path that this node does not see although it has to."""
    return [f"{one.key} {one.path}: {_why(one)}" for one in paths if not is_there(one.seen_as)]


def cohort_of(job: Config) -> dict[str, str]:
    """What a job is about: the paths of its cohort by the last word of their keys."""
    tree = job.model_dump(mode="json")
    named: dict[str, str] = {}
    for key in COHORT:
        value = _value(tree, key)
        if isinstance(value, str):
            group, _, last = key.rpartition(".")
            named.setdefault(group if last == "source" and group else last, value)
    return named


def use_copies(tree: dict[str, Any], paths: Sequence[JobPath]) -> bool:
    """Puts the copies of files that this node does not see into a config; True if there are any.

    The job's own folder goes with the job, and the config beside its results, or of the best of
    its trials, is to be used again: a copy goes to the results first, where they are local.
    """
    changed = False
    for one in paths:
        if one.copy_name is not None and not is_there(one.path):
            tree[one.key] = _kept(one.copy_name, tree.get("results"))
            changed = True
    return changed


def _kept(copy_name: str, results: Any) -> str:
    """Where a copy stays; named by its content, so that two of a name do not meet."""
    copy = Path(storage.absolute(copy_name))
    if not isinstance(results, str) or storage.is_uri(results):
        return str(copy)
    content = copy.read_bytes()
    name = f"{copy.stem}-{hashlib.sha256(content).hexdigest()[:8]}{copy.suffix}"
    kept = storage.join(results, name)
    storage.put_bytes(kept, content)
    return kept


def _input(key: str, path: str) -> JobPath:
    folder = Path(path)
    while glob.has_magic(str(folder)) and not is_there(path):
        folder = folder.parent
    return JobPath(
        key=key, path=path, seen_as=str(folder), role="input", here=is_there(str(folder))
    )


def _folder(key: str, path: str) -> JobPath:
    place = Path(path)
    while not is_there(str(place)) and place != place.parent:
        place = place.parent
    return JobPath(key=key, path=path, seen_as=str(place), role="folder", here=True)


def _travelling(key: str, path: str) -> JobPath:
    here = Path(path).is_file()
    return JobPath(
        key=key,
        path=path,
        seen_as="." if here else path,
        role="travels",
        here=here,
        copy_name=f"{key}-{storage.name_of(path)}" if here else None,
    )


def _why(one: JobPath) -> str:
    if not one.here:
        return "is neither on the cluster nor on the machine you submit from; check how it is spelt"
    if one.seen_as == one.path:
        return "this path is on the machine you submit from, and not on the cluster"
    if one.role == "input":
        return f"its folder {one.seen_as} is on the machine you submit from, and not on the cluster"
    return (
        f"would be made in {one.seen_as}, which is on the machine you submit from, and not on the "
        "cluster"
    )


def is_there(path: str) -> bool:
    """True where this user can see something there."""
    try:
        return Path(path).exists()
    except OSError:  # no permission to look
        return False


def local_paths(tree: Mapping[str, Any], key: str) -> Iterator[tuple[str, str]]:
    """The local paths that stand at a key of a config, each with its own key."""
    value = _value(tree, key)
    if isinstance(value, str) and value.startswith("/"):
        yield key, value
    elif key == "bags.sources" and isinstance(value, dict):
        yield from ((f"{key}.{name}", path) for name, path in value.items() if path[:1] == "/")
    elif key == "encoders":
        for place, one in enumerate(value or ()):
            weights = one.get("weights") if isinstance(one, dict) else None
            if weights and weights.startswith("/"):
                yield f"encoders.{place}.weights", weights


def _value(tree: Any, key: str) -> Any:
    for word in key.split("."):
        if not isinstance(tree, Mapping):
            return None
        tree = tree.get(word)
    return tree
