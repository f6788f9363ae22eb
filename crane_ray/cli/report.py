"""``crane-ray report``."""

import click
from rich.markup import escape

EPILOG = """\b
Examples:
  crane-ray report results/cardiac-mtl_s1
  crane-ray report eval_results/EVAL_cardiac-mtl_s1_test --out report.html

\b
Training and evaluation write report.html by themselves; this makes it anew from their files, also
of runs that were made before."""


@click.command(name="report", epilog=EPILOG)
@click.argument("run", metavar="RUN")
@click.option(
    "--out", metavar="FILE", help="Where to write the page; RUN/report.html where not given."
)
def command(run: str, out: str | None) -> int:
    """Make the page of a training or an evaluation anew.

    RUN is the folder of a run (RESULTS/EXP_CODE_sSEED) or of an evaluation
    (eval_results/EVAL_CODE).
    """
    from crane_ray import storage
    from crane_ray.cli.console import console
    from crane_ray.report.writing import write_report

    path = write_report(storage.absolute(run), out=None if out is None else storage.absolute(out))
    console.print(f"report: {escape(path)}")
    return 0
