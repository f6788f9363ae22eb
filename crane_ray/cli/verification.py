"""``crane-ray verify``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.jobs import VerifyJob

EPILOG = """\b
Examples:
  crane-ray verify work/features/resnet50_trunc
  crane-ray verify work/features/resnet50_trunc --repair && crane-ray extract --work work"""


@click.command(name="verify", epilog=EPILOG)
@click.argument("folder", metavar="[STORE]", required=False)
@config_options(VerifyJob)
def command(folder: str | None, **options: Any) -> int:
    """Read a feature STORE back against its checksums.

    The exit status is 0 where every committed slide is there, byte for byte.
    """
    job = load_job(VerifyJob, {**options, "store": folder or options["store"]})
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.verification import run_verification

    summary = run_verification(job, make_reporter())
    print_summary(summary)
    return int(bool(summary.failures))
