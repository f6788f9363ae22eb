"""``crane-ray assess``."""

from typing import Any

import click

from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.assessment_jobs import AssessJob

EPILOG = """\b
Examples:
  crane-ray assess --model results/cardiac-mtl_s1 --grade-model results/cardiac-grade_s1 \\
      --cases cases.csv --features work/features/uni_v1 --out assessment
  crane-ray assess --model s_0_checkpoint.pt --cases cases.csv --features CLAM_FEATURES

\b
Results in OUT: assessment.csv and assessment.parquet, a row a case with the probability of each
class (the mean of the folds, each calibrated on its val part), the decision of each task, the grade
of cases with a finding, and the fingerprints of the networks. For research, not for diagnosis."""

SHOWN_CASES = 20


@click.command(name="assess", epilog=EPILOG)
@config_options(AssessJob)
def command(**options: Any) -> int:
    """Diagnose the cases of a cohort with trained networks.

    All heads of the assessment for every case, then the grade of those with a finding.
    """
    job = load_job(AssessJob, options)
    from crane_ray.cli.console import console
    from crane_ray.cli.training_console import print_assessment, print_findings, print_left_out
    from crane_ray.runtime.assessment import run_assessment

    summary = run_assessment(job)
    print_findings(summary.findings)
    print_left_out(summary.left_out)
    print_assessment(summary.table, SHOWN_CASES)
    if summary.uncalibrated:
        console.print(
            f"not calibrated: {', '.join(summary.uncalibrated)} (no val predictions beside the "
            "checkpoints)"
        )
    console.print(f"results: {summary.folder}")
    return int(bool(summary.left_out))
