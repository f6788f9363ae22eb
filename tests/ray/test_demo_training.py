"""The demo's second half on features that need no slides, and cases assessed with its networks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from crane_ray.cli.demo import NETWORKS, train_networks
from crane_ray.errors import ConfigError
from crane_ray.evaluation.predictions import Predictions
from crane_ray.runtime import assessment
from crane_ray.runtime.assessment import run_assessment
from crane_ray.runtime.assessment_jobs import AssessJob

pytestmark = pytest.mark.ray

NUM_CASES = 12


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A folder as the demo leaves it, of bags in which each finding is a direction."""
    root = tmp_path_factory.mktemp("demo")
    store = root / "work" / "features" / "resnet50_trunc" / "pt_files"
    store.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows = []
    for number in range(NUM_CASES):
        cell, amr, quilty = number % 2, number // 2 % 2, number // 4 % 2
        features = generator.normal(size=(6, 8)).astype(np.float32)
        features[0, :4] += 6 * np.array([cell, amr, quilty, number % 3 == 0])
        torch.save(torch.from_numpy(features), store / f"slide_{number}.pt")
        rows.append(
            {
                "case_id": f"case_{number}",
                "slide_id": f"slide_{number}",
                "label_cell": ("no_cell", "cell")[cell],
                "label_amr": ("no_amr", "amr")[amr],
                "label_quilty": ("no_quilty", "quilty")[quilty],
                "label_grade": ("low", "high")[number % 3 == 0] if cell or amr else "",
            }
        )
    pd.DataFrame(rows).to_csv(root / "labels.csv", index=False)
    assert not train_networks(str(root), str(root / "labels.csv"))
    return root


def test_both_networks_are_trained_on_every_fold(demo: Path) -> None:
    for task in NETWORKS:
        run = demo / "results" / f"{task}_s1"
        predictions = Predictions.from_parquet(str(run / "predictions.parquet"))
        assert predictions.folds() == [0, 1, 2]
        tested = predictions.select(split="test").table
        labelled = NUM_CASES if task == "cardiac-mtl" else NUM_CASES * 3 // 4
        assert len(set(tested["slide_id"].to_pylist())) == labelled
        assert json.loads((run / "manifest.json").read_text())["outcome"] == "done"
        assert (run / "summary.csv").exists()


def test_cases_are_assessed_and_those_with_a_finding_graded(demo: Path) -> None:
    job = AssessJob(
        model=str(demo / "results" / "cardiac-mtl_s1"),
        grade_model=str(demo / "results" / "cardiac-grade_s1"),
        cases=str(demo / "labels.csv"),
        features=str(demo / "work" / "features" / "resnet50_trunc"),
        out=str(demo / "assessment"),
    )
    summary = run_assessment(job)
    table = pd.read_csv(demo / "assessment" / "assessment.csv")
    assert table["case_id"].tolist() == sorted(f"case_{number}" for number in range(NUM_CASES))
    for task, names in {
        "cell": ("no_cell", "cell"), "amr": ("no_amr", "amr"), "quilty": ("no_quilty", "quilty"),
    }.items():  # fmt: skip
        np.testing.assert_allclose(table[[f"p_{task}_{name}" for name in names]].sum(axis=1), 1)
    found = (table["decision_cell"] == "cell") | (table["decision_amr"] == "amr")
    assert (table["decision_grade"].notna() == found).all()
    assert (table["p_grade_high"].notna() == found).all()
    assert len(table["grade_models"].iloc[0].split()) == 3, "a fingerprint a fold"
    assert not summary.uncalibrated
    assert not summary.left_out


def test_cases_without_features_are_in_the_manifest(demo: Path) -> None:
    cases = demo / "cases.csv"
    cases.write_text("case_id,slide_id\ncase_1,slide_1\nother,slide_99\n")
    job = AssessJob(
        model=str(demo / "results" / "cardiac-mtl_s1" / "s_0_checkpoint.safetensors"),
        cases=str(cases),
        features=str(demo / "work" / "features" / "resnet50_trunc"),
        out=str(demo / "few"),
    )
    summary = run_assessment(job)
    table = summary.table.set_index("case_id")
    assert table.index.tolist() == ["case_1", "other"]
    assert table.loc["other"].filter(regex="^(p|decision)_").isna().all(), "blank, not missing"
    assert table["num_slides"].tolist() == [1, 0]
    assert str(table["left_out"].iloc[1]).startswith("slide_99: no features of it in ")
    assert summary.uncalibrated == ["cell", "amr", "quilty"], "a checkpoint alone has no val part"
    facts = json.loads((demo / "few" / "manifest.json").read_text())["facts"]
    told = {finding["kind"]: finding["names"] for finding in facts["findings"]}
    assert told["without_features"] == ["slide_99"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"thresholds": {"cel": 0.4}}, "threshold of task cel: not a task of two classes"),
        ({"thresholds": {"grade": 1.4}}, "threshold of task grade: 1.4 is no probability"),
        ({"graded_findings": ["cell", "AMR"]}, "graded_findings AMR: .* has the tasks cell, amr"),
        ({"graded_findings": []}, "has the tasks cell, amr, quilty; name those"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(
    demo: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], told: str
) -> None:
    def begin(*_: Any) -> None:
        raise AssertionError("work started")

    monkeypatch.setattr(assessment, "connected", begin)
    job = AssessJob.model_validate(
        {
            "model": str(demo / "results" / "cardiac-mtl_s1"),
            "grade_model": str(demo / "results" / "cardiac-grade_s1"),
            "cases": str(demo / "labels.csv"),
            "features": str(demo / "work" / "features" / "resnet50_trunc"),
            "out": str(demo / "refused"),
            **settings,
        }
    )
    with pytest.raises(ConfigError, match=told):
        run_assessment(job)
