"""``crane-ray demo``: from slides to diagnoses on a small synthetic cohort."""

import time
from typing import Annotated, Any

import click
from pydantic import Field, field_validator

from crane_ray import storage
from crane_ray.cli.options import config_options, load_job
from crane_ray.config import Config, Flag
from crane_ray.runtime.jobs import ClusterConfig, ExtractJob, PatchJob

EPILOG = """\b
Examples:
  crane-ray demo
  crane-ray demo --work /tmp/crane-demo --num-slides 40"""

FEWEST_TO_TRAIN = 12
NUM_FOLDS = 3
NETWORKS = {"cardiac-mtl": "label_cell", "cardiac-grade": "label_grade"}
"""The task sets that are trained, and the column their splits are stratified by."""


class DemoJob(Config):
    """A small cohort of painted slides: patched, extracted, split, trained on, judged, mapped."""

    work: Annotated[str, Flag("--work", metavar="FOLDER")] = "crane-demo"
    """Folder for slides and results."""
    num_slides: Annotated[int, Flag("--num-slides")] = Field(24, ge=1, le=200)
    """Slides to paint; with fewer than 12 nothing is trained."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the demo runs."""

    @field_validator("work")
    @classmethod
    def _absolute_work(cls, value: str) -> str:
        return storage.absolute(value)


@click.command(name="demo", epilog=EPILOG)
@config_options(DemoJob)
def command(**options: Any) -> int:
    """Paint a small synthetic cohort, and take it from slides to diagnoses.

    The slides show endomyocardial biopsies with cellular rejection, antibody-mediated rejection
    and Quilty lesions. The encoder has random weights, so nothing is downloaded, and the cohort
    is tiny: its figures show how results look, not how good they get.
    """
    job = load_job(DemoJob, options)
    from crane_ray.cli.console import console
    from crane_ray.runtime.cluster import connected
    from crane_ray.runtime.landmarks import landmarks_of
    from crane_ray.testing.cohorts import make_cohort

    begun = time.perf_counter()
    root = job.work
    cohort_folder = storage.join(root, "cohort")
    console.print(f"painting {job.num_slides} synthetic slides in {cohort_folder} ...")
    cohort = make_cohort(cohort_folder, num_slides=job.num_slides)
    with connected(job.cluster, landmarks_of("demo", job)):
        failed = extract_features(root, str(cohort.slides_csv))
        trains = job.num_slides >= FEWEST_TO_TRAIN
        if trains:
            failed |= train_networks(root, str(cohort.labels_csv))
            failed |= draw_maps(root)
    console.print(f"\ndemo done in {time.perf_counter() - begun:.0f} s")
    console.print(_places(root, trains))
    return int(failed)


def extract_features(root: str, slides_csv: str) -> bool:
    """Patches and features; whether a slide failed."""
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.extraction import run_extraction
    from crane_ray.runtime.patching import run_patching

    work = storage.join(root, "work")
    patching = PatchJob.load(
        overrides=[
            ("slides.source", slides_csv),
            ("work", work),
            ("tissue.preset", "bwh_biopsy"),
        ]
    )
    extraction = ExtractJob.load(overrides=[("work", work), ("encoder.weights", "random")])
    summaries = [
        run_patching(patching, make_reporter()),
        run_extraction(extraction, make_reporter()),
    ]
    for summary in summaries:
        print_summary(summary)
    return any(summary.failures for summary in summaries)


def train_networks(root: str, labels: str) -> bool:
    """Splits, both networks and their metrics; whether a fold failed."""
    from crane_ray.cli.console import console
    from crane_ray.cli.training_console import make_training_reporter, print_training
    from crane_ray.cohort.splitting import SplitsJob, draw_splits
    from crane_ray.runtime.study_jobs import TrainJob
    from crane_ray.runtime.training import run_training

    failed = False
    for task, strata in NETWORKS.items():
        splits = storage.join(root, "splits", f"{task}_100")
        draw_splits(
            SplitsJob(
                labels=labels, task=task, k=NUM_FOLDS, strata=strata, out=splits, overwrite=True
            )
        )
        job = TrainJob.load(
            overrides=[
                ("task", task),
                ("splits", splits),
                ("bags.labels", labels),
                ("bags.features", storage.join(root, "work", "features", "resnet50_trunc")),
                ("results", storage.join(root, "results")),
                ("training.epochs", 12),
                ("training.stopping.enabled", False),
                ("overwrite", True),
            ]
        )
        console.print(f"\n{task}")
        summary = run_training(job, make_training_reporter())
        print_training(summary)
        failed |= bool(summary.failures)
    return failed


def draw_maps(root: str) -> bool:
    """Maps of every slide by the network that did not learn from it; whether a slide failed."""
    from crane_ray.cli.console import make_reporter, print_summary
    from crane_ray.runtime.heatmap_jobs import HeatmapJob
    from crane_ray.runtime.heatmaps import run_heatmaps

    job = HeatmapJob.load(
        overrides=[
            ("work", storage.join(root, "work")),
            ("model", storage.join(root, "results", "cardiac-mtl_s1")),
            ("held_out", True),
        ]
    )
    summary = run_heatmaps(job, make_reporter())
    print_summary(summary)
    return bool(summary.failures)


def _places(root: str, trains: bool) -> str:
    """Where everything is, and what to try next."""
    cohort, work, results = (storage.join(root, name) for name in ("cohort", "work", "results"))
    store = storage.join(work, "features", "resnet50_trunc")
    lines = [
        f"  slides      {cohort}/slides",
        f"  diagnoses   {cohort}/labels.csv",
        f"  pictures    {work}/masks, {work}/stitches",
        f"  contours    {work}/contours (drag one onto its slide in QuPath)",
        f"  patches     {work}/patches",
        f"  features    {store}",
    ]
    if trains:
        lines += [f"  results     {results}/{task}_s1" for task in NETWORKS]
        lines += [f"  reports     {results}/{task}_s1/report.html" for task in NETWORKS]
        lines.append(f"  maps        {work}/heatmaps/cardiac-mtl_s1/pictures")
    lines.append("next:")
    if trains:
        lines += [
            f"  crane-ray view {work}",
            f"  open {results}/cardiac-mtl_s1/report.html in a browser, or make it anew with",
            f"      crane-ray report {results}/cardiac-mtl_s1",
            f"  crane-ray assess --slides {cohort}/slides.csv --work {root}/new \\",
            f"      --model {results}/cardiac-mtl_s1 --grade-model {results}/cardiac-grade_s1",
        ]
    lines += [
        f"  crane-ray verify {store}",
        "  crane-ray patch --slides YOUR_SLIDES --work WORK --preset bwh_biopsy",
        "  crane-ray extract --work WORK",
    ]
    return "\n".join(lines)
