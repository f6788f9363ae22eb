"""Rows through Ray Data, one a task: results come back one by one, as soon as each is there."""

import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from crane_ray.runtime.worker_metrics import measured_task

WAVE_ROWS = 5_000
"""Rows of one dataset: bounds what the driver holds, about 5 kB a row, however long the job."""
WAVE_ROWS_AN_ACTOR = 200
"""A large pool gets longer waves, since it starts anew with each."""

TASK_RETRIES = 2
"""Times that a row is tried again after its worker died under it (Ray's default is for ever)."""

Row = dict[str, Any]


class ActorSize(Protocol):
    """What a pool of actors needs (`crane_ray.runtime.pools.Pool` has it)."""

    @property
    def count(self) -> int:
        """Actors."""
        ...

    @property
    def cpus(self) -> float:
        """CPUs of one."""
        ...

    @property
    def gpus(self) -> float:
        """GPUs of one."""
        ...

    @property
    def memory(self) -> int | None:
        """Bytes that Ray reserves for one."""
        ...


class ActorStream(Protocol):
    """Sends blocks through a pool of actors: `stream_actors`, or a simulated cluster's."""

    def __call__(
        self,
        blocks: Iterable[pa.Table],
        actor: type,
        *,
        kwargs: dict[str, Any],
        size: ActorSize,
        calls: int,
        retries: int,
    ) -> Generator[Row, None, None]:
        """See `stream_actors`."""
        ...


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
                measured_task(task),
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs=kwargs,
                num_cpus=num_cpus,
                max_retries=TASK_RETRIES,
            )
        yield from _results(dataset)


def stream_actors(
    blocks: Iterable[pa.Table],
    actor: type,
    *,
    kwargs: dict[str, Any],
    size: ActorSize,
    calls: int = 1,
    retries: int = TASK_RETRIES,
) -> Generator[Row, None, None]:
    """The rows that a pool of ``actor(**kwargs)`` makes of each block, in order of completion.

    Args:
        blocks: one task each.
        actor: a class whose instances turn a block into a table of results.
        kwargs: what instances are made with.
        size: how many there are at most, and what each one gets; never more than blocks.
        calls: calls that one actor has at once, each in a thread of its own; the ends of blocks
            then leave no gap.
        retries: times that a block is tried again after its actor died, which is replaced. What
            dies more often yields nothing; the caller knows what it sent. All calls that an actor
            has at once die with it.
    """
    remaining = iter(blocks)
    while wave := list(islice(remaining, wave_blocks(size.count))):
        with _retries_allowed():
            # Not from_arrow, which asks each block for its size by a task of its own.
            dataset = ray.data.from_blocks(wave).map_batches(
                actor,
                batch_size=None,
                batch_format="pyarrow",
                fn_constructor_kwargs=kwargs,
                compute=ActorPoolStrategy(
                    size=min(size.count, len(wave)),
                    max_tasks_in_flight_per_actor=calls,
                    max_concurrent_calls_per_actor=calls,
                    enable_true_multi_threading=True,
                ),
                num_cpus=size.cpus,
                num_gpus=size.gpus,
                memory=size.memory,
                max_restarts=-1,
                max_task_retries=retries,
            )
        del wave  # 9 kB a block, of which Ray has its own copy
        yield from _results(dataset)


def wave_blocks(num_actors: int) -> int:
    """Blocks of one dataset for a pool of so many actors."""
    return max(WAVE_ROWS, WAVE_ROWS_AN_ACTOR * num_actors)


def _waves(rows: Iterable[Row]) -> Iterator[Dataset]:
    remaining = iter(rows)
    while wave := list(islice(remaining, WAVE_ROWS)):
        yield ray.data.from_items(wave, override_num_blocks=len(wave))


def _results(dataset: Dataset) -> Iterator[Row]:
    for table in dataset.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow"):
        yield from table.to_pylist()
