"""``crane-ray import features``, ``crane-ray import coords`` and ``crane-ray import heatmap``."""

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

HEATMAP = """\b
Examples:
  crane-ray import heatmap --from heatmaps/configs/config_template.yaml --work work
  crane-ray heatmap --config heatmap.yaml

\b
Each key that is not taken, or means something else here, is named. CLAM segments and patches
slides anew for its maps; here they are made from the stored patches and features, so that they
show what the network saw."""

ALL = """\b
Examples:
  crane-ray import features --from clam --store work/features/uni_v1 --encoder uni_v1
      --patch-size 256 --mpp 0.5
  crane-ray import coords --from clam_results --slides /data/slides --work work
  crane-ray import heatmap --from heatmaps/configs/config_template.yaml --work work"""


@click.group(name="import", epilog=ALL)
def command() -> None:
    """Take features, coordinates or heatmap configs of CLAM or TRIDENT."""


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


@command.command(name="heatmap", epilog=HEATMAP)
@click.option("--from", "source", required=True, metavar="FILE", help="CLAM's heatmap YAML.")
@click.option("--work", required=True, metavar="FOLDER", help="Workspace with its slides.")
@click.option(
    "--features",
    metavar="FOLDER",
    help="Feature store, or folder with CLAM's h5_files; found in the workspace where not given.",
)
@click.option(
    "--out", default="heatmap.yaml", show_default=True, metavar="FILE", help="Config to write."
)
@click.option("--overwrite", is_flag=True, help="Write in place of a file that is there.")
def heatmap(source: str, work: str, features: str | None, out: str, overwrite: bool) -> None:
    """Turn CLAM's heatmap YAML into a config of crane-ray heatmap."""
    from crane_ray import storage
    from crane_ray.cli.console import console
    from crane_ray.errors import ConfigError
    from crane_ray.runtime.heatmap_import import import_heatmap

    if storage.exists(out) and not overwrite:
        raise ConfigError(f"--out {out}: there is a file already; --overwrite writes in its place")
    absolute = [storage.absolute(path) if path else None for path in (work, features)]
    assert absolute[0] is not None
    imported = import_heatmap(source, absolute[0], features=absolute[1])
    storage.put_bytes(out, imported.yaml.encode())
    console.print("[bold]not taken, or other than in CLAM:[/]")
    for note in imported.notes:
        console.print(f"  {note}", markup=False)
    console.print(f"config: {out}; next: crane-ray heatmap --config {out}", markup=False)
