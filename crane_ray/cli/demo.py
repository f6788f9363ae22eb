"""``crane-ray demo``: the main job on a small synthetic cohort."""

import time
from typing import Annotated, Any

import click
from pydantic import Field

from crane_ray import storage
from crane_ray.cli.options import config_options, load_job
from crane_ray.config import Config, Flag
from crane_ray.runtime.jobs import ClusterConfig, ExtractJob, PatchJob

EPILOG = """\b
Examples:
  crane-ray demo
  crane-ray demo --work /tmp/crane-demo --num-slides 12"""


class DemoJob(Config):
    """A small cohort of painted slides, patched and extracted."""

    work: Annotated[str, Flag("--work", metavar="FOLDER")] = "crane-demo"
    """Folder for slides and results."""
    num_slides: Annotated[int, Flag("--num-slides")] = Field(6, ge=1, le=200)
    """Slides to paint."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the demo runs."""


@click.command(name="demo", epilog=EPILOG)
@config_options(DemoJob)
def command(**options: Any) -> int:
    """Paint a small synthetic cohort, patch it and extract features.

    The slides show endomyocardial biopsies with cellular rejection, antibody-mediated rejection
    and Quilty lesions; the encoder has random weights, so nothing is downloaded.
    """
    job = load_job(DemoJob, options)
    from crane_ray.cli.console import console, make_reporter, print_summary
    from crane_ray.runtime.cluster import connected
    from crane_ray.runtime.extraction import run_extraction
    from crane_ray.runtime.patching import run_patching
    from crane_ray.testing.cohorts import make_cohort

    begun = time.perf_counter()
    root = storage.absolute(job.work)
    cohort_folder, work = storage.join(root, "cohort"), storage.join(root, "work")
    console.print(f"painting {job.num_slides} synthetic slides in {cohort_folder} ...")
    cohort = make_cohort(cohort_folder, num_slides=job.num_slides)
    patching = PatchJob.load(
        overrides=[
            ("slides.source", str(cohort.slides_csv)),
            ("work", work),
            ("tissue.preset", "bwh_biopsy"),
        ]
    )
    extraction = ExtractJob.load(overrides=[("work", work), ("encoder.weights", "random")])
    with connected(job.cluster):
        summaries = [
            run_patching(patching, make_reporter()),
            run_extraction(extraction, make_reporter()),
        ]
    for summary in summaries:
        print_summary(summary)
    (store,) = extraction.store_roots
    console.print(
        f"\ndemo done in {time.perf_counter() - begun:.0f} s\n"
        f"  slides      {cohort_folder}/slides\n"
        f"  diagnoses   {cohort.labels_csv}\n"
        f"  pictures    {work}/masks, {work}/stitches\n"
        f"  contours    {work}/contours (drag one onto its slide in QuPath)\n"
        f"  patches     {work}/patches\n"
        f"  features    {store}\n"
        "next:\n"
        f"  crane-ray verify {store}\n"
        "  crane-ray patch --slides YOUR_SLIDES --work WORK --preset bwh_biopsy\n"
        "  crane-ray extract --work WORK"
    )
    return int(any(summary.failures for summary in summaries))
