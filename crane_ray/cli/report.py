"""``crane-ray report``."""

from typing import Any

import click
from rich.markup import escape

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.reports import ReportJob, run_report

EPILOG = """\b
Examples:
  crane-ray report results/cardiac-mtl_s1
  crane-ray report eval_results/EVAL_cardiac-mtl_s1_test --out report.html
  crane-ray report results/clam_s1 --work work --maps work/heatmaps/clam_s1

\b
Training and evaluation write report.html by themselves; this makes it anew from their files, also
of runs that were made before."""


@click.command(name="report", epilog=EPILOG)
@click.argument("folder", metavar="[RUN]", required=False)
@config_options(ReportJob)
def command(folder: str | None, **options: Any) -> int:
    """Make the page of a training or an evaluation anew.

    RUN is the folder of a run (RESULTS/EXP_CODE_sSEED) or of an evaluation
    (eval_results/EVAL_CODE).
    """
    if folder is not None:
        options["run"] = folder
    job = load_job(ReportJob, options)
    from crane_ray.cli.console import console

    console.print(f"report: {escape(run_report(job))}")
    return 0
