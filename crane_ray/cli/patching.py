"""``crane-ray patch``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.jobs import PatchJob

EPILOG = """\b
Examples:
  crane-ray patch --slides /data/slides --work work
  crane-ray patch --slides cohort.csv --work work --preset bwh_biopsy --mpp 0.5
  crane-ray patch --slides '/data/*/*.svs' --work work --patch-level 0 --seg-only
  crane-ray patch --slides /data/slides --work work --contours edited/

\b
Results in WORK: slides.parquet (one row a slide, with reasons), contours/ (GeoJSON for QuPath),
masks/ and stitches/ (pictures), patches/ (CLAM's h5), process_list_autogen.csv (CLAM's table).
Slides that are done are skipped; a slide that fails costs itself alone."""


@click.command(name="patch", epilog=EPILOG)
@config_options(PatchJob)
def command(**options: Any) -> int:
    """Find tissue on slides and place patches on it.

    Patches have a resolution (--mpp, the default) or a pyramid level (--patch-level, as in
    CLAM). Segmentation and coordinates are CLAM's, with its presets.
    """
    job = load_job(PatchJob, options)
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.patching import run_patching

    summary = run_patching(job, make_reporter())
    print_summary(summary)
    return int(len(summary.failures) > job.max_failures)
