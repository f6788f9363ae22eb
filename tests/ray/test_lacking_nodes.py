"""A node that lacks what the others have: doctor tells what, and no run begins."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crane_ray.testing.cohorts import make_cohort
from tests.ray.helpers import ROOT, finish
from tests.ray.hosts import Host, missing, network, wait_for_nodes

MISSING = missing()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(bool(MISSING), reason=f"no network of hosts here: {MISSING}"),
]

START = [
    sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
    "--object-store-memory=100000000", "--include-log-monitor=false",
]  # fmt: skip
OPEN = {"RAY_AUTH_MODE": "disabled"}
"""A token that an embedded Ray left in the home is not for this cluster."""
DISK = "/media"
"""Of each host's own here; what the head has on it, the other host has not."""
HEADS = f"""
mount -t tmpfs -o size=200m tmpfs {DISK}
cp -r /mnt/cohort {DISK}
head -c 300M /dev/zero >/tmp/ray/weights.pth
"""
LACKING = f"""
mount -o remount,size=40m /dev/shm
mount -t tmpfs -o ro tmpfs {DISK}
"""


@pytest.fixture
def head(tmp_path: Path) -> Iterator[Host]:
    """The head of a cluster, whose other node lacks its disk, a library and room in /dev/shm."""
    make_cohort(tmp_path / "cohort", num_slides=1, size_px=(768, 512))
    (tmp_path / "broken").mkdir()
    text = "raise ImportError('libjpeg.so.62: cannot open shared object file')"
    (tmp_path / "broken" / "simplejpeg.py").write_text(text)
    with network(tmp_path, 2) as (first, other):
        for host, script in ((first, HEADS), (other, LACKING)):
            assert finish(host.run("bash", "-ec", script)) == (0, "")
        own = ["--head", "--port=6379", "--dashboard-host=0.0.0.0", f"--node-ip-address={first.ip}"]
        joins = [f"--address={first.ip}:6379", f"--node-ip-address={other.ip}"]
        running = [first.run(*START, *own, env=OPEN)]
        wait_for_nodes([first], running)
        running.append(other.run(*START, *joins, env={**OPEN, "PYTHONPATH": f"/mnt/broken:{ROOT}"}))
        wait_for_nodes([first, other], running)
        yield first


def test_what_a_node_lacks_is_found_before_anything_begins(head: Host) -> None:
    crane_ray = [sys.executable, "-m", "crane_ray"]
    words = [
        "doctor", "--address", f"{head.ip}:6379", "--work", f"{DISK}/work", "--no-measure",
        "--encoder", "resnet50_trunc", "--weights", "/tmp/ray/weights.pth",
        "--cache-folder", f"{DISK}/cache",
    ]  # fmt: skip
    status, output = finish(head.run(*crane_ray, *words, env=OPEN))
    assert status == 1, output
    findings = {
        line.partition(": ")[2] for line in output.splitlines() if "node2 (10.77.0.2): " in line
    }
    assert findings == {"storage", "simplejpeg (JPEG)", "/dev/shm", "cache disk", "weights"}, output
    assert output.count("  fix: ") == output.count("  found: ")
    assert "mount the same shared filesystem there" in output
    assert "libjpeg.so.62" in output

    slides = f"{DISK}/cohort/slides"
    words = ["patch", "--slides", slides, "--work", f"{DISK}/work", "--address"]
    for command in (
        [*crane_ray, *words, f"{head.ip}:6379"],
        [*crane_ray, "submit", *words, f"http://{head.ip}:8265"],
    ):
        status, output = finish(head.run(*command, env=OPEN))
        assert status == 2, output
        assert "node node2 (10.77.0.2) does not see 2 paths of the config" in output
        assert f"slides.source {slides}: {slides} is not there" in output
        assert f"work {DISK}/work: " in output
        work = Path(f"/proc/{head.pid}/root{DISK}/work")
        assert not list(work.glob("*/*.h5")), "no slide was begun"
        assert all('"outcome": "error"' in it.read_text() for it in work.glob("manifests/*.json"))
