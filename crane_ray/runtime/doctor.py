"""The probe of `crane_ray.preflight` on every node of a cluster, and what it means."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from crane_ray import storage
from crane_ray.errors import CraneError
from crane_ray.preflight.judging import Finding, Needs, judge
from crane_ray.preflight.measuring import measure
from crane_ray.preflight.probe import probe
from crane_ray.preflight.rates import rates_of, write_rates
from crane_ray.preflight.report import Asked, Node, NodeReport
from crane_ray.preflight.weights import FoundWeights, look_for_weights
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.each_node import Placed, alive_nodes, answers, on_node
from crane_ray.runtime.preflight_jobs import DoctorJob
from crane_ray.slides.slide_cache import GB

DEFAULT_ENCODER = "resnet50_trunc"


@dataclass(frozen=True)
class Diagnosis:
    """What doctor found."""

    driver: NodeReport
    nodes: tuple[Node, ...]
    findings: tuple[Finding, ...]
    """Errors first."""

    @property
    def num_errors(self) -> int:
        """Findings that will break a run."""
        return sum(finding.severity == "error" for finding in self.findings)


def run_doctor(job: DoctorJob) -> Diagnosis:
    """Looks at every node; writes what was measured where the job says so.

    Raises:
        ConfigError: no such encoder.
        ClusterError: no cluster answers.
        StorageError: the rates cannot be written.
    """
    weights = look_for_weights(job.encoder_configs)
    own: list[Finding] = list(weights.findings)
    with _marker(job.work, own) as (markers, token), connected(job.cluster):
        asked = Asked(job.staging.folder, markers, token, weights.paths, weights.packages)
        nodes = _probed(alive_nodes(), asked, job.timeout_s)
        if job.measure:
            encoder = job.encoders[0] if job.encoders else DEFAULT_ENCODER
            nodes = _measured(nodes, encoder, job.timeout_s)
    diagnosis = _diagnosis(job, [node for _, node in nodes], own, weights)
    rates = rates_of(diagnosis.nodes)
    if job.rates_out is not None and rates is not None:
        write_rates(job.rates_out, rates)
    return diagnosis


def _diagnosis(
    job: DoctorJob, nodes: Sequence[Node], own: Sequence[Finding], weights: FoundWeights
) -> Diagnosis:
    driver = probe(Asked(job.staging.folder, weights=weights.paths))
    needs = Needs(
        work=job.work or "",
        staging=job.staging.local or storage.is_uri(job.work or ""),
        cache_bytes=int(job.staging.max_gb * GB),
    )
    found = [*own, *judge(driver, nodes, needs)]
    found.sort(key=lambda finding: finding.severity != "error")
    return Diagnosis(driver, tuple(nodes), tuple(found))


def _probed(nodes: list[Placed], asked: Asked, timeout_s: float) -> list[Placed]:
    """Every node with its report. A task needs no CPU, so that busy nodes answer, too."""
    tasks = [on_node(key, num_cpus=0)(probe).remote(asked) for key, _ in nodes]
    told = answers(tasks, timeout_s, f"no answer within {timeout_s:g} s")
    return [
        (key, replace(node, report=found, silence=problem))
        for (key, node), (found, problem) in zip(nodes, told, strict=True)
    ]


def _measured(nodes: list[Placed], encoder: str, timeout_s: float) -> list[Placed]:
    """Nodes that would take part in a run with their rates; heads without CPUs would not."""
    with_gpus = [node.gpus >= 1 for _, node in nodes]
    able = [node.report is not None and node.cpus >= 1 for _, node in nodes]
    tasks = [
        on_node(key, num_cpus=1, num_gpus=int(gpu))(measure).remote(encoder, on_gpu=gpu)
        for (key, _), gpu, ok in zip(nodes, with_gpus, able, strict=True)
        if ok
    ]
    late = f"no core (or GPU) was free for it within {timeout_s:g} s"
    told = iter(answers(tasks, timeout_s, late))
    done = []
    for (key, node), ok in zip(nodes, able, strict=True):
        rates, problem = next(told) if ok else (None, "")
        done.append((key, replace(node, rates=rates, unmeasured=problem, is_busy=problem == late)))
    return done


@contextmanager
def _marker(work: str | None, own: list[Finding]) -> Iterator[tuple[str | None, str]]:
    """The folder of the driver's marker in WORK and what it holds; all of it is gone at the end.

    A WORK that the driver itself cannot write is a finding, and nodes are not asked then.
    """
    token = secrets.token_hex(8)
    if work is None:
        yield None, ""
        return
    markers = storage.join(work, f".crane-ray-doctor-{token}")
    made = _missing_folders(markers)
    try:
        storage.put_bytes(storage.join(markers, "driver"), token.encode())
    except CraneError as error:
        own.append(
            Finding(
                "error",
                "driver",
                "storage",
                str(error),
                f"writes to {work}",
                "mend that, or give another --work; the nodes were not asked before it works here",
            )
        )
        yield None, ""
        return
    try:
        yield markers, token
    finally:
        storage.remove_tree(markers)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def _missing_folders(path: str) -> list[Path]:
    """Local folders above a path that are not there yet, the deepest first."""
    if storage.is_uri(path):
        return []
    return [folder for folder in Path(path).parents if not folder.exists()]
