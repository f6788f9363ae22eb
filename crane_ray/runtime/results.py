"""What folds left behind, gathered: predictions, metrics, and the files of CRANE and CLAM."""

from collections.abc import Mapping, Sequence

from crane_ray import storage
from crane_ray.cohort.label_tables import LabelTable
from crane_ray.cohort.splits import read_splits, split_files
from crane_ray.evaluation.measurements import metrics_rows
from crane_ray.evaluation.predictions import Predictions
from crane_ray.evaluation.published_layout import (
    write_experiment,
    write_fold_results,
    write_split_copy,
    write_summary,
)
from crane_ray.evaluation.summary import evaluate
from crane_ray.runtime.folds import FoldKey, FoldOutcome, FoldWork
from crane_ray.runtime.studies import StudyData
from crane_ray.runtime.study_jobs import TrainJob


def write_results(
    job: TrainJob, work: FoldWork, outcomes: Sequence[FoldOutcome]
) -> list[dict[str, str]]:
    """Writes the results of each run; the rows of its table of test metrics.

    Args:
        job: the run's config.
        work: its folds.
        outcomes: what came of them; failed ones have no predictions.
    """
    rows: list[dict[str, str]] = []
    for seed, folder in work.folders.items():
        folds = [one.fold for one in outcomes if one.seed == seed and not one.failure]
        code = storage.name_of(folder).removesuffix(f"_s{seed}")
        write_experiment(folder, code, job.model_dump(mode="json"))
        predictions = Predictions.concat(
            Predictions.from_parquet(
                storage.join(work.folder(FoldKey(seed, fold)), "predictions.parquet")
            )
            for fold in folds
        )
        if not len(predictions):  # all folds failed, or there is neither a val nor a test part
            continue
        predictions.to_parquet(storage.join(folder, "predictions.parquet"))
        evaluation = evaluate(
            predictions, work.tasks, by=subgroups(work.data, job.by), seed=job.training.seed
        )
        evaluation.write(folder)
        _write_published(job, work, folder, predictions, folds)
        found = metrics_rows(evaluation)
        rows += [{"seed": str(seed), **row} for row in found] if job.seeds > 1 else found
    return rows


def _write_published(
    job: TrainJob, work: FoldWork, folder: str, predictions: Predictions, folds: Sequence[int]
) -> None:
    for fold in folds:
        name = f"splits_{fold}.csv"
        source = storage.join(job.splits, name)
        if storage.exists(source):
            content = storage.read_bytes(source)
        else:  # it is a splits_{i}_bool.csv
            content = split_files({fold: work.splits[fold]}, work.data.cohort)[name].encode()
        write_split_copy(folder, fold, content)
        if len(predictions.select(fold=fold, split="test")):
            write_fold_results(folder, predictions, work.tasks, fold=fold)
    num_folds = len(read_splits(job.splits))
    write_summary(folder, predictions, work.tasks, folds=folds, num_folds=num_folds)


def subgroups(data: StudyData, columns: Sequence[str]) -> dict[str, Mapping[str, str]] | None:
    """For each column the value of each slide and case; None of no columns.

    Raises:
        ConfigError: the table has no such column.
    """
    if not columns:
        return None
    table = data.cohort.table
    found: dict[str, Mapping[str, str]] = {}
    for column in columns:
        LabelTable(data.config.labels, table).require(column, "--by")
        values = table[column].tolist()
        by_case = dict(zip(data.cohort.case_ids, values, strict=True))
        found[column] = {**by_case, **dict(zip(data.cohort.slide_ids, values, strict=True))}
    return found
