"""What a worker's task says of a slide: in its row for the driver, and in its log."""

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from crane_ray.errors import StorageError
from crane_ray.logs import about
from crane_ray.runtime.row_tables import FATAL

log = logging.getLogger(__name__)


def slide_result(blank: Any, make: Callable[[], Any]) -> dict[str, Any]:
    """A slide's row as a task returns it; what is logged meanwhile carries the slide's id.

    Args:
        blank: the row (a dataclass, see `SlideOutcome`) of a slide of which there is no other.
        make: makes the row; None where the slide is done already.
    """
    row, made, fatal = blank, None, ""
    with about(slide_id=blank.slide_id):
        try:
            made = make()
            row = made or blank
        except StorageError as error:
            fatal = str(error)
            log.error("ends the run: %s", error)
        else:
            log_outcome("done before" if made is None else row.status, row.reason, row.num_patches)
    return {**asdict(row), "skipped": made is None and not fatal, FATAL: fatal}


def log_outcome(status: str, reason: str = "", patches: int | None = None) -> None:
    """A record of what came of the slide that the records are about."""
    level = logging.WARNING if status == "failed" else logging.INFO
    more = {"status": status, "reason": reason, "patches": patches}
    log.log(level, "%s", f"{status}: {reason}" if reason else status, extra=more)
