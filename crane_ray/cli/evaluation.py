"""``crane-ray evaluate``."""

from typing import Any

import click
from rich.markup import escape

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.evaluation_jobs import EvaluateJob

EPILOG = """\b
Examples:
  crane-ray evaluate --model results/cardiac-mtl_s1 --labels labels.csv \\
      --features work/features/uni_v1
  crane-ray evaluate --model results/cardiac-mtl_s1 --split external --ensemble \\
      --labels other.csv --features other/features/uni_v1 --by site
  crane-ray evaluate --model s_0_checkpoint.pt --task task_2_tumor_subtyping ...

\b
Results in RESULTS/EVAL_CODE: predictions.parquet, metrics.csv, metrics.json, report.html, and
fold_0.csv, ... as CLAM and CRANE have them. Intervals are 95 % of a bootstrap of patients."""


@click.command(name="evaluate", epilog=EPILOG)
@config_options(EvaluateJob)
def command(**options: Any) -> int:
    """Judge trained networks on a part of their cohort, or on another one."""
    job = load_job(EvaluateJob, options)
    from crane_ray.cli.training_console import print_findings, print_left_out, print_metrics
    from crane_ray.runtime.evaluation import run_evaluation

    summary = run_evaluation(job)
    print_findings(summary.findings)
    print_left_out(summary.left_out)
    print_metrics(summary.rows, f"{summary.split} part")
    from crane_ray.cli.console import console

    for note in summary.notes:
        console.print(escape(note))
    console.print(f"results: {escape(summary.folder)}")
    if summary.report:
        console.print(f"report: {escape(summary.report)}")
    return int(bool(summary.left_out))
