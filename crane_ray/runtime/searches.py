"""One search on a cluster: its trials, then the leaderboard, the best configs and the page."""

from collections.abc import Mapping, Sequence
from typing import Any

from crane_ray import storage
from crane_ray.cohort.findings import counted
from crane_ray.cohort.splits import Split, write_splits
from crane_ray.errors import ConfigError
from crane_ray.runtime.pools import Node
from crane_ray.runtime.search_course import SearchReporter
from crane_ray.runtime.search_jobs import TuneJob
from crane_ray.runtime.search_plan import SearchPlan
from crane_ray.runtime.shares import plan_share, too_small
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.runtime.trials import TrialWork
from crane_ray.runtime.tune_runs import run_tune
from crane_ray.search.book import TrialBook
from crane_ray.search.importance import measure_importance
from crane_ray.search.leaderboard import Leaderboard, Trial
from crane_ray.search.page import search_page
from crane_ray.search.space import apply


class Search:
    """What the searches of a job share."""

    def __init__(
        self, job: TuneJob, plan: SearchPlan, nodes: Sequence[Node], reporter: SearchReporter
    ) -> None:
        self.job, self.plan, self.reporter = job, plan, reporter
        num_trials = plan.space.size if job.searcher == "grid" else job.num_trials
        self._num_trials = num_trials or job.num_trials
        at_once = min(self._num_trials, job.search.max_concurrent or self._num_trials)
        self._share = plan_share(job, nodes, at_once)
        problem = too_small(job, nodes, self._share)
        if problem:
            raise ConfigError(problem)

    def parts(self, fold: int) -> dict[int, Split]:
        """The inner folds of a fold."""
        num_folds = self.job.objective.inner_folds
        assert num_folds is not None
        return self.plan.inner_splits(fold, num_folds, self.job.search.seed)

    def run(
        self, folder: str, splits: Mapping[int, Split], splits_folder: str, title: str = ""
    ) -> Leaderboard:
        """One search, judged by the val parts of splits; its leaderboard, which is written.

        Args:
            folder: where it is written.
            splits: to train and judge each trial on.
            splits_folder: where they lie, or the search's own folder, in which they are written.
            title: for people.
        """
        job, plan = self.job, self.plan
        plan.check_parts(splits)
        inner = splits_folder == folder
        if inner:
            splits_folder = storage.join(folder, "splits")
            write_splits(splits_folder, splits, next(iter(plan.studies.values())).cohort)
        book = TrialBook(folder, self.reporter.trial)
        names = ", ".join(map(str, splits))
        folds = f"the mean over {len(splits)} inner folds" if inner else f"fold {names}"
        self.reporter.begin(
            f"{title}searching {counted(len(plan.space.domains), 'setting')} by "
            f"{plan.objective.words}, {folds}",
            self._num_trials,
            plan.objective.words,
        )
        try:
            run_tune(job, plan.space, self._trial_work(folder, splits), book)
        finally:
            self.reporter.end()
            board = self._leaderboard(book)
            board.write(folder)
        self._write_best(board, folder, splits_folder, None if inner else list(splits))
        self._write_page(board, folder, folds)
        return board

    def _trial_work(self, folder: str, splits: Mapping[int, Split]) -> TrialWork:
        """What trials are given: nothing of test parts."""
        exchanges = self.job.scheduler.name == "pbt"
        return TrialWork(
            tree=self.job.training_tree(),
            studies=self.plan.parts_of(splits),
            splits={fold: Split(one.train, one.val, ()) for fold, one in splits.items()},
            objective=self.plan.objective,
            folder=folder,
            share=self._share,
            checkpoint_every=self.job.scheduler.interval_epochs if exchanges else None,
        )

    def training(self, trial: Trial, splits: str, folds: Sequence[int] | None) -> TrainJob:
        """The training that a trial was, on some folds."""
        code = self.job.exp_code or self.plan.task_set.name
        settings: dict[str, Any] = {
            "splits": splits,
            "folds": None if folds is None else ",".join(map(str, folds)),
            "exp_code": f"{code}_best",
            "resume": False,
            "overwrite": False,
        }
        tree = apply(self.job.training_tree(), {**trial.params, **settings})
        return TrainJob.model_validate(tree)

    def _leaderboard(self, book: TrialBook) -> Leaderboard:
        plan, trials = self.plan, book.trials()
        own = self.job.baseline(plan.space)
        baseline = [it.trial_id for it in trials if own is not None and dict(it.params) == own]
        objective = plan.objective
        return Leaderboard(
            objective.words, objective.mode, trials, baseline[0] if baseline else None
        )

    def _write_best(
        self, board: Leaderboard, folder: str, splits: str, folds: Sequence[int] | None
    ) -> None:
        note = "crane-ray train --config repeats it"
        if self.job.scheduler.name == "pbt":
            note = "its last settings; it had others before, so training anew does not repeat it"
        best = [trial for trial in board.ranked() if trial.score is not None][: self.job.keep]
        for rank, trial in enumerate(best, start=1):
            name = "best.yaml" if rank == 1 else f"best_{rank}.yaml"
            text = self.training(trial, splits, folds).to_yaml()
            head = (
                f"# Trial {trial.number} ({trial.trial_id}): {board.metric} {trial.value}\n"
                f"# {note}; give --splits and --folds for other ones.\n"
            )
            storage.put_bytes(storage.join(folder, name), (head + text).encode())

    def _write_page(self, board: Leaderboard, folder: str, folds: str) -> None:
        job = self.job
        facts = {
            "labels": job.bags.labels,
            "features": ", ".join(
                str(study.config.features or study.config.sources)
                for study in self.plan.studies.values()
            ),
            "judged by": f"{board.metric}, {folds}; test parts were not read",
            "searcher": job.searcher,
            "scheduler": job.scheduler.name,
            "splits": job.splits,
        }
        title = f"Search: {job.exp_code or self.plan.task_set.name}"
        text = search_page(board, title=title, facts=facts, importance=measure_importance(board))
        storage.put_bytes(storage.join(folder, "search.html"), text.encode())
