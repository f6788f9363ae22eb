"""``crane-ray plan``."""

from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.preflight_jobs import PlanJob

EPILOG = """\b
Examples:
  crane-ray doctor --address head:6379 --rates-out rates.json
  crane-ray plan --work work --rates rates.json
  crane-ray plan --work work --rates rates.json --gpus 8 --cpus 128
  crane-ray plan --slides slides.csv --tissue-share 0.3 --rates rates.json"""


@click.command(name="plan", epilog=EPILOG)
@config_options(PlanJob)
def command(**options: Any) -> int:
    """Say what the extraction of a cohort will cost.

    GPU-hours, wall time, storage, and how many CPUs a GPU needs so that decoding keeps up; from
    the patches of a cohort and measured rates. Nothing is run.
    """
    job = load_job(PlanJob, options)
    from crane_ray.cli.console import console
    from crane_ray.runtime.planning import run_plan

    estimate = run_plan(job)
    table = Table(title="crane-ray plan", title_justify="left", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    for name, value in estimate.rows:
        table.add_row(name, value)
    console.print(table)
    console.print("It is assumed:")
    for words in estimate.assumptions:
        console.print(f"- {escape(words)}")
    return 0
