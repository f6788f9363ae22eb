"""The report of a run: made anew by a job, or at the end of the run. Imports no ray."""

import logging
from collections.abc import Callable
from typing import Annotated

from pydantic import field_validator

from crane_ray import storage
from crane_ray.config import Config, Flag

log = logging.getLogger(__name__)


class ReportJob(Config):
    """Make the page of a training or an evaluation anew."""

    run: Annotated[str, Flag("--run", metavar="FOLDER")]
    """Folder of a run (RESULTS/EXP_CODE_sSEED) or of an evaluation (eval_results/EVAL_CODE)."""
    out: Annotated[str | None, Flag("--out", metavar="FILE")] = None
    """Where to write the page; RUN/report.html where not given."""
    work: Annotated[str | None, Flag("--work", metavar="FOLDER")] = None
    """Workspace that says where slides are, for maps of the errors; that of the run's features
    where not given. Slides of object storage are fetched only if it is given."""
    maps: Annotated[str | None, Flag("--maps", metavar="FOLDER")] = None
    """Maps that crane-ray heatmap made (WORK/heatmaps/NAME): their attention is shown in place of
    that of the network that erred."""

    @field_validator("run", "out", "work", "maps")
    @classmethod
    def _absolute_paths(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("a path is needed")
        return None if value is None else storage.absolute(value)


def run_report(job: ReportJob) -> str:
    """The path of the page that was written.

    Raises:
        ConfigError, StoreError, StorageError: see `crane_ray.report.writing.write_report`.
    """
    from crane_ray.report.writing import write_report  # loads what draws pictures

    return write_report(job.run, out=job.out, work=job.work, maps=job.maps)


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
