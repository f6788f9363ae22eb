"""``crane-ray import features`` and ``crane-ray import coords``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.exchange_jobs import ImportCoordsJob, ImportFeaturesJob

FEATURES = """\b
Examples:
  crane-ray import features --from clam --store work/features/uni_v1 --encoder uni_v1
      --patch-size 256 --patch-level 0
  crane-ray import features --from trident/20x_256px_0px_overlap/features_uni_v1
      --store work/features/uni_v1 --encoder uni_v1 --mpp 0.5

\b
A store like any other: crane-ray verify checks it, training reads it. What the files do not say
is recorded as unknown. Slides without coordinates get (-1, -1) for each patch."""

COORDS = """\b
Examples:
  crane-ray import coords --from clam_results --slides /data/slides --work work
  crane-ray import coords --from trident/20x_256px_0px_overlap --slides cohort.csv --work work
      --mpp 0.5
  crane-ray extract --work work --encoder uni_v1

\b
Files belong to the slide of their name (with or without its ending, and TRIDENT's _patches).
Results in WORK: patches/{slide_id}.h5 and slides.parquet, as crane-ray patch writes them."""

BOTH = """\b
Examples:
  crane-ray import features --from clam --store work/features/uni_v1 --encoder uni_v1
      --patch-size 256 --mpp 0.5
  crane-ray import coords --from clam_results --slides /data/slides --work work"""


@click.group(name="import", epilog=BOTH)
def command() -> None:
    """Take features or coordinates that CLAM or TRIDENT made."""


@command.command(name="features", epilog=FEATURES)
@config_options(ImportFeaturesJob)
def features(**options: Any) -> int:
    """Take features that CLAM or TRIDENT made into a feature store.

    Reads CLAM's h5 and pt files and TRIDENT's h5 files. A slide that has both must have the same
    in both; a file that cannot be used costs its slide alone.
    """
    job = load_job(ImportFeaturesJob, options)
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.feature_import import run_import_features

    summary = run_import_features(job, make_reporter())
    print_summary(summary)
    return int(len(summary.failures) > job.max_failures)


@command.command(name="coords", epilog=COORDS)
@config_options(ImportCoordsJob)
def coords(**options: Any) -> int:
    """Take coordinates that CLAM or TRIDENT made into a workspace, to extract features from.

    CLAM's patches keep their pyramid level. TRIDENT's are read from the level that fits best and
    resampled to their size; its files name a magnification, so --mpp says which resolution they
    have, and each slide's own mpp is held against it.
    """
    job = load_job(ImportCoordsJob, options)
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.coords_import import run_import_coords

    summary = run_import_coords(job, make_reporter())
    print_summary(summary)
    return int(len(summary.failures) > job.max_failures)
