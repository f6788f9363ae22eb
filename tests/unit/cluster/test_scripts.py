"""The shell scripts and units: their syntax, and what they do with a `ray` that only says so."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.cluster.files import CLUSTER, ROOT

SCRIPTS = sorted([*CLUSTER.rglob("*.sh"), *CLUSTER.rglob("*.sbatch")])
SBATCH = sorted((CLUSTER / "slurm").glob("*.sbatch"))
UNITS = sorted((CLUSTER / "onprem").glob("*.service"))
RAY = """#!/usr/bin/env bash
echo "ray $*"
echo "token ${RAY_AUTH_MODE:-} ${#RAY_AUTH_TOKEN}"
[[ $1 != symmetric-run || ${RAY_STARTS:-yes} != yes ]] && exit 0
while [[ $1 != -- ]]; do shift; done
"${@:2}"
exit "${RAY_STATUS:-$?}"
"""
"""Says how it was called; symmetric-run runs its command, as on a head, where Ray can start."""
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do echo "srun $1"; shift; done
"$@"
"""
CRANE_RAY = """#!/usr/bin/env bash
echo "crane-ray $*"
exit "${VERB_STATUS:-0}"
"""


def ids(path: Path) -> str:
    return path.name


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a ray, an srun and a crane-ray of our own."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name, text in {"ray": RAY, "srun": SRUN, "crane-ray": CRANE_RAY}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def run(script: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of a script in an environment that holds nothing else."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    done = subprocess.run(
        [str(script), *words], env=env, text=True, capture_output=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


def test_there_are_scripts() -> None:
    assert {path.name for path in SCRIPTS} >= {"head.sh", "worker.sh", "run.sh", "extract.sbatch"}


@pytest.mark.parametrize("script", SCRIPTS, ids=ids)
def test_scripts_are_bash(script: Path) -> None:
    done = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sourced = script.name == "node.sh"
    assert os.access(script, os.X_OK) is not sourced


@pytest.mark.parametrize("script", SCRIPTS, ids=ids)
def test_scripts_pass_shellcheck(script: Path) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    words = ["shellcheck", "--external-sources", str(script)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=ids)
def test_units_pass_systemds_check(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    text = unit.read_text()
    scripts = "/opt/crane-ray/onprem"
    assert scripts in text
    copy = tmp_path / unit.name
    copy.write_text(text.replace(scripts, str(CLUSTER / "onprem")))
    words = ["systemd-analyze", "verify", "--man=no", str(copy)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def settings(folder: Path, **values: str) -> str:
    """A settings file like the shipped one, with other values."""
    lines = (CLUSTER / "onprem" / "cluster.env").read_text().splitlines()
    lines = [line for line in lines if line.split("=")[0].lstrip("#") not in values]
    path = folder / "cluster.env"
    path.write_text("\n".join([*lines, *(f"{name}={value}" for name, value in values.items())]))
    return str(path)


@pytest.fixture
def machine(programs: Path, tmp_path: Path) -> dict[str, str]:
    """Settings of a head on this machine, with a token."""
    (tmp_path / "token").write_text("a token")
    return {
        "CRANE_RAY_HEAD": "127.0.0.1",
        "CRANE_RAY_VENV": str(programs.parent),
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
    }


HEAD, WORKER = CLUSTER / "onprem" / "head.sh", CLUSTER / "onprem" / "worker.sh"


def test_the_head_starts_ray_as_the_settings_say(machine: dict[str, str], tmp_path: Path) -> None:
    file = settings(tmp_path, **machine, CRANE_RAY_NUM_CPUS="3", CRANE_RAY_OBJECT_STORE_MB="100")
    status, output = run(HEAD, "--labels", "rack=a", CRANE_RAY_SETTINGS=file, CRANE_RAY_PORT="7000")
    assert status == 0, output
    assert output.splitlines()[0] == (
        "ray start --head --port 7000 --dashboard-host 0.0.0.0 --dashboard-port 8265 "
        "--node-ip-address 127.0.0.1 --block --num-cpus 3 --object-store-memory 104857600 "
        "--labels rack=a"
    )


def test_without_a_token_the_dashboard_is_the_heads_own(
    machine: dict[str, str], tmp_path: Path
) -> None:
    file = settings(tmp_path, **machine)
    status, output = run(HEAD, CRANE_RAY_SETTINGS=file, RAY_AUTH_MODE="disabled")
    assert status == 0, output
    assert "--dashboard-host 127.0.0.1" in output


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"CRANE_RAY_HEAD": ""}, ["CRANE_RAY_HEAD", "is not set"]),
        ({"CRANE_RAY_VENV": "/no/venv"}, ["/no/venv", "no bin/ray there", "install"]),
        ({"RAY_AUTH_TOKEN_PATH": "/no/token"}, ["/no/token", "get-auth-token --generate"]),
        ({"CRANE_RAY_HEAD": "no.such.host"}, ["no route to", "an address is needed"]),
        ({"CRANE_RAY_HEAD": "127.0.0.1\nsome words"}, ["'some words' is no NAME=VALUE"]),
    ],
    ids=["no head", "no environment", "no token", "a name", "a bad line"],
)
def test_settings_that_cannot_work_are_named(
    changes: dict[str, str], parts: list[str], machine: dict[str, str], tmp_path: Path
) -> None:
    file = settings(tmp_path, **(machine | changes))
    status, output = run(HEAD, CRANE_RAY_SETTINGS=file)
    assert status == 2
    for part in parts:
        assert part in output


def test_missing_settings_are_named() -> None:
    status, output = run(WORKER, CRANE_RAY_SETTINGS="/no/cluster.env")
    assert status == 2
    assert "/no/cluster.env" in output
    assert "cluster/onprem/cluster.env" in output


def test_a_worker_waits_for_its_head_and_gives_up_with_a_reason(
    machine: dict[str, str], tmp_path: Path
) -> None:
    file = settings(tmp_path, **machine, CRANE_RAY_PORT="1")
    status, output = run(WORKER, CRANE_RAY_SETTINGS=file, CRANE_RAY_HEAD_WAIT_S="1")
    assert status == 2
    assert "no head answers at 127.0.0.1:1" in output
    assert "ray start" not in output


def slurm(programs: Path) -> dict[str, str]:
    """What Slurm sets in a job of three nodes."""
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "31234",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "CRANE_RAY_HEAD_IP": "10.0.0.7",
    }


@pytest.mark.parametrize("script", SBATCH, ids=ids)
def test_a_job_runs_its_verb_on_all_of_its_nodes(script: Path, programs: Path) -> None:
    status, output = run(script, "--work", "/shared/some work", **slurm(programs))
    assert status == 0, output
    assert "srun --nodes=3" in output
    assert (
        "ray symmetric-run --address 10.0.0.7:21234 --min-nodes 3 --num-cpus=16 --num-gpus=4 -- "
    ) in output
    assert "token token 64" in output, "a token of the job's own"
    verb = "demo --num-slides 4" if script.stem == "demo" else script.stem
    line = f"crane-ray {verb} --work /shared/some work --address 10.0.0.7:21234"
    assert line in output.splitlines()


@pytest.mark.parametrize("gpus", ["2", "a100:2"])
def test_gpus_of_a_node_are_what_slurm_says(gpus: str, programs: Path) -> None:
    environment = slurm(programs)
    del environment["SLURM_GPUS_ON_NODE"]
    _, output = run(SBATCH[0], **environment, SLURM_GPUS_PER_NODE=gpus)
    assert "--num-gpus=2 " in output
    _, output = run(SBATCH[0], **environment)
    assert "--num-gpus" not in output, "Ray looks for itself"


def test_a_jobs_status_is_that_of_its_verb(programs: Path) -> None:
    failed = run(SBATCH[0], **slurm(programs), VERB_STATUS="3")
    assert failed[0] == 3
    ended_badly = run(SBATCH[0], **slurm(programs), RAY_STATUS="1")
    assert ended_badly[0] == 0, "the verb was done when Ray's end went wrong"
    not_started = run(SBATCH[0], **slurm(programs), RAY_STARTS="no")
    assert not_started[0] == 1
    assert "did not run to its end" in not_started[1]


def test_outside_of_slurm_it_says_how_to_submit() -> None:
    status, output = run(CLUSTER / "slurm" / "run.sh", "extract")
    assert status == 2
    assert "sbatch cluster/slurm/extract.sbatch" in output


@pytest.mark.parametrize("script", SBATCH, ids=ids)
def test_a_job_takes_one_task_a_node_and_whole_nodes(script: Path) -> None:
    lines = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH ")]
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines)
    assert options["ntasks-per-node"] == "1"
    assert "exclusive" in options, "ray stop would end another job's Ray"
    assert options["job-name"] == f"crane-ray-{script.stem}"
    assert ("gpus-per-node" in options) is (script.stem in {"extract", "train", "tune"})
