"""The one door to files of a workspace: what lies outside of it is refused, links included."""

from pathlib import Path

from crane_ray import storage
from crane_ray.errors import StoreError


class OutsideError(StoreError):
    """A path that leaves the workspace."""


def inside(root: str, path: str) -> str:
    """The path, if it lies within the root after all links are followed.

    Args:
        root: an absolute path or URI.
        path: one below it, which need not exist.

    Raises:
        OutsideError: it leaves the root, by its parts or by a link.
    """
    if storage.is_uri(root):
        below = path.removeprefix(root.rstrip("/") + "/")
        if below == path or {"..", "."} & set(below.split("/")) or "\0" in below:
            raise OutsideError(_message(root))
        return path
    try:
        real = Path(path).resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL, or links in a circle
        raise OutsideError(_message(root)) from error
    if not real.is_relative_to(Path(root).resolve()):
        raise OutsideError(_message(root))
    return path


def _message(root: str) -> str:
    # Without the path: it may be somebody's guess, and says where links lead.
    return (
        f"a file of the workspace {root} leads out of it and is not read; put the file itself in "
        "place of the link"
    )
