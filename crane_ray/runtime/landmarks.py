"""Places that every node has to see alike, and how a node tells that it does. Imports no ray.

That a folder is there proves little: the mount point of a filesystem that is not mounted is an
empty folder. So what a node is asked for is a folder, and some of what another node sees in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from crane_ray.config import Config
from crane_ray.runtime.job_paths import is_there, local_paths
from crane_ray.version import __version__

ON_EVERY_NODE: Mapping[str, tuple[str, ...]] = {
    "demo": ("work",),
    "patch": ("slides.source", "contours", "work"),
    "extract": ("work", "store", "clam"),
    "verify": ("store",),
    "export clam": ("store", "to"),
    "import features": ("source", "store"),
    "import coords": ("slides.source", "source", "work"),
    "train": ("bags.features", "bags.sources", "results"),
    "tune": ("bags.features", "bags.sources", "results"),
    "evaluate": ("bags.features", "bags.sources", "model"),
    "assess": ("slides.source", "work", "features", "model", "grade_model"),
    "heatmap": ("work", "features", "model", "out"),
}
"""By verb: keys of what tasks read and write, wherever they run. Tables are read by the driver
alone, and weights that a node lacks come to it through the object store; doctor looks itself."""
NUM_NAMES = 8


@dataclass(frozen=True)
class Landmark:
    """A path of a config, as the driver's node sees it."""

    key: str
    """Where it stands in the config."""
    path: str
    """The path itself."""
    place: str
    """The path, or the folder above it that is there, where it will be made."""
    names: tuple[str, ...] = ()
    """Some of what is in the place."""


def landmarks_of(verb: str, job: Config) -> tuple[Landmark, ...]:
    """What each node has to see for a verb with such a config, as the driver's node sees it now.

    URIs are none of it.
    """
    keys, tree = ON_EVERY_NODE[verb], job.model_dump(mode="json")
    found = [_landmark(key, path) for one in keys for key, path in local_paths(tree, one)]
    return tuple(one for one in found if one is not None)


@dataclass(frozen=True)
class View:
    """What a node tells."""

    version: str
    """Of its crane-ray."""
    unseen: tuple[str, ...]
    """A line for each place that it does not see as the driver's node does."""


def view(landmarks: Sequence[Landmark]) -> View:
    """Of the node that this runs on."""
    return View(__version__, tuple(unseen(landmarks)))


def not_seen(node: str, lines: Sequence[str]) -> str:
    """What a user is told of a node that does not see what the lines name."""
    several = f"{len(lines)} paths" if len(lines) > 1 else "a path"
    return "\n".join(
        [
            f"node {node} does not see {several} of the config:",
            *(f"  {line}" for line in lines),
            "Name places that every node sees under the same path: a shared filesystem, or a "
            "bucket's URI (s3://, gs://).",
        ]
    )


def unseen(landmarks: Sequence[Landmark]) -> list[str]:
    """A line for each that this node does not see as the driver's does."""
    lines = []
    for one in landmarks:
        if not is_there(one.place):
            lines.append(f"{one.key} {one.path}: {one.place} is not there")
        elif one.names and not any(is_there(f"{one.place}/{name}") for name in one.names):
            lines.append(
                f"{one.key} {one.path}: {one.place} is there, but holds other things (no "
                f"{one.names[0]}): the shared filesystem is not mounted"
            )
    return lines


def _landmark(key: str, path: str) -> Landmark | None:
    place = Path(path)
    while not is_there(str(place)) and place != place.parent:
        place = place.parent
    if place == Path("/") or (key == "slides.source" and place.is_file()):
        return None  # nothing to compare; a table of slides, which the driver reads
    try:
        # Hidden names come and go: what is about to be renamed, what NFS keeps for others.
        seen = (it.name for it in place.iterdir() if not it.name.startswith("."))
        names = tuple(islice(seen, NUM_NAMES))
    except OSError:  # a file, or a folder that may not be listed
        names = ()
    return Landmark(key, path, str(place), names)
