"""The command line: parses, calls one function of `crane_ray.runtime`, prints what came of it."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import click
from rich.markup import escape

from crane_ray.cli.console import console
from crane_ray.errors import CraneError
from crane_ray.logs import is_json
from crane_ray.version import __version__

log = logging.getLogger(__name__)
USAGE_ERROR, INTERRUPTED, TERMINATED = 2, 130, 143
VERBS = {
    "demo": ("demo", "Take a small synthetic cohort from slides to diagnoses."),
    "patch": ("patching", "Find tissue on slides and place patches on it."),
    "extract": ("extraction", "Turn the patches of a workspace into features."),
    "verify": ("verification", "Read a feature store back against its checksums."),
    "export": ("exporting", "Write a feature store as CLAM's files."),
    "import": ("importing", "Take features, coordinates or heatmap configs of CLAM or TRIDENT."),
    "splits": ("splitting", "Draw train, val and test parts by patient, or check somebody's."),
    "encoders": ("encoders", "List the encoders and where their weights come from."),
    "train": ("training", "Train networks on the folds of a cohort."),
    "tune": ("tuning", "Search the settings of a training."),
    "evaluate": ("evaluation", "Judge trained networks on a part of a cohort, or on another."),
    "assess": ("assessment", "Diagnose slides, or cases of features: all heads, the grade, maps."),
    "heatmap": ("heatmap", "Show what trained networks look at on slides."),
    "report": ("report", "Make the page of a training or an evaluation anew."),
    "view": ("view", "Show slides and their attention maps in a browser."),
    "submit": ("submission", "Run a verb as a job on a Ray cluster."),
    "jobs": ("jobs", "List, show and stop the jobs of a Ray cluster."),
    "doctor": ("doctor", "Look whether every node of a cluster is fit for a run."),
    "plan": ("plan", "Say what the extraction of a cohort will cost."),
}
"""Verb: its module in `crane_ray.cli`, and its line in the overview."""


class Verbs(click.Group):
    """Loads a verb's module only when that verb is used, so that ``--help`` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of use."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command."""
        if cmd_name not in VERBS:
            return None
        from importlib import import_module

        module = import_module(f"crane_ray.cli.{VERBS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The overview, without loading any verb."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb named first, or an error that names the nearest one."""
        import difflib

        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            ctx.fail(f"no verb {args[0]!r}{hint} Verbs: {', '.join(VERBS)}")
        return super().resolve_command(ctx, args)


OVERVIEW = """Cohorts of whole-slide images to diagnoses, on Ray.

\b
crane-ray demo                                   try it on synthetic slides
crane-ray patch   --slides DIR --work WORK       find tissue, place patches
crane-ray extract --work WORK                    patches to features
crane-ray splits  --labels CSV --task TASK       who trains, who judges
crane-ray train   --task TASK --splits DIR ...   features to networks and metrics
crane-ray assess  --slides DIR --model RUN ...   new slides to diagnoses, in one command
crane-ray heatmap --model RUN --work WORK        what the networks looked at
crane-ray view    WORK                           slides and maps in a browser
"""


@click.group(
    cls=Verbs,
    help=OVERVIEW,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="crane-ray VERB --help explains a verb, with examples.",
)
@click.version_option(__version__, prog_name="crane-ray")
@click.option("-v", "--verbose", is_flag=True, help="Log what happens, Ray's own log included.")
def cli(verbose: bool) -> None:
    """Sets up logging; what the command is about is in `OVERVIEW`."""
    logging.basicConfig(
        level=logging.INFO if verbose else logging.ERROR,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def run(arguments: list[str] | None = None) -> None:
    """The command's entry point: runs a verb and leaves with its exit status."""
    sys.exit(call(arguments))


def call(arguments: list[str] | None = None) -> int:
    """Runs a verb and returns its exit status.

    Returns:
        0 (all well), 1 (slides failed), 2 (could not), 130 (stopped by Ctrl-C), 143 (stopped by
        SIGTERM).
    """
    with _terminable() as termination:
        status = _call(arguments)
    return TERMINATED if status == INTERRUPTED and termination.came else status


def _call(arguments: list[str] | None) -> int:
    try:
        result: Any = cli.main(args=arguments, prog_name="crane-ray", standalone_mode=False)
        return int(result or 0)
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CraneError as error:
        if is_json():
            log.error(str(error), extra={"event": "error"})
        else:
            console.print(f"[bold red]error:[/] {escape(str(error))}", style="default")
        return USAGE_ERROR
    except (KeyboardInterrupt, click.Abort):
        console.print("[yellow]stopped; what is committed stays. The same command goes on.[/]")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class _Termination:
    """SIGTERM as Ctrl-C: what schedulers (Slurm, Kubernetes, Ray's jobs) send to end a command.

    Only the first: they may send it to a whole process tree, and twice, and what a run puts away
    as it stops must not be interrupted again. One that does not end is killed anyway.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.came:
            self.came = True
            raise KeyboardInterrupt


@contextmanager
def _terminable() -> Iterator[_Termination]:
    """Within the block SIGTERM ends a verb; nothing changes outside of the main thread."""
    termination = _Termination()
    if threading.current_thread() is not threading.main_thread():
        yield termination
        return
    before = signal.signal(signal.SIGTERM, termination)
    try:
        yield termination
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


if __name__ == "__main__":
    run()
