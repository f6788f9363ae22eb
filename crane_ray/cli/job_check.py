"""A submitted job: its verb, once the nodes are seen to have the paths of its config.

``python -m crane_ray.cli.job_check paths.json config.yaml VERB --config config.yaml``
"""

import json
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import takewhile
from pathlib import Path

import yaml
from rich.markup import escape

from crane_ray import storage
from crane_ray.cli.console import console
from crane_ray.cli.main import USAGE_ERROR, call
from crane_ray.cli.records import speak_json
from crane_ray.errors import ClusterError
from crane_ray.runtime.job_paths import JobPaths, problems, use_copies
from crane_ray.runtime.jobs import ClusterConfig
from crane_ray.runtime.landmarks import Landmark, landmarks_of


def run(paths_file: str, config_file: str, words: Sequence[str]) -> int:
    """The exit status of the verb, or of the check that it did not pass."""
    told = JobPaths.model_validate(json.loads(Path(paths_file).read_text(encoding="utf-8")))
    tree = yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))
    if (tree.get("cluster") or {}).get("log_format") == "json":
        speak_json("info")
    lines = problems(told.paths)
    if lines:
        _refuse({socket.gethostname(): lines})
        return USAGE_ERROR
    verb = " ".join(takewhile(lambda word: not word.startswith("-"), words))
    landmarks = landmarks_of(verb, tree)
    with ExitStack() as stack:  # the verb takes over the connection
        if landmarks and _look(landmarks, stack):
            return USAGE_ERROR
        # Task sets and spaces that travelled with the job, in place of those not seen here.
        if use_copies(tree, told.paths):
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
            storage.put_bytes(storage.absolute(config_file), text.encode())
        return call(list(words))


def _look(landmarks: Sequence[Landmark], stack: ExitStack) -> bool:
    """True where a node does not see what this one sees; a look that fails stops nobody."""
    from crane_ray.runtime.cluster import connected
    from crane_ray.runtime.each_node import look_on_each_node

    try:
        stack.enter_context(connected(ClusterConfig()))
    except ClusterError:
        return False  # as the verb will say
    looked = look_on_each_node(landmarks)
    for name, problem in looked.silent.items():
        console.print(
            f"note: node {escape(name)} did not say whether it sees the paths of the config "
            f"({escape(problem)}); crane-ray doctor looks at all nodes"
        )
    if looked.unseen:
        _refuse(looked.unseen)
    return bool(looked.unseen)


def _refuse(unseen: Mapping[str, Sequence[str]]) -> None:
    for name, lines in unseen.items():
        several = f"{len(lines)} paths" if len(lines) > 1 else "a path"
        console.print(
            f"[bold red]error:[/] the cluster (node {escape(name)}) does not see {several} of the "
            "config:",
            *(f"  {escape(line)}" for line in lines),
            sep="\n",
            style="default",
        )
    console.print(
        "Nothing was begun. Name places that every node sees under the same path: a shared "
        "filesystem, or a bucket's URI (s3://, gs://)."
    )


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3:]))
