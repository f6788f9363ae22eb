"""A search before it starts: everything that can be wrong with it is found here. Imports no ray."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import ValidationError

from crane_ray.cohort.cohort import Cohort
from crane_ray.cohort.drawing import CaseFold
from crane_ray.cohort.findings import Finding
from crane_ray.cohort.folds import FoldPlan, draw_folds
from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.splitting import slides_of
from crane_ray.cohort.strata import strata_of_tasks
from crane_ray.cohort.tasks import TaskSet, load_task_set
from crane_ray.config import explain
from crane_ray.errors import ConfigError
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.mil.bags import labels_tensor, make_bags
from crane_ray.runtime.search_jobs import LIVE, SEARCHABLE, TuneJob
from crane_ray.runtime.studies import StudyData, attach_features, load_labels
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.runtime.training import study_findings
from crane_ray.runtime.trials import study_key
from crane_ray.search.domains import Choice
from crane_ray.search.objective import Objective, make_objective
from crane_ray.search.space import Space, apply, parse_space, read_space

FAULTS_SHOWN = 5


@dataclass(frozen=True)
class SearchPlan:
    """What is searched, and on what."""

    task_set: TaskSet
    space: Space
    objective: Objective
    studies: Mapping[str, StudyData]
    """Labels and features by `study_key`, test parts and all: `parts_of` takes those away."""
    splits: Mapping[int, Split]
    """Of the folds that are searched in, as they are in the split files."""
    findings: tuple[Finding, ...]

    def inner_splits(self, fold: int, num_folds: int, seed: int) -> dict[int, Split]:
        """Train and val parts by patient from those of a fold; each case is in one val part."""
        cohort = self._first.cohort.subset([*self.splits[fold].train, *self.splits[fold].val])
        strata = strata_of_tasks(cohort)
        nobody = np.array([], dtype=np.int64)
        return {
            place: slides_of(
                CaseFold(np.concatenate([one.train, one.val]), one.test, nobody), strata, cohort
            )
            for place, one in enumerate(draw_folds(strata, FoldPlan(num_folds, seed=seed)))
        }

    def parts_of(self, splits: Mapping[int, Split]) -> dict[str, StudyData]:
        """The studies with the slides of train and val parts alone: no trial sees others."""
        seen = {slide for split in splits.values() for slide in (*split.train, *split.val)}
        return {
            key: replace(study, cohort=study.cohort.subset(seen))
            for key, study in self.studies.items()
        }

    def check_parts(self, splits: Mapping[int, Split]) -> None:
        """Refuses val parts in which the objective says nothing.

        Raises:
            ConfigError: there is one.
        """
        for study in self.studies.values():
            for fold, split in splits.items():
                bags = make_bags(study.cohort.subset(split.val), study.config.level)
                if not bags:
                    raise ConfigError(
                        f"fold {fold}: its val part has no bag with features and labels, and a "
                        "search goes by val parts; look at crane-ray splits --check"
                    )
                equal = {
                    task.name: np.zeros((len(bags), task.num_classes))
                    for task in self.task_set.tasks
                }
                of_tasks = self.objective.of_tasks(labels_tensor(bags).numpy(), equal)
                if self.objective.combine(0.0, of_tasks) is None:
                    raise ConfigError(
                        f"fold {fold}: {self.objective.words} is undefined in its val part, which "
                        "lacks labels or has one class alone; choose another --metric, or draw "
                        "other splits"
                    )

    @property
    def _first(self) -> StudyData:
        return next(iter(self.studies.values()))


def plan_search(job: TuneJob) -> SearchPlan:
    """Reads space, tables, splits and features of a search, and tries what can be tried.

    Raises:
        ConfigError: something cannot be; faults of the space are listed together.
    """
    task_set = load_task_set(job.task)
    objective = make_objective(job.objective.metric, job.objective.task, task_set.tasks)
    space = _space(job)
    jobs = _configs(job, space, task_set)
    labelled: dict[str, Cohort] = {}
    studies: dict[str, StudyData] = {}
    for one in jobs:
        key = study_key(one.bags)
        if key not in studies:
            labels = labelled.setdefault(one.bags.labels, load_labels(one.bags, task_set))
            studies[key] = attach_features(labels, one.bags)
    splits = _splits(job)
    first = studies[study_key(jobs[0].bags)]
    findings = study_findings(labelled[jobs[0].bags.labels], first, splits)
    return SearchPlan(task_set, space, objective, studies, splits, findings)


def _space(job: TuneJob) -> Space:
    if isinstance(job.space, str):
        space = read_space(job.space, TrainJob, SEARCHABLE)
    else:
        space = parse_space(job.space, TrainJob, SEARCHABLE)
    if job.searcher == "grid":
        spans = [path for path, one in space.domains.items() if not isinstance(one, Choice)]
        if spans:
            raise ConfigError(
                f"--searcher grid: {', '.join(spans)} has no list of values; write "
                f"{spans[0]}: {{choice: [...]}}, or give --searcher optuna"
            )
        if job.search.trials is not None:
            raise ConfigError(
                f"--trials {job.search.trials} with --searcher grid: a grid has {space.size} "
                "trials, one a combination; leave --trials out, or give --searcher random"
            )
    if job.scheduler.name == "pbt":
        fixed = [path for path in space.domains if path not in LIVE]
        if fixed:
            raise ConfigError(
                f"--scheduler pbt: {', '.join(fixed)} cannot change while a network trains; "
                f"settings that can: {', '.join(LIVE)}"
            )
    return space


def _configs(job: TuneJob, space: Space, task_set: TaskSet) -> list[TrainJob]:
    """The config as it is, and such that show all that the space can make of it."""
    tree = job.training_tree()
    configs, faults = [TrainJob.model_validate(tree)], dict[str, None]()
    for values in space.combinations():
        try:
            configs.append(TrainJob.model_validate(apply(tree, values)))
        except ValidationError as error:
            lines = explain(error, TrainJob).removeprefix("config: ").split("\n")
            faults |= dict.fromkeys(line.strip() for line in lines if line.strip())
    for model in {one.model.canonical_json(): one.model for one in configs}.values():
        try:
            with torch.device("meta"):
                build_aggregator(model, 8, task_set.tasks)
        except ConfigError as error:
            faults[str(error)] = None
    if faults:
        told = list(faults)
        more = [f"... and {len(told) - FAULTS_SHOWN} more"] if len(told) > FAULTS_SHOWN else []
        raise ConfigError("\n  ".join(["space:", *told[:FAULTS_SHOWN], *more]))
    return configs


def _splits(job: TuneJob) -> dict[int, Split]:
    """Of the folds asked for; a plain search takes the first where none are named."""
    splits = read_splits(job.splits, job.fold_numbers())
    if job.nested or job.folds is not None:
        return splits
    first = min(splits)
    return {first: splits[first]}
