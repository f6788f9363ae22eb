"""First step of a submitted job: that its node sees the paths of the config.

``python -m crane_ray.cli.job_check paths.json config.yaml && exec python -m crane_ray VERB ...``
"""

import json
import socket
import sys
from pathlib import Path

import yaml
from rich.markup import escape

from crane_ray import storage
from crane_ray.cli.console import console
from crane_ray.cli.main import USAGE_ERROR
from crane_ray.cli.records import speak_json
from crane_ray.runtime.job_paths import JobPaths, problems, use_copies


def check(paths_file: str, config_file: str) -> int:
    """0 where every path is seen, else 2 after a line for each that is not.

    Task sets and spaces that travelled with the job take the place of those not seen here.
    """
    told = JobPaths.model_validate(json.loads(Path(paths_file).read_text(encoding="utf-8")))
    tree = yaml.safe_load(Path(config_file).read_text(encoding="utf-8"))
    if (tree.get("cluster") or {}).get("log_format") == "json":
        speak_json("info")
    lines = problems(told.paths)
    if lines:
        several = f"{len(lines)} paths" if len(lines) > 1 else "a path"
        console.print(
            f"[bold red]error:[/] the cluster (node {escape(socket.gethostname())}) does not see "
            f"{several} of the config:",
            *(f"  {escape(line)}" for line in lines),
            "Nothing was begun. Name places that every node sees under the same path: a shared "
            "filesystem, or a bucket's URI (s3://, gs://).",
            sep="\n",
            style="default",
        )
        return USAGE_ERROR
    if use_copies(tree, told.paths):
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        storage.put_bytes(storage.absolute(config_file), text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(check(*sys.argv[1:3]))
