"""A submitted job: its verb, once its node is seen to have the paths of the config.

The verb asks the other nodes, as it does when it is not submitted.

``python -m crane_ray.cli.job_check paths.json config.yaml VERB --config config.yaml``
"""

import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.markup import escape

from crane_ray import storage
from crane_ray.cli.console import console
from crane_ray.cli.main import USAGE_ERROR, call
from crane_ray.cli.records import speak_json
from crane_ray.runtime.job_paths import JobPaths, problems, use_copies
from crane_ray.runtime.landmarks import not_seen


def run(paths_file: str, config_file: str, words: Sequence[str]) -> int:
    """The exit status of the verb, or of the check that it did not pass."""
    told = JobPaths.model_validate(json.loads(Path(paths_file).read_text(encoding="utf-8")))
    tree = yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))
    if (tree.get("cluster") or {}).get("log_format") == "json":
        speak_json("info")
    lines = problems(told.paths)
    if lines:
        said = escape(not_seen(socket.gethostname(), lines))
        console.print(f"[bold red]error:[/] {said}\nNothing was done.", style="default")
        return USAGE_ERROR
    # Task sets and spaces that travelled with the job, in place of those not seen here.
    if use_copies(tree, told.paths):
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        storage.put_bytes(storage.absolute(config_file), text.encode())
    return call(list(words))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3:]))
