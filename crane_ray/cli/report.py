"""``crane-ray report``."""

import click
from rich.markup import escape

EPILOG = """\b
Examples:
  crane-ray report results/cardiac-mtl_s1
  crane-ray report eval_results/EVAL_cardiac-mtl_s1_test --out report.html
  crane-ray report results/clam_s1 --work work --maps work/heatmaps/clam_s1

\b
Training and evaluation write report.html by themselves; this makes it anew from their files, also
of runs that were made before."""


@click.command(name="report", epilog=EPILOG)
@click.argument("run", metavar="RUN")
@click.option(
    "--out", metavar="FILE", help="Where to write the page; RUN/report.html where not given."
)
@click.option(
    "--work",
    metavar="WORK",
    help="Workspace that says where slides are, for maps of the errors; that of the run's features "
    "where not given. Slides of object storage are fetched only if it is given.",
)
@click.option(
    "--maps",
    metavar="FOLDER",
    help="Maps that crane-ray heatmap made (WORK/heatmaps/NAME): their attention is shown in place "
    "of that of the network that erred.",
)
def command(run: str, out: str | None, work: str | None, maps: str | None) -> int:
    """Make the page of a training or an evaluation anew.

    RUN is the folder of a run (RESULTS/EXP_CODE_sSEED) or of an evaluation
    (eval_results/EVAL_CODE).
    """
    from crane_ray import storage
    from crane_ray.cli.console import console
    from crane_ray.report.writing import write_report

    given = {"out": out, "work": work, "maps": maps}
    paths = {name: storage.absolute(path) for name, path in given.items() if path is not None}
    path = write_report(storage.absolute(run), **paths)
    console.print(f"report: {escape(path)}")
    return 0
