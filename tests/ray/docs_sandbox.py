"""A directory in which the blocks of a page are really run, and all that differs from a reader's.

What a block says is run word for word but for `NAMES`, `SMALLER` and `ADDED`; what is not run is
in `EXCUSED`.
"""

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import urllib.request
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crane_ray.cli.main import call
from tests.page_blocks import Block, Call, calls_of, file_of, substituted
from tests.ray.helpers import free_ports

NAMES = {
    "/data/": "{root}/data/",
    "/shared/": "{root}/shared/",
    "/nvme/": "{root}/nvme/",
    "http://HEAD:8265": "{dashboard}",
    "http://head:8265": "{dashboard}",
    "resnet50_trunc": "crane_test_plugins.resnet50_trunc",
    "uni_v1": "crane_test_plugins.uni_v1",
    "conch_v1": "crane_test_plugins.conch_v1",
    "imagenet": "random",
    "A-17": "slide_0000",
    "JOB": "{job}",
    "python": sys.executable,
}
"""Names that a page gives as an example, and what has their place. Encoders are small networks
with random weights and the lengths of the real ones; a head's python is that of its image."""

FROM_NOTHING = {
    "README.md": ("work", "splits", "results"),
    "docs/quickstart.md": ("work", "splits", "results"),
    "docs/from-clam.md": ("work", "splits", "results/clam_s1", "heatmap.yaml"),
    "docs/from-crane.md": ("work", "splits", "results/cardiac-mtl_s1", "results/cardiac-grade_s1"),
    "docs/from-trident.md": ("work", "results/kidney_s1"),
    "docs/training.md": ("splits",),
    "docs/slides-to-features.md": ("work",),
    "docs/extending.md": ("work",),
}
"""What a page makes itself; readers of the others have it."""

SMALLER = {
    ("train", "--max-epochs"): "2",
    ("tune", "--max-epochs"): "2",
    ("tune", "--trials"): "2",
    ("splits", "-k"): "3",
    ("demo", "--num-slides"): "2",
}
"""Options of a verb that are given, or changed where a page gives a larger value."""

ADDED = {
    "patch": ("--preset", "bwh_biopsy"),
    "extract": ("--weights", "random"),
    "assess --encoder": ("--weights", "random", "--preset", "bwh_biopsy"),
    "tune": ("--metric", "loss"),
    "view": ("--port", "{port}"),
    "splits --method clam": ("--val-frac", "0.25", "--test-frac", "0.25"),
    "splits --method crane": ("--val-frac", "0.25", "--test-frac", "0.25"),
}
"""Options that are given where a page does not: of a verb, or of a verb with some option.
A tenth of four patients is nobody, and a val part of these has one class alone."""

EXCUSED = {
    "pip install": "installs; .ci/run does it in a fresh environment",
    "ssh": "needs another host",
    "ray start": "starts a cluster; tests/ray/test_observability.py looks at a node's metrics",
    "curl http://HEAD:8080/metrics": "tests/ray/test_observability.py does it",
    "crane-ray extract --work work --log-format json >": "tests/ray/test_observability.py does it",
    "jq": "tests/ray/test_observability.py reads such lines",
    "cat /tmp/ray/session_latest": "tests/ray/test_observability.py reads such files",
    "tests/check.sh": "has this test in it",
    "python -m pytest": "has this test in it, or what it would disturb",
    "CRANE_SOAK_S=600 python -m pytest": "takes ten minutes",
    "python -m tests.benchmarks": "takes half an hour",
    "crane-ray patch --slides s3://BUCKET": "tests/ray/test_object_storage.py does it in a bucket",
    "crane-ray extract --work s3://BUCKET": "tests/ray/test_object_storage.py does it in a bucket",
    "cluster/aws/README.md": "needs AWS; tests/unit/cluster/test_launcher.py",
    "cluster/docker/README.md": "needs Docker; tests/unit/cluster/test_docker.py",
    "cluster/gcp/README.md": "needs Google Cloud; tests/unit/cluster/test_launcher.py",
    "cluster/kuberay/README.md": "needs Kubernetes; tests/unit/cluster/test_kuberay.py",
    "cluster/monitoring/README.md": "needs Grafana; tests/unit/cluster/test_monitoring.py",
    "cluster/onprem/README.md": "needs root on several hosts; tests/ray/test_cluster_files.py",
    "cluster/slurm/README.md": "needs Slurm; tests/ray/test_cluster_files.py",
}
"""Beginnings of commands, and pages, that are not run here: why, and what is tested instead."""

LANGUAGES = {"": "tables and output to look at", "text": "what a command prints"}
"""Blocks that ask for nothing."""

JOB_ID = re.compile(r"\b[a-z]+-\d{4}-\d{4}-[0-9a-f]{4}\b")
"""Names that submitted jobs get."""


def excuse(one: Call) -> str | None:
    """The entry of `EXCUSED` that a command falls under."""
    line = " ".join((*one.environment, *one.words))
    for entry in EXCUSED:
        if entry == one.block.page or line.startswith(entry):
            return entry
    return None


@dataclass
class Sandbox:
    """One page's directory, and what was run in it."""

    root: Path
    dashboard: str = ""
    last_job: str = ""
    ran: list[str] = field(default_factory=list)

    def run(self, block: Block) -> None:
        """Does what a block asks for; any other outcome than success is an error."""
        if block.language == "bash":
            for one in calls_of(block):
                if excuse(one) is None:
                    self.run_call(one)
        elif block.language in {"python", "yaml"}:
            name = file_of(block)
            if name is not None:
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                (self.root / name).write_text(block.text)
            else:
                exec(compile(block.text, block.name, "exec"), {"__name__": block.name})
        else:
            assert block.language in LANGUAGES, f"{block.name}: in {block.language}: runs nothing"

    def run_call(self, one: Call) -> None:
        """One command, in this process where it is `crane-ray`."""
        one = self.here(one)
        self.ran.append(one.line)
        with environment(one.environment, keep=one.words == ("export",)):
            if one.words[0] == "crane-ray":
                status, output = run_here(list(one.words[1:]))
                found = JOB_ID.findall(output)
                self.last_job = found[0] if found else self.last_job
            elif one.words == ("export",):
                return
            else:
                status, output = run_program(one.words)
        assert status == 0, f"{one.block.name}: {one.line}\nstatus {status}\n{output}"

    def here(self, one: Call) -> Call:
        """A command with the sandbox's names and sizes."""
        values = {"root": self.root, "dashboard": self.dashboard, "job": self.last_job}
        table = {name: real.format(**values) for name, real in NAMES.items()}
        one = substituted(one, table)
        return Call(one.block, tuple(smaller(one.words)), one.environment)


def smaller(words: Sequence[str]) -> list[str]:
    """A command with the options of `SMALLER` and `ADDED`."""
    words = list(words)
    verbs = [word for word in words[1:3] if word != "submit"]
    if words[0] != "crane-ray" or "--check" in words:
        return words
    for (verb, option), most in SMALLER.items():
        if verbs[:1] == [verb]:
            if option not in words:
                words += [option, most]
            elif int(words[at := words.index(option) + 1]) > int(most):
                words[at] = most
    for when, options in ADDED.items():
        verb, *with_option = when.split()
        if verbs[:1] == [verb] and set(with_option) <= set(words):
            for option, value in zip(options[::2], options[1::2], strict=True):
                if option not in words:
                    words += [option, value.format(port=free_ports(1)[0])]
    return words


@contextlib.contextmanager
def environment(assignments: Sequence[str], *, keep: bool) -> Iterator[None]:
    """Assignments of a command, for it alone or to stay."""
    before = dict(os.environ)
    for text in assignments:
        name, _, value = text.partition("=")
        os.environ[name] = os.path.expandvars(value.replace("$PWD", str(Path.cwd())))
    try:
        yield
    finally:
        if not keep:
            os.environ.clear()
            os.environ.update(before)


def run_here(words: list[str]) -> tuple[int, str]:
    """Exit status and output of ``crane-ray WORDS`` in this process.

    A viewer is looked at once, then stopped as with Ctrl-C.
    """
    said, stop = io.StringIO(), threading.Event()
    visitor = threading.Thread(target=_visit, args=(said, stop))
    if words[0] == "view":
        visitor.start()
    try:
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(),
        ):
            # Of libraries that Ray's client of jobs uses; a command does not show them.
            warnings.simplefilter("ignore", DeprecationWarning)
            status = call(words)
    finally:
        stop.set()
        if visitor.is_alive():
            visitor.join()
    if words[0] == "view" and "seen" not in said.getvalue():
        status = 1
    return status, said.getvalue()


def _visit(said: io.StringIO, stop: threading.Event) -> None:
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    while not stop.wait(0.1):
        found = re.search(r"viewer: (http\S+)[\s\S]*Ctrl-C", said.getvalue())
        if found:
            try:
                with browser.open(found[1]) as answer:
                    said.write("seen" if answer.status == 200 else str(answer.status))
            except OSError as error:
                said.write(f"{found[1]}: {error}")
            if not stop.is_set():
                os.kill(os.getpid(), signal.SIGINT)
            return


def run_program(words: Sequence[str]) -> tuple[int, str]:
    """Exit status and output of another program; Python's are those of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        words, text=True, capture_output=True, check=False, env={**os.environ, "PATH": path},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def words_of(line: str) -> tuple[str, ...]:
    """A line of crane-ray's verb as a command."""
    return ("crane-ray", *shlex.split(line))


def in_small(config: str, root: Path) -> str:
    """A shipped config with the sandbox's paths and encoders."""
    for name in ("resnet50_trunc", "imagenet"):
        config = config.replace(f": {name}", f": {NAMES[name]}")
    return config.replace("/data/", f"{root}/data/")
