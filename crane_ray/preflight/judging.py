"""What the reports of nodes mean for a run: findings, each with what is needed and the fix."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from crane_ray.preflight.report import Disk, Node, NodeReport

GIB = 2**30
EXACT, MINOR, MAJOR = 3, 2, 1
BREAKING = {
    "ray": EXACT, "crane-ray": EXACT, "python": MINOR, "numpy": MAJOR, "pydantic": MINOR,
    "pyarrow": MAJOR, "pandas": MAJOR, "zarr": MAJOR, "torch": MAJOR,
}  # fmt: skip
"""How many numbers of a version must agree, because driver and nodes send each other pickled
values: Ray refuses other Rays, and pickles of Python differ from one minor version to the next."""
OPTIONAL = frozenset({"timm", "huggingface_hub", "s3fs", "gcsfs"})
"""Packages of extras; what needs them is checked by itself."""
CODEC_PACKAGES = {
    "OpenSlide": "openslide-python openslide-bin", "simplejpeg": "simplejpeg",
    "imagecodecs": "imagecodecs", "Pillow": "pillow", "OpenCV": "opencv-python-headless",
}  # fmt: skip
"""What to install for a library of `crane_ray.preflight.codecs`, by the first word of its name."""
SMALLEST_CACHE_BYTES = 4 * GIB
"""A slide or two; below that staging waits for room with every slide."""
SMALL_CACHE_BYTES = 20 * GIB
LEAST_SHM_BYTES = GIB // 8
THROUGH_STORE_BYTES = GIB // 8
"""Weight files above this are read by each actor where all nodes see them."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Severity
    """An error breaks a run; a warning makes it slower, or its results a little different."""
    node: str
    """Its name; of several with the same finding, all of them. ``driver`` for the driver's own."""
    check: str
    found: str
    needed: str
    fix: str


@dataclass(frozen=True)
class Needs:
    """What the run asks of every node."""

    work: str = ""
    """Where results go; empty where that was not asked about."""
    staging: bool = False
    """Slides will be copied to the nodes' own disks."""
    cache_bytes: int = 100 * 10**9
    """What the cache of slides may grow to."""


def judge(driver: NodeReport, nodes: Sequence[Node], needs: Needs) -> list[Finding]:
    """The findings, errors first; the same one of several nodes is told once.

    Args:
        driver: what the driver found on its own machine; nodes are compared with it.
        nodes: of the cluster, each with its report, or the reason why there is none.
        needs: what the run asks for.
    """
    found = [finding for node in nodes for finding in _judge_node(driver, node, needs)]
    together: dict[Finding, list[str]] = {}
    for finding in found:
        together.setdefault(replace(finding, node=""), []).append(finding.node)
    merged = [replace(one, node=", ".join(names)) for one, names in together.items()]
    return sorted(merged, key=lambda finding: finding.severity != "error")


def _judge_node(driver: NodeReport, node: Node, needs: Needs) -> Iterator[Finding]:
    report = node.report
    if report is None:
        yield Finding(
            "error",
            node.name,
            "answer",
            node.silence,
            f"crane-ray {driver.versions['crane-ray']} on Python {driver.python}, as the driver's",
            "install the driver's crane-ray in the Python that Ray runs there (the same image), "
            "or take the node out of the cluster",
        )
        return
    yield from _judge_versions(driver, node.name, report)
    yield from _judge_codecs(node.name, report)
    yield from _judge_gpus(node, report)
    yield from _judge_shm(node, report)
    yield from _judge_cache(node.name, report.cache, needs)
    yield from _judge_storage(node.name, report, needs)
    yield from _judge_weights(driver, node, report)
    if node.unmeasured:
        again = "while the node is idle" if node.is_busy else "once it is mended"
        yield Finding(
            "warning", node.name, "rates", node.unmeasured, "decodes and encodes to be measured",
            f"run doctor again {again}, or with --no-measure",
        )  # fmt: skip


def _judge_versions(driver: NodeReport, name: str, report: NodeReport) -> Iterator[Finding]:
    wanted = {"python": driver.python, **driver.versions}
    there = {"python": report.python, **report.versions}
    for package, version in wanted.items():
        own = there.get(package)
        if own == version or (own is None and package in OPTIONAL):
            continue
        numbers = BREAKING.get(package, 0)
        breaks = own is None or _start(own, numbers) != _start(version, numbers)
        fix = f"pip install {package}=={version} there, or the same image on every node"
        if package == "python":
            fix = f"run Ray there with Python {version} (the same image on every node)"
        yield Finding(
            "error" if breaks else "warning", name, package, own or "not installed",
            f"{version}, as the driver's", fix,
        )  # fmt: skip
    for package in report.missing:
        yield Finding(
            "error", name, package, "not installed", "the encoder that was asked for needs it",
            f"pip install 'crane-ray[encoders]' or {package} there",
        )  # fmt: skip


def _start(version: str, numbers: int) -> list[str]:
    return version.split(".")[:numbers]


def _judge_codecs(name: str, report: NodeReport) -> Iterator[Finding]:
    for library, problem in report.codecs.items():
        if problem:
            yield Finding(
                "error", name, library, problem, "gives a small image back",
                f"pip install --force-reinstall {CODEC_PACKAGES[library.split()[0]]} there (a "
                "system library that is missing is named in what was found)",
            )  # fmt: skip


def _judge_gpus(node: Node, report: NodeReport) -> Iterator[Finding]:
    if report.torch_gpu:
        yield Finding(
            "error" if node.gpus else "warning", node.name, "GPU",
            f"{report.torch_gpu}; driver {report.driver}", "torch computes on it",
            "install a torch built for a CUDA that this driver knows (pytorch.org/get-started), or "
            "a newer driver",
        )  # fmt: skip
    elif report.gpus and not node.gpus:
        yield Finding(
            "warning", node.name, "GPU", f"{len(report.gpus)} x {report.gpus[0].name}, and Ray "
            "gives none to tasks", "Ray offers the GPUs of its nodes",
            f"ray start --num-gpus={len(report.gpus)} there; in a container also --gpus all",
        )  # fmt: skip
    elif node.gpus and not report.gpus:
        yield Finding(
            "error", node.name, "GPU", f"Ray gives {node.gpus:g} to tasks, nvidia-smi finds none",
            "a GPU for each that Ray offers",
            "install the driver (in a container: the NVIDIA runtime), or ray start --num-gpus=0",
        )  # fmt: skip


def _judge_shm(node: Node, report: NodeReport) -> Iterator[Finding]:
    if report.system != "Linux":  # Ray keeps its store in files there
        return
    shm, store = report.shm, node.object_store_bytes
    needed = f"{gb(store)} for Ray's object store"
    size = f"{max(1, -(-store // GIB))}g"
    fix = (
        f"mount -o remount,size={size} /dev/shm there (docker run --shm-size={size}; in Kubernetes "
        "an emptyDir of medium Memory at /dev/shm), or ray start with a smaller "
        "--object-store-memory; then start Ray there again"
    )
    if shm is None or shm.problem:
        found = "there is none" if shm is None else shm.problem
        yield Finding("error", node.name, "/dev/shm", found, needed, fix)
    elif shm.total_bytes < store:
        found = f"{gb(shm.total_bytes)} in all, so the store lies on the disk and is slow"
        yield Finding("warning", node.name, "/dev/shm", found, needed, fix)
    elif shm.free_bytes < min(store, LEAST_SHM_BYTES):
        yield Finding(
            "error", node.name, "/dev/shm", f"{gb(shm.free_bytes)} free", needed,
            "remove what other programs left in /dev/shm (ls -l /dev/shm): workers die of SIGBUS "
            "where it is full",
        )  # fmt: skip


def _judge_cache(name: str, cache: Disk, needs: Needs) -> Iterator[Finding]:
    severity: Severity = "error" if needs.staging else "warning"
    usable = min(needs.cache_bytes, cache.free_bytes // 2)
    fix = "give a folder on a larger disk of the nodes' own with --cache-folder or CRANE_RAY_CACHE"
    if cache.problem:
        found = f"{cache.folder}: {cache.problem}"
        yield Finding(severity, name, "cache disk", found, "a folder that can be written", fix)
    elif usable < SMALL_CACHE_BYTES:
        yield Finding(
            severity if usable < SMALLEST_CACHE_BYTES else "warning", name, "cache disk",
            f"{cache.folder}: {gb(cache.free_bytes)} free of {gb(cache.total_bytes)}; half of "
            "that may hold slides", f"{gb(2 * SMALL_CACHE_BYTES)} free for staged slides", fix,
        )  # fmt: skip


def _judge_storage(name: str, report: NodeReport, needs: Needs) -> Iterator[Finding]:
    checked = report.storage
    if checked is None:
        return
    far = "://" in needs.work
    keys = "give the node the bucket's credentials and endpoint (environment, or its role)"
    if checked.reads:
        fix = keys if far else "mount the same shared filesystem there, or give a URI (s3://...)"
        needed = f"reads what the driver wrote to {needs.work}"
        yield Finding("error", name, "storage", checked.reads, needed, fix)
    if checked.writes:
        fix = keys if far else "let the user that runs Ray there write to it (chown, mount options)"
        yield Finding("error", name, "storage", checked.writes, f"writes to {needs.work}", fix)


def _judge_weights(driver: NodeReport, node: Node, report: NodeReport) -> Iterator[Finding]:
    for path, size in (driver.weights or {}).items():
        own = (report.weights or {}).get(path)
        if size is None or own == size or size <= THROUGH_STORE_BYTES:
            continue
        fits = size < node.object_store_bytes
        yield Finding(
            "warning" if fits else "error", node.name, "weights",
            f"{path}: " + ("not there" if own is None else f"{own:,} bytes"),
            f"the driver's file of {size:,} bytes; else it goes through the object store "
            f"({gb(node.object_store_bytes)})",
            "copy the file to the same path there, or keep it on a shared filesystem",
        )  # fmt: skip


def gb(size: float) -> str:
    """Bytes in words."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6)):
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return f"{size / 1000:,.1f} kB"
