"""``crane-ray jobs``: what was submitted to a cluster."""

import time
from typing import TYPE_CHECKING

import click

from crane_ray.cli.options import dashboard_option, require_dashboard

if TYPE_CHECKING:
    from crane_ray.runtime.submitted import JobRow

EPILOG = """\b
Examples:
  crane-ray jobs list --address http://head:8265
  crane-ray jobs logs extract-0131-1725-3f9c --follow --address http://head:8265
  crane-ray jobs stop extract-0131-1725-3f9c --address http://head:8265"""

COLOURS = {"running": "cyan", "succeeded": "green", "failed": "red", "stopped": "yellow"}


@click.group(name="jobs", epilog=EPILOG)
def command() -> None:
    """List, show and stop the jobs of a Ray cluster.

    Jobs are started by crane-ray submit. A cluster remembers them as long as its head node lives.
    """


@command.command(name="list")
@dashboard_option
def list_(dashboard: str | None) -> int:
    """All jobs: verb, status, times, exit status, the config's fingerprint and the cohort.

    Jobs with one fingerprint do the same with the same data.
    """
    address = require_dashboard("jobs list", dashboard)
    from crane_ray.cli.console import console
    from crane_ray.runtime.submitted import list_jobs

    rows = list_jobs(address)
    if not rows:
        console.print(f"no jobs on {address}; crane-ray submit VERB starts one", markup=False)
        return 0
    _print(rows)
    return 0


@command.command(name="logs")
@click.argument("job_id", metavar="JOB")
@click.option("--follow", is_flag=True, help="Stay until the job ends; its exit status comes back.")
@dashboard_option
def logs(job_id: str, follow: bool, dashboard: str | None) -> int:
    """The log of a job."""
    address = require_dashboard("jobs logs", dashboard)
    from crane_ray.cli.console import console
    from crane_ray.runtime.submitted import show_log

    return show_log(address, job_id, lambda text: console.print(text, markup=False), follow=follow)


@command.command(name="stop")
@click.argument("job_id", metavar="JOB")
@dashboard_option
def stop(job_id: str, dashboard: str | None) -> int:
    """Stop a job; what it has committed stays."""
    address = require_dashboard("jobs stop", dashboard)
    from crane_ray.cli.console import console
    from crane_ray.runtime.submitted import stop_job

    return stop_job(address, job_id, lambda text: console.print(text, markup=False))


def _print(rows: list["JobRow"]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from crane_ray.cli.console import clock, console

    table = Table()
    for name in ("job", "verb", "status", "started", "duration", "exit", "config"):
        right = name in {"duration", "exit"}
        table.add_column(name, no_wrap=True, justify="right" if right else "left")
    table.add_column("cohort", overflow="fold")
    for row in rows:
        started = row.started and time.strftime("%Y-%m-%d %H:%M", time.localtime(row.started))
        colour = COLOURS.get(row.status, "default")
        table.add_row(
            escape(row.job_id),
            escape(row.verb or "-"),
            f"[{colour}]{row.status}[/]",
            started or "-",
            "-" if row.seconds is None else clock(row.seconds),
            "-" if row.exit_status is None else str(row.exit_status),
            row.config or "-",
            escape("\n".join(f"{name} {path}" for name, path in row.cohort.items()) or "-"),
        )
    console.print(table)
