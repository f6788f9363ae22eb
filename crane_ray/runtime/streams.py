"""Rows through Ray Data, one a task: results come back one by one, as soon as each is there."""

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

WAVE_ROWS = 5_000
"""Rows of one dataset: bounds what the driver holds, about 5 kB a row, however long the job."""
WAVE_ROWS_AN_ACTOR = 200
"""A large pool gets longer waves, since it starts anew with each."""

TASK_RETRIES = 2
"""Times that a row is tried again after its worker died under it (Ray's default is for ever)."""

Row = dict[str, Any]


@contextmanager
def _retries_allowed() -> Iterator[None]:
    """Lets retry limits through.

    Ray 2.60 has no other way to bound them than arguments that it deprecates, without giving
    the limits a name of their own; hence the upper bound on Ray in pyproject.toml.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
        yield


def stream_tasks(
    rows: Iterable[Row],
    task: Callable[..., pa.Table],
    *,
    kwargs: dict[str, Any],
    num_cpus: float = 1,
) -> Generator[Row, None, None]:
    """The rows that ``task(table, **kwargs)`` makes of each row, in order of completion.

    A row whose worker dies more than `TASK_RETRIES` times yields nothing; the caller knows
    which rows it sent.
    """
    for wave in _waves(rows):
        with _retries_allowed():
            dataset = wave.map_batches(
                task,
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs=kwargs,
                num_cpus=num_cpus,
                max_retries=TASK_RETRIES,
            )
        yield from _results(dataset)


def stream_actors(
    rows: Iterable[Row],
    actor: type,
    *,
    kwargs: dict[str, Any],
    count: int,
    num_cpus: float,
    num_gpus: float,
    memory: int | None = None,
) -> Generator[Row, None, None]:
    """The rows that a pool of ``actor(**kwargs)`` makes of each row, in order of completion.

    A dead actor is replaced and its row tried again, `TASK_RETRIES` times at most.
    """
    for wave in _waves(rows, max(WAVE_ROWS, WAVE_ROWS_AN_ACTOR * count)):
        with _retries_allowed():
            dataset = wave.map_batches(
                actor,
                batch_size=None,
                batch_format="pyarrow",
                fn_constructor_kwargs=kwargs,
                compute=ActorPoolStrategy(size=count, max_tasks_in_flight_per_actor=2),
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                memory=memory,
                max_restarts=-1,
                max_task_retries=TASK_RETRIES,
            )
        yield from _results(dataset)


def _waves(rows: Iterable[Row], wave_rows: int = WAVE_ROWS) -> Iterator[Dataset]:
    remaining = iter(rows)
    while wave := list(islice(remaining, wave_rows)):
        yield ray.data.from_items(wave, override_num_blocks=len(wave))


def _results(dataset: Dataset) -> Iterator[Row]:
    for table in dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        yield from table.to_pylist()
