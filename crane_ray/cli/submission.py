"""``crane-ray submit VERB``: the same config as the verb's own, run as a job on a cluster."""

from collections.abc import Callable
from typing import Any

import click

from crane_ray.cli.demo import DemoJob
from crane_ray.cli.options import (
    config_options,
    dashboard_option,
    flagged_fields,
    load_job,
    require_dashboard,
)
from crane_ray.cohort.splitting import SplitsJob
from crane_ray.config import Config
from crane_ray.runtime.assessment_jobs import AssessJob
from crane_ray.runtime.evaluation_jobs import EvaluateJob
from crane_ray.runtime.exchange_jobs import ExportJob, ImportCoordsJob, ImportFeaturesJob
from crane_ray.runtime.heatmap_jobs import HeatmapJob
from crane_ray.runtime.jobs import ExtractJob, PatchJob, VerifyJob
from crane_ray.runtime.preflight_jobs import DoctorJob, PlanJob
from crane_ray.runtime.reports import ReportJob
from crane_ray.runtime.search_jobs import TuneJob
from crane_ray.runtime.study_jobs import TrainJob

JOBS: dict[str, type[Config]] = {
    "demo": DemoJob,
    "patch": PatchJob,
    "extract": ExtractJob,
    "verify": VerifyJob,
    "export clam": ExportJob,
    "import features": ImportFeaturesJob,
    "import coords": ImportCoordsJob,
    "splits": SplitsJob,
    "train": TrainJob,
    "tune": TuneJob,
    "evaluate": EvaluateJob,
    "assess": AssessJob,
    "heatmap": HeatmapJob,
    "report": ReportJob,
    "doctor": DoctorJob,
    "plan": PlanJob,
}
TYPED = frozenset({"view", "encoders", "import heatmap", "jobs", "submit"})
"""What else the command line has: it runs where it is typed."""

HOW = ("follow", "job_id", "python", "runtime_env", "retries")
"""Options of the submission; all others are the verb's own."""

EPILOG = """\b
Examples:
  crane-ray submit demo --work /data/crane-demo --address http://head:8265
  crane-ray submit patch --slides /data/slides --work /data/work --address http://head:8265
  crane-ray submit extract --config extract.yaml --address http://head:8265
  crane-ray submit extract --work /data/work --no-follow --address http://head:8265
  crane-ray submit train --config train.yaml --retries 3 --address http://head:8265

\b
Paths must mean the same on every node: a shared filesystem or a bucket. Those that just this
machine has are named before the job begins; YAML files of tasks and spaces go along with it,
and are kept with its results.
crane-ray must be installed on the cluster (its image), this machine needs no GPU.
crane-ray jobs lists, shows and stops what was submitted."""


class Submitted(click.Group):
    """Verbs that can be submitted, by their first word, or by their second."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb named first, or an error that says why it is none, or which is nearest."""
        import difflib

        if args and args[0] not in self.commands and not args[0].startswith("-"):
            verb = " ".join([*ctx.command_path.split()[2:], args[0]])
            if verb in TYPED:
                ctx.fail(f"{verb} is not submitted; it runs where it is typed (crane-ray {verb})")
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            ctx.fail(f"no verb {verb}{hint} Verbs to submit: {', '.join(JOBS)}")
        return super().resolve_command(ctx, args)


@click.group(name="submit", cls=Submitted, epilog=EPILOG)
def command() -> None:
    """Run a verb as a job on a Ray cluster.

    The config is resolved here, sent through the Ray Jobs API, and the job's log is followed;
    the exit status is the job's.
    """


def _submission_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        dashboard_option,
        click.option("--follow/--no-follow", default=True,
                     help="Stay and show the job's log (the default), or leave at once."),
        click.option("--job-id", metavar="NAME",
                     help="Name of the job; made of the verb and the time where not given."),
        click.option("--retries", metavar="N", type=click.IntRange(min=0), default=0,
                     help="Submit the job again, so many times, when its driver or its node was "
                     "lost; each try goes on with what is missing. [default: 0]"),
        click.option("--python", metavar="PATH",
                     help="Interpreter on the cluster; the one of its workers if not given."),
        click.option("--runtime-env", metavar="FILE", help="YAML of a Ray runtime environment."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _make(verb: str, model: type[Config]) -> click.Command:
    # Where a local run would be means nothing to a submitted one.
    local = [
        one.flag.name
        for one in flagged_fields(model)
        if one.path.startswith("cluster.") and one.path != "cluster.log_format"
    ]

    @click.command(name=verb, help=f"Submit crane-ray {verb} as a job.", epilog=EPILOG)
    @_submission_options
    @config_options(model, leave_out=local)
    def submit(dashboard: str | None, **options: Any) -> int:
        how = {name: options.pop(name) for name in HOW}
        job = load_job(model, options, runs_here=False)
        address = require_dashboard("submit", dashboard)
        from crane_ray.cli.console import console
        from crane_ray.runtime.submission import SubmissionConfig, submit_job

        submission = SubmissionConfig(address=address, **how)
        return submit_job(verb, job, submission, lambda text: console.print(text, markup=False))

    return submit


def _add(verb: str, model: type[Config]) -> None:
    """A verb of two words (``export clam``) goes into a group of the first."""
    first, *second = verb.split()
    if not second:
        command.add_command(_make(verb, model), verb)
        return
    group = command.commands.setdefault(
        first, Submitted(first, help=f"Submit crane-ray {first} ... as a job.")
    )
    assert isinstance(group, click.Group)
    group.add_command(_make(verb, model), second[0])


for _verb, _model in JOBS.items():
    _add(_verb, _model)
