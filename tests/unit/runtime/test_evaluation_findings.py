"""What an evaluation is told of slides that its networks were trained on."""

from pathlib import Path
from typing import Any

import pytest

from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.tasks import load_task_set
from crane_ray.evaluation.predictions import Predictions
from crane_ray.runtime.evaluation_findings import evaluation_findings
from crane_ray.runtime.evaluation_jobs import EvaluateJob
from crane_ray.runtime.studies import attach_features, load_labels
from tests.unit.runtime.small_study import SmallStudy, make_study

RUN_SPLIT = ",train,val,test\n0,S2,S4,S6\n1,S3,S5,S7\n"
NAMED = {"S2": "C2", "S3": "C3", "S4": "C4", "S5": "C5", "S6": "C6", "S7": "C7"}


@pytest.fixture
def study(tmp_path: Path) -> SmallStudy:
    """With a run's folder beside it: splits and predictions, of fold 0."""
    study = make_study(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "splits_0.csv").write_text(RUN_SPLIT)
    Predictions.from_logits(
        [[0.0, 1.0]] * len(NAMED), [0] * len(NAMED), fold=0, split="train", task="kind",
        slide_ids=list(NAMED), case_ids=list(NAMED.values()),
    ).to_parquet(str(run / "predictions.parquet"))  # fmt: skip
    return study


def findings(study: SmallStudy, splits: Path | None = None, **settings: Any) -> dict[str, Any]:
    """Names by kind of finding."""
    job = EvaluateJob.model_validate(
        {
            "model": str(study.root / "run"),
            "bags": {"labels": str(study.labels), "features": str(study.features)},
            "splits": None if splits is None else str(splits),
            **settings,
        }
    )
    labelled = load_labels(job.bags, load_task_set(str(study.task)))
    data = attach_features(labelled, job.bags)
    parts = (
        {0: Split((), (), data.cohort.slide_ids)}
        if job.split == "external"
        else read_splits(str(splits or study.root / "run"))
    )
    found = evaluation_findings(job, labelled, data, parts, {})
    return {finding.kind: set(finding.names) for finding in found}


def test_slides_of_a_case_that_was_trained_or_stopped_on(study: SmallStudy) -> None:
    """S9 is a further slide of C3, whose own slide S3 is not in this table; S10 one of C5."""
    study.labels.write_text(
        "case_id,slide_id,label\nC3,S9,a\nC5,S10,b\nC6,S6,a\nC8,S8,a\nC2,S2,a\n"
    )
    assert findings(study, split="external")["seen_in_training"] == {"S9", "S10", "S2"}


def test_a_published_run_says_which_slides_alone(study: SmallStudy) -> None:
    (study.root / "run" / "predictions.parquet").unlink()
    study.labels.write_text("case_id,slide_id,label\nC3,S9,a\nC6,S6,a\nC2,S2,a\nC2,S11,b\n")
    assert findings(study, split="external")["seen_in_training"] == {"S2", "S11"}


@pytest.mark.parametrize(("split", "seen"), [("test", {"S2", "S4"}), ("val", {"S3"})])
def test_other_splits_whose_part_the_fold_was_trained_on(
    study: SmallStudy, tmp_path: Path, split: str, seen: set[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "splits_0.csv").write_text(",train,val,test\n0,S8,S3,S2\n1,S9,S5,S4\n2,,,S6\n")
    assert findings(study, other, split=split)["seen_in_training"] == seen


def test_a_run_s_own_test_part_is_news(study: SmallStudy) -> None:
    assert "seen_in_training" not in findings(study, split="test")
