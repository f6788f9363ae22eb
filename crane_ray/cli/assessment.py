"""``crane-ray assess``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.assessment_jobs import AssessJob

EPILOG = """\b
Examples: slides to diagnoses, with patches, features as the model needs them, grade and maps
  crane-ray assess --slides /data/new --work new --model results/cardiac-mtl_s1 \\
      --grade-model results/cardiac-grade_s1
  crane-ray assess --slides slides.csv --work new --model results/cardiac-mtl_s1
  crane-ray assess --slides '/data/*.svs' --work new --model results/cardiac-mtl_s1 \\
      --weights uni.bin --preset bwh_biopsy --no-maps

\b
A published checkpoint does not say what it was trained on; you do:
  crane-ray assess --slides /data/new --work new --model s_0_checkpoint.pt \\
      --encoder resnet50_trunc --patch-level 0 --patch-size 256

\b
Features that are there already:
  crane-ray assess --cases cases.csv --features work/features/uni_v1 --out assessment \\
      --model results/cardiac-mtl_s1 --grade-model results/cardiac-grade_s1

\b
Encoder, weights (by SHA-256) and scale are taken from the model's checkpoints; others are refused
before any work. slides.csv has uri, slide_id, case_id, mpp; without a case_id each slide is a
case. What an interrupted run did is not done again by the same command.

\b
Results in OUT: assessment.csv and assessment.parquet, a row a case with each task's decision, the
probability of each class (the mean of the folds, each calibrated on its val part), the grade of
cases with a finding, slides that were left out and why, and the fingerprints of networks and
features; left_out.csv, cases.csv, manifest.json. A case of which no slide could be used is a row
of blanks. The exit status is 1 if a slide was left out. For research, not for diagnosis."""

SHOWN_CASES = 20


@click.command(name="assess", epilog=EPILOG)
@config_options(AssessJob)
def command(**options: Any) -> int:
    """Diagnose cases with trained networks, from slides or from features.

    All heads of the assessment for every case, then the grade of those with a finding.
    """
    job = load_job(AssessJob, options)
    return _of_slides(job) if job.slides is not None else _of_features(job)


def _of_features(job: AssessJob) -> int:
    from crane_ray.cli.console import make_reporter
    from crane_ray.cli.training_console import print_findings, print_left_out
    from crane_ray.runtime.assessment import run_assessment

    summary = run_assessment(job, make_reporter())
    print_findings(summary.findings)
    print_left_out(summary.left_out)
    _print_verdicts(summary)
    return int(bool(summary.left_out))


def _of_slides(job: AssessJob) -> int:
    from rich.markup import escape

    from crane_ray.cli.console import console, make_reporter, print_reasons
    from crane_ray.cli.training_console import print_findings
    from crane_ray.runtime.slide_assessment import run_slide_assessment

    done = run_slide_assessment(job, make_reporter())
    summary = done.assessment
    print_findings(it for it in summary.findings if it.severity != "note")  # said as it began
    print_reasons(summary.left_out)
    for own in done.maps:
        print_reasons(own.left_out)
    _print_verdicts(summary)
    for own in done.maps:
        console.print(f"maps: {escape(own.where)}")
    if done.maps:
        console.print(f"next:\n  crane-ray view {escape(str(job.work))}")
    elif not job.maps:
        words = f"crane-ray heatmap --work {job.work} --model {job.model}"
        console.print(f"next:\n  {escape(words)}")
    return int(not done.is_whole)


def _print_verdicts(summary: Any) -> None:
    """The first cases, what is to be known of their figures, and where all of them are."""
    from rich.markup import escape

    from crane_ray.cli.console import console
    from crane_ray.cli.training_console import print_assessment

    print_assessment(summary.table, SHOWN_CASES)
    if summary.uncalibrated:
        console.print(
            f"not calibrated: {', '.join(summary.uncalibrated)} (no val predictions beside the "
            "checkpoints)"
        )
    console.print(f"results: {escape(summary.folder)}")
