"""``crane-ray splits``."""

from typing import Any

import click
from rich.markup import escape

from crane_ray.cli.options import config_options, load_job
from crane_ray.cohort.findings import some
from crane_ray.cohort.splitting import (
    DrawnSplits,
    SplitsCheck,
    SplitsJob,
    check_folder,
    draw_splits,
)

NAMES_SHOWN = 5
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
EPILOG = """\b
Examples:
  crane-ray splits --labels labels.csv --task cardiac-mtl -k 5
  crane-ray splits --labels labels.csv --task task.yaml --method sites --sites hospital -k 5
  crane-ray splits --labels labels.csv --task task.yaml --locked-test 0.2 -k 5
  crane-ray splits --labels CardiacDummy_MTLSplit.csv --task cardiac-mtl-strata --method crane
      --seed 1 -k 1 --out splits/cardiac-mtl_100
  crane-ray splits --check splits/cardiac-mtl_100 --labels labels.csv --task cardiac-mtl
      --features work/features/uni_v1

\b
Files in OUT: splits_{i}.csv (slides of train, val and test), splits_{i}_bool.csv,
splits_{i}_descriptor.csv (slides of each class), as CLAM and CRANE read them. All of a patient's
slides are in one part. With a locked test set it is the test part of every fold, and the k parts
of the other patients take turns as val (kfold, sites).

\b
--check changes nothing. It exits with 1 when it finds errors: patients or slides in two parts of
a fold, slides twice in a part, empty parts, train parts of one class; and warns of overlapping
test parts, slides without label (with --labels) or features, and classes missing from a part
(with --task)."""


@click.command(name="splits", epilog=EPILOG)
@click.option("--check", metavar="FOLDER", help="Check the splits in a folder; draw none.")
@click.option("--features", metavar="FOLDER", help="With --check: feature store, or CLAM's folder.")
@config_options(SplitsJob)
def command(**options: Any) -> int:
    """Draw train, val and test parts by patient, or check somebody's."""
    if options["check"] is not None:
        _refuse_others(options)
        result = check_folder(load_job(SplitsCheck, options))
    elif options["features"] is not None:
        raise click.UsageError("--features is for --check FOLDER; splits are drawn of the labels")
    else:
        result = draw_splits(load_job(SplitsJob, options))
    _print(result)
    return int(any(finding.severity == "error" for finding in result.findings))


def _refuse_others(options: dict[str, Any]) -> None:
    """Options of drawing mean nothing to a check, and would be taken for done."""
    known = {"check", "features", "labels", "task", "normalise_labels", "config_file", "settings"}
    given = [name for name, value in options.items() if name not in known and value is not None]
    if given:
        flags = ", ".join("-k" if name == "k" else f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{flags}: has no meaning with --check, which draws nothing")


def _print(result: DrawnSplits) -> None:
    from rich.table import Table

    from crane_ray.cli.console import console

    parts = Table(title=f"splits {escape(result.folder)}", title_justify="left")
    for column in ("fold", "train", "val", "test"):
        parts.add_column(column, justify="right")
    for fold, split in result.splits.items():
        sizes = (len(split.train), len(split.val), len(split.test))
        parts.add_row(str(fold), *(f"{size:,}" for size in sizes))
    console.print(parts)
    if not result.findings:
        console.print("[green]nothing to complain about[/]")
        return
    told = Table(show_lines=True)
    told.add_column("finding", no_wrap=True)
    told.add_column("what", overflow="fold")
    for finding in result.findings:
        colour = COLOURS[finding.severity]
        kind = f"[bold {colour}]{finding.severity}[/]\n{finding.kind.replace('_', ' ')}"
        message = escape(finding.message)
        if any(name not in finding.message for name in finding.names):
            message += f"\n[dim]{escape(some(finding.names, NAMES_SHOWN))}[/]"
        told.add_row(kind, message)
    console.print(told, soft_wrap=False)
