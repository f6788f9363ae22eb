"""The course of a training for TensorBoard, Weights & Biases or MLflow, written by the driver."""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from crane_ray import storage
from crane_ray.errors import ConfigError
from crane_ray.runtime.study_jobs import TrackingConfig

log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Told of each epoch of each fold."""

    def epoch(self, folder: str, message: dict[str, Any]) -> None:
        """Writes an epoch's numbers; ``folder`` is the run's."""
        ...

    def close(self) -> None:
        """Writes what is left."""
        ...


def require_packages(config: TrackingConfig) -> None:
    """Refuses what cannot be tracked, before anything else happens.

    Raises:
        ConfigError: a tracker's package is not installed.
    """
    for package, wanted in (("wandb", config.wandb), ("mlflow", config.mlflow)):
        if wanted and not find_spec(package):
            raise ConfigError(
                f"tracking.{package}: the package {package} is not installed here; pip install "
                f"{package}, or leave tracking.{package} out"
            )


@contextmanager
def tracked(
    config: TrackingConfig, name: str, settings: dict[str, Any], note: Callable[[str], None]
) -> Iterator[list[Tracker]]:
    """The trackers of a training, closed at its end.

    Args:
        config: which.
        name: of the run.
        settings: of the run.
        note: told of a tracker that cannot write what is left: no reason to lose a training.

    Raises:
        ConfigError: one cannot be opened.
    """
    trackers = open_trackers(config, name, settings)
    try:
        yield [*trackers]
    finally:
        for tracker in trackers:
            try:
                tracker.close()
            except Exception as error:  # whatever the package raises when its server is away
                log.warning("a tracker cannot be closed", exc_info=True)
                note(f"warning: {tracker_name(tracker)} may lack the last epochs: {error}")


def tracker_name(tracker: Tracker) -> str:
    """For people."""
    return type(tracker).__name__.strip("_")


def open_trackers(config: TrackingConfig, name: str, settings: dict[str, Any]) -> list[Tracker]:
    """The trackers that a config asks for; TensorBoard where its package is there.

    Raises:
        ConfigError: one's package is not installed, or it cannot begin (no key, no server).
    """
    require_packages(config)
    trackers: list[Tracker] = []
    if config.tensorboard and find_spec("tensorboardX"):
        trackers.append(_TensorBoard())
    for package, kind, where in (
        ("wandb", _WandB, config.wandb),
        ("mlflow", _MLflow, config.mlflow),
    ):
        if where:
            try:
                trackers.append(kind(import_module(package), where, name, settings))
            except Exception as error:  # whatever the package raises
                raise ConfigError(
                    f"tracking.{package} {where}: cannot begin: {error}; mend it, or leave "
                    f"tracking.{package} out"
                ) from error
    return trackers


def _numbers(message: dict[str, Any]) -> dict[str, float]:
    found = {"train/loss": message["train_loss"], "val/loss": message["val_loss"]}
    found |= {f"val/auc_{task}": auc for task, auc in message["val_auc"].items()}
    return {name: value for name, value in found.items() if value is not None}


class _TensorBoard:
    """Events in ``{run}/{fold}/``, as CLAM and CRANE have them."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="crane-events-")
        self._writers: dict[tuple[str, int], Any] = {}

    def epoch(self, folder: str, message: dict[str, Any]) -> None:
        key = (folder, message["fold"])
        if key not in self._writers:
            from tensorboardX import SummaryWriter

            self._writers[key] = SummaryWriter(self._local(*key))
        for name, value in _numbers(message).items():
            self._writers[key].add_scalar(name, value, message["epoch"])

    def close(self) -> None:
        for (folder, fold), writer in self._writers.items():
            writer.close()
            if storage.is_uri(folder):
                for path in Path(self._local(folder, fold)).iterdir():
                    target = storage.join(folder, str(fold), path.name)
                    storage.put_bytes(target, path.read_bytes())
        self._temporary.cleanup()

    def _local(self, folder: str, fold: int) -> str:
        if not storage.is_uri(folder):
            return storage.join(folder, str(fold))
        return storage.join(self._temporary.name, storage.name_of(folder), str(fold))


class _WandB:
    """A Weights & Biases run; metrics carry their fold's number."""

    def __init__(self, package: Any, project: str, name: str, settings: dict[str, Any]) -> None:
        self._run = package.init(project=project, name=name, config=settings)

    def epoch(self, folder: str, message: dict[str, Any]) -> None:
        prefix = f"seed_{message['seed']}/fold_{message['fold']}/"
        numbers = {prefix + key: value for key, value in _numbers(message).items()}
        self._run.log({**numbers, "epoch": message["epoch"]})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """An MLflow run; metrics carry their fold's number."""

    def __init__(self, package: Any, uri: str, name: str, settings: dict[str, Any]) -> None:
        self._mlflow = package
        package.set_tracking_uri(uri)
        package.start_run(run_name=name)
        package.log_dict(settings, "config.json")

    def epoch(self, folder: str, message: dict[str, Any]) -> None:
        prefix = f"seed_{message['seed']}/fold_{message['fold']}/"
        numbers = {prefix + key: value for key, value in _numbers(message).items()}
        self._mlflow.log_metrics(numbers, step=message["epoch"])

    def close(self) -> None:
        self._mlflow.end_run()
