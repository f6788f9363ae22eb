"""``crane-ray doctor``."""

from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from crane_ray.cli.options import config_options, load_job
from crane_ray.preflight.judging import Finding, gb
from crane_ray.preflight.report import Node
from crane_ray.runtime.preflight_jobs import DoctorJob

EPILOG = """\b
Examples:
  crane-ray doctor
  crane-ray doctor --address head:6379 --work s3://bucket/work --encoder uni_v1
  crane-ray doctor --address auto --rates-out rates.json && crane-ray plan --work work --rates rates.json

\b
Exit status: 0 nothing will break a run, 1 something will, 2 the cluster could not be looked at.
Markers that are written to WORK are removed again."""  # noqa: E501
COLOURS = {"error": "bold red", "warning": "yellow"}


@click.command(name="doctor", epilog=EPILOG)
@config_options(DoctorJob)
def command(**options: Any) -> int:
    """Look whether every node of a cluster is fit for a run.

    A small task on each node looks at versions, codecs, GPUs, disks, storage and weights, and
    measures how fast it decodes and encodes.
    """
    job = load_job(DoctorJob, options)
    from crane_ray.cli.console import console
    from crane_ray.cohort.findings import counted
    from crane_ray.runtime.doctor import run_doctor

    diagnosis = run_doctor(job)
    console.print(_nodes_table(diagnosis.nodes))
    console.print(_looked_at(job))
    for finding in diagnosis.findings:
        console.print(_words(finding))
    errors = diagnosis.num_errors
    warnings = len(diagnosis.findings) - errors
    nodes = counted(len(diagnosis.nodes), "node")
    if errors:
        verdict = f"[bold red]not fit:[/] {counted(errors, 'finding')} will break a run"
        verdict += f", and {counted(warnings, 'warning')}" if warnings else ""
    else:
        verdict = f"[bold green]fit:[/] nothing on {nodes} will break a run"
        verdict += f"; {counted(warnings, 'warning')}" if warnings else ""
    console.print(verdict)
    if job.rates_out is None:
        return int(bool(errors))
    if not any(node.rates for node in diagnosis.nodes):
        console.print(f"[bold red]rates:[/] nothing was measured, no {escape(job.rates_out)}")
        return 1
    console.print(f"rates: {escape(job.rates_out)}")
    return int(bool(errors))


def _nodes_table(nodes: tuple[Node, ...]) -> Table:
    table = Table(title="crane-ray doctor", title_justify="left")
    for column in ("node", "Python, Ray", "CPUs", "GPUs", "/dev/shm free", "cache disk free"):
        table.add_column(column, overflow="fold")
    for column in ("decodes", "encodes"):
        table.add_column(column, overflow="fold")
    for node in nodes:
        report = node.report
        if report is None:
            table.add_row(escape(node.name), "[bold red]no answer[/]", f"{node.cpus:g}")
            continue
        table.add_row(
            escape(node.name),
            f"{report.python}, {report.versions.get('ray', 'none')}",
            f"{node.cpus:g}",
            _gpus(node),
            f"{gb(report.shm.free_bytes)} of {gb(report.shm.total_bytes)}"
            if report.shm
            else "none",
            f"{gb(report.cache.free_bytes)} of {gb(report.cache.total_bytes)}",
            *_rates(node),
        )
    return table


def _looked_at(job: DoctorJob) -> str:
    """What the verdict rests on, and what it does not."""
    seen = ["versions", "codecs", "GPUs", "/dev/shm", "cache disk"]
    left: list[str] = []
    for words, option, asked in (
        (f"storage {job.work}", "storage: --work", job.work),
        (f"weights of {', '.join(job.encoders)}", "weights: --encoder", job.encoders),
        ("rates", "rates: --measure", job.measure),
    ):
        (seen if asked else left).append(words if asked else option)
    return escape(
        f"looked at: {', '.join(seen)}" + (f"\nnot looked at: {', '.join(left)}" if left else "")
    )


def _gpus(node: Node) -> str:
    report = node.report
    if report is None or not report.gpus:
        return f"{node.gpus:g}"
    return f"{node.gpus:g} ({report.gpus[0].name}, driver {report.driver})"


def _rates(node: Node) -> tuple[str, str]:
    rates = node.rates
    if rates is None:
        return "not measured", "not measured"
    per = "GPU" if rates.on_gpu else "core"
    encode = f"{rates.encode:,.0f}" if rates.encode >= 10 else f"{rates.encode:.1f}"
    return (
        f"{rates.decode:,.0f} patches/s a core",
        f"{encode} patches/s a {per} ({rates.encoder}, {rates.precision})",
    )


def _words(finding: Finding) -> str:
    return (
        f"[{COLOURS[finding.severity]}]{finding.severity}[/] {escape(finding.node)}: "
        f"[bold]{escape(finding.check)}[/]\n"
        f"  found:  {escape(finding.found)}\n"
        f"  needed: {escape(finding.needed)}\n"
        f"  fix:    {escape(finding.fix)}"
    )
