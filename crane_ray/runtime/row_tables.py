"""A table with a row a slide: tasks of a cluster fill it, and it is written now and then."""

from collections.abc import Callable, Collection, Generator, Iterable
from contextlib import closing
from typing import Any, Generic, Protocol, TypeVar

import pyarrow as pa

from crane_ray.errors import StorageError
from crane_ray.runtime.reporting import Reporter, Summary, Throttle
from crane_ray.runtime.streams import Row, stream_tasks

FATAL = "fatal"
"""Column of a task's result: why no slide can be written any more; "" otherwise."""


class SlideOutcome(Protocol):
    """What a table's rows tell of a slide."""

    @property
    def slide_id(self) -> str:
        """The slide."""
        ...

    @property
    def status(self) -> Any:
        """``ok``, ``no_tissue`` or ``failed``."""
        ...

    @property
    def reason(self) -> str:
        """Why it is not ok."""
        ...

    @property
    def num_patches(self) -> int | None:
        """Patches of it."""
        ...


R = TypeVar("R", bound=SlideOutcome)


class RowTable(Generic[R]):
    """A table with a row a slide that tasks of a cluster fill.

    Args:
        rows: by slide_id, those of earlier runs; taken rows are put among them.
        write: puts the table on disk, whole.
        reporter: sees each row that is taken.
        stream: sends tasks through a cluster, as `stream_tasks` does.
    """

    def __init__(
        self,
        rows: dict[str, R],
        write: Callable[[Iterable[R]], None],
        reporter: Reporter,
        *,
        stream: Callable[..., Generator[Row, None, None]] = stream_tasks,
    ) -> None:
        self.rows = rows
        self.taken: set[str] = set()
        """Slides that came back in this run."""
        self.unchanged: set[str] = set()
        """Of those, the ones that were found to be done already."""
        self._reporter = reporter
        self._stream = stream
        self._save = Throttle(lambda: write(rows.values()))

    def fill(
        self,
        tasks: Iterable[Row],
        task: Callable[..., pa.Table],
        *,
        kwargs: dict[str, Any],
        row_of: Callable[[Row], R | None],
        dead: Callable[[str], R],
        slide_ids: Collection[str],
    ) -> None:
        """Sends every slide through the cluster, which is connected, and takes its row.

        Args:
            tasks: what ``task`` gets, a slide each.
            task: makes one result of each, with `FATAL` among its columns.
            kwargs: of the task.
            row_of: a result as a row; None of a slide that is done already.
            dead: the row of a slide whose worker died each time.
            slide_ids: the slides of the tasks.

        Raises:
            StorageError: no slide can be written any more.
        """
        with closing(self._stream(tasks, task, kwargs=kwargs)) as results:
            for result in results:
                if result[FATAL]:
                    raise StorageError(result[FATAL])
                row = row_of(result)
                if row is not None:
                    self._take(row)
                    continue
                self.taken.add(result["slide_id"])
                self.unchanged.add(result["slide_id"])
                self._reporter.advance(slides=1)
        for slide_id in sorted(set(slide_ids) - self.taken):
            self._take(dead(slide_id))

    def close(self) -> None:
        """Writes what is there, however the run ended."""
        self._reporter.end()
        self._save(force=True)

    def summary(
        self, verb: str, where: str, slide_ids: Iterable[str], todo: Collection[str]
    ) -> Summary:
        """What came of slides so far, those of earlier runs included.

        Args:
            verb: of the run.
            where: its workspace or folder.
            slide_ids: all that were asked for.
            todo: those that were sent; the ones of them that did not come back are not counted.
        """
        summary = Summary(verb, where)
        for slide_id in slide_ids:
            row = self.rows.get(slide_id)
            if row is None or (slide_id in todo and slide_id not in self.taken):
                continue
            if row.status != "ok":
                summary.leave_out(slide_id, row.reason, row.status)
            elif slide_id in self.taken - self.unchanged:
                summary.done += 1
                summary.patches += row.num_patches or 0
            else:
                summary.skipped += 1
        return summary

    def _take(self, row: R) -> None:
        self.rows[row.slide_id] = row
        self.taken.add(row.slide_id)
        failed = row.status == "failed"
        self._reporter.advance(slides=1, patches=row.num_patches or 0, failures=int(failed))
        if failed:
            self._reporter.failure(row.slide_id, row.reason)
        self._save()
