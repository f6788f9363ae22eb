"""The report at the end of a run; one that cannot be written costs no results. Imports no ray."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


def try_report(run: str, note: Callable[[str], None]) -> str:
    """The path of the run's report; "" where it cannot be made, and the reason is told.

    Args:
        run: the folder, with all of its results.
        note: told of what went wrong.
    """
    try:
        # Here, so that a driver loads what draws pictures only once its work is done.
        from crane_ray.report.writing import write_report

        return write_report(run)
    except Exception as error:  # whatever it is: the run's results are there, and count more
        log.warning("no report of %s", run, exc_info=True)
        note(f"warning: no report of {run}: {error}; crane-ray report {run} tries again")
        return ""
