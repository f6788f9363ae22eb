"""``crane-ray train``."""

from typing import Any

import click

from crane_ray.cli.main import INTERRUPTED
from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.study_jobs import TrainJob

EPILOG = """\b
Examples:
  crane-ray train --task cardiac-mtl --labels labels.csv --splits splits/cardiac-mtl_100 \\
      --features work/features/uni_v1
  crane-ray train --task my_task.yaml --model clam_sb --bag-level case ... --exp-code clam
  crane-ray train ... --workers 4 --address head:6379
  crane-ray train ... --exp-code clam --resume

\b
A task set is a YAML file:
  name: kidney
  tasks:
    - {name: subtype, column: oncotree_code, classes: [CCRCC, PRCC, CHRCC]}

\b
Results in RESULTS/EXP_CODE_sSEED: report.html, predictions.parquet, metrics.csv,
checkpoints (.safetensors, and .pt as CRANE and CLAM have them), summary.csv, TensorBoard events.
crane-ray splits draws the splits; crane-ray evaluate judges a run on other data."""


@click.command(name="train", epilog=EPILOG)
@config_options(TrainJob)
def command(**options: Any) -> int:
    """Train networks on the folds of a cohort.

    The defaults are CRANE's published recipe: one bag a step, Adam, early stopping on the val
    loss. All folds train at once, as far as the cluster goes.
    """
    job = load_job(TrainJob, options)
    from crane_ray.cli.console import console
    from crane_ray.cli.training_console import make_training_reporter, print_training
    from crane_ray.runtime.training import run_training

    try:
        summary = run_training(job, make_training_reporter())
    except KeyboardInterrupt:
        console.print("[yellow]stopped; the same command with --resume goes on.[/]")
        return INTERRUPTED
    print_training(summary)
    return int(bool(summary.failures or summary.left_out))
