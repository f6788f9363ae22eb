"""Searches: trials on a cluster, then the leaderboard, the best configs and the page.

::

    RESULTS/EXP_CODE_search/
      config.yaml  manifest.json
      trials/{trial_id}.json            while they go
      splits/                           of inner folds
      leaderboard.parquet  leaderboard.csv  search.html
      best.yaml  best_2.yaml ...        for crane-ray train --config
      tune/                             Ray Tune's own
      fold_{i}/                         of a nested search: each fold's own, as above
      outer_{i}_s{seed}/                and the run of its best config
      predictions.parquet  metrics.csv  metrics.json
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import yaml

from crane_ray import storage
from crane_ray.errors import ConfigError, StoreError
from crane_ray.evaluation.measurements import metrics_rows
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.summary import evaluate
from crane_ray.manifest import RunManifest, concluded
from crane_ray.runtime.cluster import connected
from crane_ray.runtime.landmarks import landmarks_of
from crane_ray.runtime.measured_studies import measured_search
from crane_ray.runtime.results import subgroups
from crane_ray.runtime.search_course import SearchReporter, SearchSummary
from crane_ray.runtime.search_jobs import TuneJob
from crane_ray.runtime.search_plan import plan_search
from crane_ray.runtime.searches import Search
from crane_ray.runtime.training import run_training

MAY_DIFFER = ("resume", "overwrite", "cluster", "workers", "tracking", "keep")
"""Settings that a search may go on with others of."""
JOB_FOLDER = "/_ray_pkg_"
"""In the paths of files that a submitted job brought along."""


def run_search(job: TuneJob, reporter: SearchReporter | None = None) -> SearchSummary:
    """Searches the settings of a training; see the module for what it leaves.

    A trial that cannot be trained or whose worker is lost is recorded, and the others go on.

    Raises:
        ConfigError: space, table, splits, features or cluster cannot be used together, or there is
            a search of that name already.
        StoreError: a search that should go on was another one.
        StorageError: results cannot be written.
    """
    begun = time.perf_counter()
    reporter, manifest = measured_search(reporter), RunManifest.start("tune", job)
    plan = plan_search(job)
    for finding in plan.findings:
        reporter.note(f"{finding.severity}: {finding.message}")
    code = job.exp_code or plan.task_set.name
    summary = SearchSummary(storage.join(job.results, f"{code}_search"), findings=plan.findings)
    _prepare(job, summary.folder)
    with (
        manifest.told(),
        connected(job.cluster, landmarks_of("tune", job)) as nodes,
        _recorded(manifest, summary),
    ):
        search = Search(job, plan, nodes, reporter)
        if job.nested:
            _run_nested(search, summary)
        elif job.objective.inner_folds is None:
            board = search.run(summary.folder, plan.splits, job.splits)
            summary.leaderboards[summary.folder] = board
        else:
            inner = search.parts(min(plan.splits))
            summary.leaderboards[summary.folder] = search.run(summary.folder, inner, summary.folder)
    summary.seconds = round(time.perf_counter() - begun, 1)
    return summary


def _run_nested(search: Search, summary: SearchSummary) -> None:
    """A search in each fold, its best config trained on the fold, and the test parts judged."""
    job, plan, found = search.job, search.plan, []
    for fold in plan.splits:
        folder = storage.join(summary.folder, f"fold_{fold}")
        board = search.run(folder, search.parts(fold), folder, title=f"fold {fold}: ")
        summary.leaderboards[folder] = board
        if board.best is None:
            search.reporter.note(f"warning: fold {fold}: no trial could be trained")
            continue
        outer = search.training(board.best, job.splits, [fold]).model_copy(
            update={
                "results": summary.folder,
                "exp_code": f"outer_{fold}",
                "resume": True,
                "cluster": job.cluster,
            }
        )
        trained = run_training(outer, search.reporter.training())
        found += [
            Predictions.from_parquet(storage.join(place, "predictions.parquet"))
            for place in trained.folders
            if not trained.failures
        ]
    judged = Predictions.concat(found)
    if len(judged):
        by = subgroups(next(iter(plan.studies.values())), job.by)
        evaluation = evaluate(judged, plan.task_set.tasks, by=by, seed=job.search.seed)
        judged.to_parquet(storage.join(summary.folder, "predictions.parquet"))
        evaluation.write(summary.folder)
        summary.rows = metrics_rows(evaluation)


def _prepare(job: TuneJob, folder: str) -> None:
    """Makes the search's folder ready.

    Raises:
        ConfigError: there is one already.
        StoreError: it is another one's, and this one should go on with it.
    """
    path = storage.join(folder, "config.yaml")
    if job.overwrite:
        storage.remove_tree(folder)
    elif storage.exists(path):
        if not job.resume:
            raise ConfigError(
                f"results {folder}: there is a search already; --resume goes on with it, "
                "--overwrite begins it anew, --exp-code gives this one another name"
            )
        before = TuneJob.model_validate(yaml.safe_load(storage.read_bytes(path)))
        begun, now = before.model_dump(mode="json"), job.model_dump(mode="json")
        told = [
            name
            for name in now
            if name not in MAY_DIFFER and not _are_same(name, begun[name], now[name])
        ]
        if told:
            raise StoreError(
                f"results {folder}: the search there began with another {', '.join(told)}; "
                "--resume goes on with equal ones alone: give another --exp-code, or --overwrite "
                "to begin anew"
            )
    written = job.model_copy(update={"resume": False, "overwrite": False})
    storage.put_bytes(path, written.to_yaml().encode())


def _are_same(name: str, before: Any, now: Any) -> bool:
    """Equal values, or one file's copies that travelled with jobs into folders of their own."""
    if before == now:
        return True
    if name not in {"task", "space"} or not (isinstance(before, str) and isinstance(now, str)):
        return False
    plain = {storage.name_of(path).removeprefix(f"{name}-") for path in (before, now)}
    return len(plain) == 1 and any(JOB_FOLDER in path for path in (before, now))


@contextmanager
def _recorded(manifest: RunManifest, summary: SearchSummary) -> Iterator[None]:
    """A manifest.json, finished however the search ends."""

    def conclude(outcome: str, reason: str) -> None:
        trials = [trial for board in summary.leaderboards.values() for trial in board.trials]
        failed = [trial for trial in trials if trial.status == "failed"]
        finished = manifest.finish(
            "failures" if outcome == "done" and failed else outcome,
            error=reason,
            counts={"trials": len(trials), "failed": len(failed)},
            facts={
                "findings": [asdict(finding) for finding in summary.findings],
                "failures": [f"trial {trial.number}: {trial.error}" for trial in failed],
            },
        )
        finished.save(storage.join(summary.folder, "manifest.json"))

    with concluded(conclude):
        yield
