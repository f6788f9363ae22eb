"""The on-premises scripts and the Slurm job as they are shipped, on machines of a small network."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crane_ray.slides.workspace import Workspace
from crane_ray.testing.cohorts import make_cohort
from tests.ray.helpers import ROOT, finish
from tests.ray.hosts import Host, missing, network, wait_for_nodes

MISSING = missing()
pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(bool(MISSING), reason=f"no network of hosts here: {MISSING}"),
]

NUM_HOSTS, NUM_SLIDES = 3, 2
VENV = Path(sys.executable).parent.parent
TOKEN = "0123456789abcdef0123456789abcdef"
SETTINGS = {
    "CRANE_RAY_HEAD": "10.77.0.1",
    "CRANE_RAY_VENV": str(VENV),
    "RAY_AUTH_TOKEN_PATH": "/mnt/auth_token",
    "CRANE_RAY_NUM_CPUS": "1",
    "CRANE_RAY_NUM_GPUS": "0",
    "CRANE_RAY_OBJECT_STORE_MB": "100",
}
SRUN = """#!/usr/bin/env bash
# Stands in for Slurm's: the command on each node of the job at once, and the worst exit status.
while [[ $1 == --* ]]; do shift; done
for pid in $TEST_HOSTS; do
  nsenter --target="$pid" --wd="$PWD" --net --pid --mount --uts -- "$@" &
done
status=0
for task in $(jobs -p); do
  wait "$task" || status=$?
done
exit "$status"
"""
QUIET = "--include-log-monitor=false"
"""A process less on each node."""
SERVICE = 'echo $$ >/tmp/ray/service.pid; exec "cluster/onprem/$0" "$@"'
"""A script in the foreground, as systemd runs it."""
STOP = """
kill -TERM "$(</tmp/ray/service.pid)"
for ((tries = 0; tries < 1200; tries++)); do
  left=$(ps -e -o stat=,args= | grep -E 'raylet|ray::|gcs_server' | grep -v -e '^Z' -e grep)
  [[ -n $left ]] || exit 0
  sleep 0.1
done
echo "$left"
exit 1
"""
PATCH = ("--slides", "/mnt/cohort/slides", "--preset", "bwh_biopsy", "--no-pictures")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all hosts see as /mnt: slides, settings and a token."""
    folder = tmp_path_factory.mktemp("shared")
    make_cohort(folder / "cohort", num_slides=NUM_SLIDES, size_px=(1536, 1024))
    (folder / "auth_token").write_text(TOKEN)
    shipped = (ROOT / "cluster" / "onprem" / "cluster.env").read_text().splitlines()
    kept = [line for line in shipped if line.split("=")[0].lstrip("#") not in SETTINGS]
    changed = [f"{name}={value}" for name, value in SETTINGS.items()]
    assert len(kept) == len(shipped) - len(SETTINGS), "each setting is in the shipped file"
    (folder / "cluster.env").write_text("\n".join([*kept, *changed]))
    return folder


@pytest.fixture
def hosts(shared: Path) -> Iterator[tuple[Host, ...]]:
    with network(shared, NUM_HOSTS) as made:
        yield made


def test_on_premises_scripts_make_a_cluster_that_patches(
    hosts: tuple[Host, ...], shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A Ray that a test held before leaves this in the environment, and logs are what is read here.
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "fatal")
    head, *workers = hosts
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/mnt/auth_token"}
    settings = {"CRANE_RAY_SETTINGS": "/mnt/cluster.env"}
    scripts = [(host, "worker.sh") for host in workers] + [(head, "head.sh")]
    running = [host.run("bash", "-c", SERVICE, name, QUIET, env=settings) for host, name in scripts]
    wait_for_nodes(hosts, running)
    patch = ["-m", "crane_ray", "patch", *PATCH, "--work", "/mnt/onprem"]
    words = [*patch, "--address", f"{head.ip}:6379"]
    status, output = finish(workers[0].run(sys.executable, *words, env=token))
    assert status == 0, output
    assert [process.poll() for process in running] == [None] * NUM_HOSTS
    status, output = finish(workers[0].run("bash", "-c", STOP))
    assert (status, output) == (0, ""), "a node that is stopped leaves no process behind"
    assert len(Workspace(str(shared / "onprem")).read_slides()) == NUM_SLIDES


def test_a_slurm_job_runs_a_verb_on_all_of_its_nodes(
    hosts: tuple[Host, ...], shared: Path, tmp_path: Path
) -> None:
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    nodes = hosts[:2]
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "CRANE_RAY_VENV": str(VENV),
        "CRANE_RAY_START_OPTIONS": f"--object-store-memory=100000000 {QUIET}",
        "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
        "SLURM_JOB_ID": "4242",
        "SLURM_JOB_NUM_NODES": str(len(nodes)),
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "TEST_HOSTS": " ".join(str(host.pid) for host in nodes),
    }
    script = str(ROOT / "cluster" / "slurm" / "patch.sbatch")
    words = [*PATCH, "--work", "/mnt/slurm"]
    # As a batch script does, it runs on the job's first node; srun takes it to all of them.
    status, output = finish(nodes[0].run(script, *words, env=environment, only_network=True))
    assert status == 0, output
    assert "On worker node. Connecting to Ray cluster at 10.77.0.1:24242" in output
    assert len(Workspace(str(shared / "slurm")).read_slides()) == NUM_SLIDES
