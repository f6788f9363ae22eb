"""``crane-ray tune``."""

from typing import Any

import click

from crane_ray.cli.main import INTERRUPTED
from crane_ray.cli.options import config_options, load_job
from crane_ray.runtime.search_jobs import TuneJob

EPILOG = """\b
Examples:
  crane-ray tune --space cardiac-mtl --task cardiac-mtl --labels labels.csv \\
      --splits splits/cardiac-mtl_100 --features work/features/uni_v1
  crane-ray tune --space my_space.yaml --trials 50 --scheduler asha --inner-folds 3 ...
  crane-ray tune --nested --inner-folds 3 --folds 0-4 ...
  crane-ray tune ... --resume
  crane-ray train --config results/cardiac-mtl_search/best.yaml

\b
A space is a YAML file of settings and distributions:
  model.dropout: {uniform: [0, 0.5]}
  optim.lr: {loguniform: [1e-5, 1e-3]}
  model.name: {choice: [crane, clam_sb]}
  bags.level: {choice: [slide, case]}
(uniform, loguniform, quniform [low, high, step], randint and lograndint with both ends, choice)

\b
Results in RESULTS/EXP_CODE_search: leaderboard.csv, best.yaml for crane-ray train --config,
search.html. Trials are judged by val parts; test parts are never read."""


@click.command(name="tune", epilog=EPILOG)
@config_options(TuneJob, leave_out=["--grouped-folds", "--seeds", "--report"])
def command(**options: Any) -> int:
    """Search the settings of a training.

    Takes all that crane-ray train takes, and a search space on top of it. Trials run at once as
    far as the cluster goes.
    """
    job = load_job(TuneJob, options)
    from crane_ray.cli.console import console
    from crane_ray.cli.tuning_console import make_search_reporter, print_search
    from crane_ray.runtime.tuning import run_search

    try:
        summary = run_search(job, make_search_reporter())
    except KeyboardInterrupt:
        console.print("[yellow]stopped; the same command with --resume goes on.[/]")
        return INTERRUPTED
    print_search(summary)
    return int(not summary.has_best)
