"""``crane-ray extract``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.jobs import ExtractJob

EPILOG = """\b
Examples:
  crane-ray extract --work work
  crane-ray extract --work work --encoder resnet50_trunc --weights resnet50.pth
  crane-ray extract --work work --encoder uni_v1 --encoder conch_v1
  crane-ray extract --work s3://bucket/work --address head:6379 --batch-size 512
  crane-ray extract --work work --input-size patch --precision fp32 --dtype float32

\b
Results in WORK/features/ENCODER: a Zarr group a slide, index.parquet, ledger/, store.json.
The same command again extracts just what is missing. crane-ray verify checks every byte;
crane-ray encoders lists the encoders. The progress line says what limits the run."""


@click.command(name="extract", epilog=EPILOG)
@config_options(ExtractJob)
def command(**options: Any) -> int:
    """Turn the patches of a workspace into features.

    Encoder actors (one a GPU, or sized to the CPUs) read, encode and write shards of patches; a
    store holds features of one recipe only.
    """
    job = load_job(ExtractJob, options)
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.extraction import run_extraction

    summary = run_extraction(job, make_reporter())
    print_summary(summary)
    return int(len(summary.failures) > job.max_failures)
