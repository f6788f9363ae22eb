"""The report of a run, written into its folder."""

from crane_ray import storage
from crane_ray.report.page import report_page
from crane_ray.report.reading import read_run

NAME = "report.html"


def write_report(run: str, *, out: str | None = None) -> str:
    """Makes the page of a run from its files; the path of what was written.

    Args:
        run: folder of a training or of an evaluation.
        out: where to write; report.html in the run's folder where not given.

    Raises:
        ConfigError: the folder holds no run.
        StoreError: one of its files cannot be read.
        StorageError: the page cannot be written.
    """
    results = read_run(run)
    page = report_page(results)
    path = out or storage.join(run, NAME)
    storage.put_bytes(path, page.encode())
    return path
