"""``crane-ray view``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.viewing_jobs import ViewJob

EPILOG = """\b
Examples:
  crane-ray view work
  crane-ray view work --port 9000 --assessment assessment/assessment.parquet
  crane-ray view work --host 0.0.0.0            others may look, with the token that is printed
  ssh -L 8501:127.0.0.1:8501 HOST               ... or from afar, without opening a port

\b
Shows the slides of the workspace with their predictions and the maps of crane-ray heatmap. Nothing
is written. It listens on this machine alone (127.0.0.1) unless --host says otherwise; on a machine
that others use, too, --token random keeps them out. Ctrl-C stops it."""


@click.command(name="view", epilog=EPILOG)
@click.argument("folder", metavar="[WORK]", required=False)
@config_options(ViewJob)
def command(folder: str | None, **options: Any) -> int:
    """Show slides and their attention maps in a browser."""
    if folder is not None:
        options["work"] = folder
    job = load_job(ViewJob, options)
    from rich.markup import escape

    from crane_ray.cli.console import console
    from crane_ray.runtime.serving import serving, wait_for_stop

    console.print("starting Ray Serve ...")
    try:
        with serving(job) as address:
            console.print(f"viewer: {escape(address.url)}")
            if address.token:
                console.print("whoever has this address sees the slides; it is shown once")
            console.print("Ctrl-C stops it")
            wait_for_stop()
    except KeyboardInterrupt:
        console.print("viewer stopped")
    return 0
