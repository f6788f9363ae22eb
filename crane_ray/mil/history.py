"""The course of a fold's training, epoch by epoch, in a file beside its results."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from crane_ray import storage
from crane_ray.errors import StoreError

FORMAT = 1
NAME = "history.json"


@dataclass(frozen=True)
class Epoch:
    """What an epoch came to."""

    epoch: int
    """Counted from 0."""
    train_loss: float | None
    val_loss: float | None
    """None where there is no val part."""
    val_auc: Mapping[str, float]
    """Of the val part, by task; tasks in which it is undefined are left out."""

    def numbers(self) -> dict[str, Any]:
        """As JSON and a training's state hold it."""
        return {
            "epoch": self.epoch,
            "train_loss": self.train_loss,
            "val_loss": self.val_loss,
            "val_auc": dict(self.val_auc),
        }


def write_history(folder: str, epochs: Iterable[Mapping[str, Any]]) -> None:
    """Writes a fold's epochs in order; of one that was trained twice, the last.

    Args:
        folder: of the fold.
        epochs: see `Epoch.numbers`.

    Raises:
        StorageError: it cannot be written.
    """
    found = {int(numbers["epoch"]): dict(numbers) for numbers in epochs}
    tree = {"format": FORMAT, "epochs": [found[epoch] for epoch in sorted(found)]}
    storage.put_bytes(storage.join(folder, NAME), json.dumps(tree, indent=1).encode())


def read_history(folder: str) -> tuple[Epoch, ...]:
    """A fold's epochs; none where they were not kept.

    Raises:
        StoreError: the file is there and cannot be used.
    """
    path = storage.join(folder, NAME)
    if not storage.exists(path):
        return ()
    try:
        tree = json.loads(storage.read_bytes(path))
        if tree["format"] != FORMAT:
            raise StoreError(
                f"{path}: format {tree['format']}, known is {FORMAT}; update crane-ray"
            )
        return tuple(
            Epoch(
                int(row["epoch"]),
                _finite(row["train_loss"]),
                _finite(row["val_loss"]),
                {str(task): float(auc) for task, auc in row["val_auc"].items()},
            )
            for row in tree["epochs"]
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: no history of a fold: {error}; move it away") from error


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
