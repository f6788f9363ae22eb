"""``crane-ray export clam``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.exchange_jobs import ExportJob

EPILOG = """\b
Examples:
  crane-ray export clam --store work/features/uni_v1 --to clam
  crane-ray export clam --store work/features/uni_v1 --to clam --formats pt
  crane-ray export clam --store work/features/uni_v1 --to clam --slides TCGA-1,TCGA-2

\b
Results in TO: h5_files/{slide_id}.h5 (features float32, coords int32) and pt_files/{slide_id}.pt
(a bare float32 tensor), as CLAM's and CRANE's training reads them. The same command again writes
just what is missing or made from other features."""


@click.group(name="export", epilog=EPILOG)
def command() -> None:
    """Write a feature store in another tool's format."""


@command.command(name="clam", epilog=EPILOG)
@config_options(ExportJob)
def clam(**options: Any) -> int:
    """Write a feature store as CLAM's h5_files and pt_files.

    Every slide is read back against its checksums first. Features of a store that holds float16
    are widened to float32, which changes none of them.
    """
    job = load_job(ExportJob, options)
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.exchange import run_export

    summary = run_export(job, make_reporter())
    print_summary(summary)
    return int(len(summary.failures) > job.max_failures)
