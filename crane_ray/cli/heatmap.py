"""``crane-ray heatmap``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.heatmap_jobs import HeatmapJob

EPILOG = """\b
Examples:
  crane-ray heatmap --work work --model results/cardiac-mtl_s1
  crane-ray heatmap --work work --model results/cardiac-mtl_s1 --held-out --format jpg,tif
  crane-ray heatmap --work work --model s_0_checkpoint.pt --slide A-17 --overlap 0.5 --blur
  crane-ray heatmap --work work --model s_0_checkpoint.pt --features CLAM_FEATURES --clam-scores
  crane-ray heatmap --config heatmap.yaml --set maps.samples=[]

\b
Results in WORK/heatmaps/RUN, for each head (of CLAM-MB each class): pictures/SLIDE/HEAD.jpg (png;
tif for QuPath and OpenSlide), regions/ (GeoJSON of high attention), patches/ (the most and least
attended ones), scores/SLIDE.parquet (raw scores and percentiles of all heads), clam/ (CLAM's h5);
index.parquet has a row a slide, with reasons. The same command again makes just what is missing
or would come out otherwise; --overwrite makes all anew.

\b
A map shows what the diagnosis was made of: the patches and features that were trained on. With
--overlap finer ones are extracted, and ranked among the coarse with --scale reference.
crane-ray import heatmap turns CLAM's heatmap YAML into a config."""


@click.command(name="heatmap", epilog=EPILOG)
@config_options(HeatmapJob)
def command(**options: Any) -> int:
    """Show what trained networks look at on slides.

    Attention maps of every head, drawn over the slides from stored features and coordinates; of
    several folds the mean of their attention.
    """
    job = load_job(HeatmapJob, options)
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.heatmaps import run_heatmaps

    summary = run_heatmaps(job, make_reporter())
    print_summary(summary)
    return int(len(summary.failures) > job.max_failures)
