"""Machines of a small network on this one: each has its own address, processes, /tmp/ray and
/dev/shm, so that scripts for many machines run as they are, and a `ray stop` of one reaches no
other Ray. Linux namespaces, made by util-linux and iproute2; they need root.
"""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.ray.helpers import ROOT, finish, wait_for

NETWORK = "10.77.0"
"""Exists only inside the namespaces."""
TOOLS = ("unshare", "nsenter", "setpriv", "ip", "mount", "hostname")
SEPARATE = ("--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc")
JOINED = r"Registering new node\. .*node_address=(\S+)"
INIT = "while :; do sleep 3600; done"
"""Of a host's first process; a shell buries the processes that lost their parents."""
PREPARE = """
set -e
hostname {name}
ip link set lo up
ip address add {ip}/24 dev eth0
ip link set eth0 up
mkdir -p /tmp/ray
mount -t tmpfs -o size=1g tmpfs /tmp/ray
mount -t tmpfs -o size=300m tmpfs /dev/shm
mount --bind {shared} /mnt
"""
"""A host's own address and disks; /mnt is what all hosts share."""


@dataclass(frozen=True)
class Host:
    """A machine of the network; ``pid`` is its first process, seen from outside."""

    name: str
    ip: str
    pid: int
    processes: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, only_network: bool = False
    ) -> "subprocess.Popen[str]":
        """A command on the host, its output captured; it ends with the host.

        With ``only_network`` it has the host's addresses, but sees the processes of all hosts. It
        inherits no settings of Ray: a test before it, in the same process, may have set some (the
        level of Ray's logs, an address) that a machine of its own would know nothing of.
        """
        namespaces = ("--net",) if only_network else ("--net", "--pid", "--mount", "--uts")
        process = subprocess.Popen(
            ["nsenter", f"--target={self.pid}", f"--wd={ROOT}", *namespaces, "--", *words],
            env={**_inherited(), "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(env or {})},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.processes.append(process)
        return process


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def wait_for_nodes(hosts: Sequence[Host], running: "Sequence[subprocess.Popen[str]]") -> None:
    """Returns once all hosts are nodes of the first; a script that ends before is an error."""
    addresses = {host.ip for host in hosts}

    def are_there() -> bool:
        ended = [process for process in running if process.poll() is not None]
        assert not ended, [finish(process) for process in ended]
        return _nodes_of(hosts[0]) == addresses

    wait_for(are_there, f"nodes {addresses}", timeout_s=300)


def _nodes_of(head: Host) -> set[str]:
    """The addresses of the nodes that have come to a head, from what it writes down."""
    logs = Path("/proc", str(head.pid), "root", "tmp", "ray").glob("session_2*/logs/gcs_server.out")
    return {address for log in logs for address in re.findall(JOINED, log.read_text())}


def missing() -> str:
    """Why no hosts can be made here; empty where they can."""
    lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)} (util-linux, iproute2, hostname)"
    links = "ip link add one type veth peer name two && ip link add three type bridge"
    script = f"mount -t tmpfs tmpfs /mnt && {links}"
    probe = ["unshare", *SEPARATE, "bash", "-c", script]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


@contextmanager
def network(shared: Path, count: int) -> Iterator[tuple[Host, ...]]:
    """Hosts on one switch, gone with all of their processes at the end."""
    hosts: list[Host] = []
    with ExitStack() as stack:
        stack.callback(_bury, hosts)
        switch = stack.enter_context(_first_process())
        _within(switch, "ip link add switch type bridge && ip link set switch up")
        for number in range(1, count + 1):
            pid = stack.enter_context(_first_process())
            host = Host(f"node{number}", f"{NETWORK}.{number}", pid)
            port = f"port{number}"
            _within(
                switch,
                f"ip link add {port} type veth peer name eth0 netns {pid} && "
                f"ip link set {port} master switch up",
            )
            made = host.run("bash", "-c", PREPARE.format(name=host.name, ip=host.ip, shared=shared))
            output, _ = made.communicate(timeout=60)
            assert made.returncode == 0, output
            hosts.append(host)
        yield tuple(hosts)


@contextmanager
def _first_process() -> Iterator[int]:
    """The process that namespaces, and all processes in them, live as long as; its id outside."""
    dies_with_us = ["setpriv", "--pdeathsig", "KILL"]  # also where the tests are killed
    parent = subprocess.Popen([*dies_with_us, "unshare", *SEPARATE, "bash", "-c", INIT])
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    try:
        wait_for(lambda: children.read_text().strip() != "", "a namespace's first process")
        child = int(children.read_text())
        ready = Path(f"/proc/{child}/comm")
        wait_for(lambda: ready.read_text().strip() == "bash", "a namespace to be set up")
        yield child
    finally:
        parent.send_signal(signal.SIGKILL)  # --kill-child: the namespace's processes go with it
        parent.wait(timeout=60)


def _bury(hosts: list[Host]) -> None:
    """Takes leave of processes whose hosts are gone."""
    for process in (process for host in hosts for process in host.processes):
        if process.returncode is None:
            process.communicate(timeout=60)


def _within(pid: int, script: str) -> None:
    words = ["nsenter", f"--target={pid}", "--net", "--", "bash", "-ec", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
