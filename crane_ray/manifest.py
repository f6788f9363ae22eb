"""RunManifest: what ran, on what, with which outcome; one JSON file a run."""

import platform
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from crane_ray import storage
from crane_ray.config import Config
from crane_ray.logs import in_run
from crane_ray.version import __version__

PACKAGES = (
    "ray", "torch", "torchvision", "openslide-python", "openslide-bin", "opencv-python-headless",
    "numpy", "zarr", "h5py", "pyarrow",
)  # fmt: skip


class LeftOut(BaseModel):
    """A slide that is not in the result, and why."""

    model_config = ConfigDict(frozen=True)

    slide_id: str
    status: str
    reason: str


class RunManifest(BaseModel):
    """The record of one run, written beside its results under ``manifests/``."""

    model_config = ConfigDict(frozen=True)

    format: int = 1
    run_id: str
    verb: str
    started: str
    finished: str | None = None
    outcome: str = "running"
    error: str = ""
    config: dict[str, Any]
    config_fingerprint: str
    versions: dict[str, str]
    counts: dict[str, int] = {}
    left_out: list[LeftOut] = []
    facts: dict[str, Any] = {}
    seconds: float | None = None

    @classmethod
    def start(cls, verb: str, config: Config) -> Self:
        """The manifest of a run that begins now."""
        now = datetime.now(UTC)
        return cls(
            run_id=f"{now:%Y%m%dT%H%M%S}-{verb}-{secrets.token_hex(3)}",
            verb=verb,
            started=now.isoformat(timespec="seconds"),
            config=config.model_dump(mode="json"),
            config_fingerprint=config.fingerprint(),
            versions=_versions(),
        )

    def finish(self, outcome: str, **updates: Any) -> Self:
        """The same run, ended now: ``done``, ``failures``, ``stopped`` or ``error``."""
        now = datetime.now(UTC)
        seconds = (now - datetime.fromisoformat(self.started)).total_seconds()
        ended = {"finished": now.isoformat(timespec="seconds"), "seconds": seconds}
        return self.model_copy(update={**ended, "outcome": outcome, **updates})

    def told(self) -> AbstractContextManager[None]:
        """Log records say which run they are of while the block runs, its workers' too."""
        return in_run(run_id=self.run_id, verb=self.verb)

    def write(self, folder: str) -> str:
        """Writes ``{folder}/{run_id}.json`` in one piece and returns its path."""
        path = storage.join(folder, f"{self.run_id}.json")
        self.save(path)
        return path

    def save(self, path: str) -> None:
        """Writes it in one piece under a name of the caller's."""
        storage.put_bytes(path, self.model_dump_json(indent=2).encode(), durable=True)


@contextmanager
def concluded(conclude: Callable[[str, str], None]) -> Iterator[None]:
    """Calls ``conclude(outcome, error)`` however a run ends: ``done``, ``stopped``, ``error``."""
    outcome, reason = "error", ""
    try:
        yield
        outcome = "done"
    except KeyboardInterrupt:
        outcome = "stopped"
        raise
    except Exception as error:
        reason = str(error)
        raise
    finally:
        conclude(outcome, reason)


def _versions() -> dict[str, str]:
    found = {"crane-ray": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
