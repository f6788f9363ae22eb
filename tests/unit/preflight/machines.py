"""Made-up machines: a sound one, and what differs from it."""

from dataclasses import replace
from typing import Any

from crane_ray.preflight.report import Disk, Gpu, Node, NodeReport, StorageCheck

GB = 10**9
VERSIONS = {"crane-ray": "0.1.0", "ray": "2.60.0", "numpy": "2.4.6", "torch": "2.14.1"}
SOUND = NodeReport(
    host="one",
    python="3.11.7",
    versions=VERSIONS,
    codecs={"OpenSlide": "", "simplejpeg (JPEG)": ""},
    cache=Disk("/tmp/cache", 900 * GB, 500 * GB),
    shm=Disk("/dev/shm", 64 * GB, 60 * GB),
    cores=16,
    storage=StorageCheck(),
    weights={},
)
A100 = Gpu("A100", 80 * GB)


def node(name: str = "two", **differences: Any) -> Node:
    """A node of 16 CPUs whose report differs from the sound one."""
    return Node(name, 16, 0, 20 * GB, replace(SOUND, host=name, **differences))


def gpu_node(**differences: Any) -> Node:
    """A node that offers a GPU and has one."""
    machine = {"gpus": (A100,), "driver": "550.1", **differences}
    return replace(node("gpu", **machine), gpus=1)
