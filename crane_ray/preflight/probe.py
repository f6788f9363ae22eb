"""Looks at the machine that it runs on; a check that fails is an answer, never an exception."""

import os
import platform
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from crane_ray.preflight.report import Asked, Disk, Gpu, NodeReport, StorageCheck

PACKAGES = (
    "ray", "numpy", "pyarrow", "pandas", "pydantic", "torch", "torchvision", "zarr", "h5py",
    "openslide-python", "openslide-bin", "opencv-python-headless", "imagecodecs", "simplejpeg",
    "tifffile", "pillow", "fsspec", "safetensors", "optuna", "matplotlib", "tensorboardX",
    "timm", "huggingface_hub", "s3fs", "gcsfs",
)  # fmt: skip
"""Everything that a verb uses; the last four only where they are asked for."""
SHM = "/dev/shm"
"""Where Ray keeps its object store."""
SMI_FIELDS = "name,memory.total,driver_version"


def probe(asked: Asked) -> NodeReport:
    """What is found on this machine."""
    gpus, driver = find_gpus()
    return NodeReport(
        host=socket.gethostname(),
        python=platform.python_version(),
        versions=find_versions(),
        system=platform.system(),
        codecs=check_codecs(),
        cache=check_disk(asked.cache_folder or _default_cache()),
        shm=check_disk(SHM) if Path(SHM).is_dir() else None,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        gpus=gpus,
        driver=driver,
        torch_gpu=_told(_use_gpu) if gpus else "",
        storage=check_storage(asked.markers, asked.token) if asked.markers else None,
        weights={path: _file_size(path) for path in asked.weights},
        missing=tuple(name for name in asked.packages if find_spec(name) is None),
    )


def find_versions() -> dict[str, str]:
    """The version of each package that is installed here, crane-ray's own among them."""
    from crane_ray.version import __version__

    found = {"crane-ray": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def find_gpus() -> tuple[tuple[Gpu, ...], str]:
    """The GPUs that nvidia-smi lists, and the driver's version; none where there is no such tool.

    All of the machine's, whatever CUDA_VISIBLE_DEVICES says: Ray hides them from tasks.
    """
    try:
        words = ["nvidia-smi", f"--query-gpu={SMI_FIELDS}", "--format=csv,noheader,nounits"]
        answer = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return (), ""
    return parse_gpus(answer.stdout)


def parse_gpus(text: str) -> tuple[tuple[Gpu, ...], str]:
    """The GPUs and the driver in nvidia-smi's CSV; memory there is in MiB."""
    gpus, driver = [], ""
    for line in text.splitlines():
        name, memory, driver = (part.strip() for part in line.rsplit(",", 2))
        gpus.append(Gpu(name, int(memory) * 2**20 if memory.isdigit() else 0))
    return tuple(gpus), driver


def check_codecs() -> dict[str, str]:
    """Each library that decodes slides, tried on a small image: why it cannot, or nothing."""
    from crane_ray.preflight import codecs

    return {name: _told(check) for name, check in codecs.CHECKS.items()}


def check_disk(folder: str) -> Disk:
    """Size and free space of the filesystem of a folder, and whether it can be written.

    The folder may not be there yet: the nearest one above it that is there stands for it.
    """
    there = Path(folder)
    while not there.is_dir() and there != there.parent:
        there = there.parent
    usage = shutil.disk_usage(there)

    def write() -> None:
        try:
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(b"crane-ray doctor")
        except OSError as error:
            raise OSError(f"nothing can be written there: {error.strerror or error}") from error

    return Disk(folder, usage.total, usage.free, _told(write))


def check_storage(markers: str, token: str) -> StorageCheck:
    """Whether the driver's marker is there, and a marker of one's own can be put beside it."""
    found = b""

    def read() -> None:
        nonlocal found
        from crane_ray import storage  # needs packages, which may be what is missing

        found = storage.read_bytes(storage.join(markers, "driver"))

    reads = _told(read)
    if not reads and found != token.encode():
        reads = f"the driver wrote {token!r} there, this node reads {found[:40]!r}"
    if reads:  # a marker here would make a folder that belongs to nobody
        return StorageCheck(reads=reads)

    def write() -> None:
        from crane_ray import storage

        own = storage.join(markers, f"{socket.gethostname()}-{os.getpid()}")
        storage.put_bytes(own, token.encode())
        if storage.read_bytes(own) != token.encode():
            raise OSError(f"{own}: what was written is not what is read back")

    return StorageCheck(writes=_told(write))


def _use_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        raise RuntimeError(
            f"torch {torch.__version__} finds no GPU that it can use "
            + (f"(built for CUDA {built})" if built else "(built without CUDA)")
        )


def _told(check: Callable[[], object]) -> str:
    """Why a check fails, in one line; empty where it does not."""
    try:
        check()
    except Exception as error:  # broken libraries raise anything; the report is what matters
        text = str(error) or type(error).__name__
        return " ".join(text.split())[:400]
    return ""


def _file_size(path: str) -> int | None:
    return Path(path).stat().st_size if Path(path).is_file() else None


def _default_cache() -> str:
    """As `crane_ray.slides.staging.default_folder`, which needs packages."""
    named = os.environ.get("CRANE_RAY_CACHE")
    return named or str(Path(tempfile.gettempdir()) / f"crane-ray-slides-{os.getuid()}")
