import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.cohort.tasks import MISSING, TaskSpec
from crane_ray.evaluation.averaging import by_case, ensemble
from crane_ray.evaluation.predictions import Predictions
from crane_ray.manifest import LeftOut
from crane_ray.report.mistakes import mistakes_of
from crane_ray.report.mistakes_section import ErrorPicture
from crane_ray.report.page import report_page
from crane_ray.report.results import RunResults
from tests.unit.evaluation.made_up import predict, table_of
from tests.unit.pages.reader import Reader
from tests.unit.report.made_up import (
    BINARY,
    EVIL,
    THREE,
    course,
    manifest,
    run_of,
    task_of,
    two_folds,
)


def read(run: RunResults, **more: Any) -> Reader:
    reader = Reader(report_page(run, **more))
    assert reader.open == []
    return reader


def test_the_page_has_all_its_parts_and_links_to_them() -> None:
    page = report_page(run_of(two_folds(skill=0.6)))
    reader = Reader(page)
    heads = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert heads == ["Results", "Task amr", "Training", "Cohort", "Config and provenance",
                     "How to read this"]  # fmt: skip
    ids = [value for name, value in reader.attributes if name == "id"]
    assert len(set(ids)) == len(ids)
    links = {value for name, value in reader.attributes if name == "href"}
    assert len(links) == 12
    assert {link.removeprefix("#") for link in links if link} <= set(ids)
    # ROC, precision-recall, confusion, spread, calibration, forest, loss, AUC of val.
    assert reader.names.count("svg") == 8


def test_numbers_have_their_intervals_and_it_is_said_what_those_are() -> None:
    run = run_of(two_folds(skill=0.6))
    found = run.of_task(0)
    assert found is not None
    auc = found.overall("auc")
    assert auc is not None
    text = read(run).text
    assert f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]" in text
    assert f"AUC, amr{auc.value:.3f}95 % interval {auc.low:.3f} to {auc.high:.3f}" in text
    assert "percentile intervals of a bootstrap with 40 replicates that draws patients" in text
    assert "Judged on12 slidesof 12 cases" in text
    assert "SD of folds" in text


def test_what_was_left_out_and_noticed_is_told() -> None:
    text = read(run_of(two_folds())).text
    assert text.count("Error: 2 cases in two parts") == 2, "once on top, once in the cohort"
    assert text.count("Warning: few cases") == 1
    assert "s-9features are not finite" in text
    assert "no_amr1864 %15" in text
    assert "without a label2" in text


def test_shared_cases_between_folds_are_told() -> None:
    assert (
        "12 of 12 cases are in the judged parts of more than one fold"
        in read(run_of(two_folds())).text
    )
    apart = Predictions.concat(
        table_of([[0.6, 0.4], [0.3, 0.7]], [0, 1], slides=[f"a{fold}", f"b{fold}"],
                 cases=[f"A{fold}", f"B{fold}"], fold=fold)
        for fold in (0, 1)
    )  # fmt: skip
    assert "No case is in the judged parts of two folds" in read(run_of(apart)).text


def test_the_training_says_which_epoch_was_kept() -> None:
    text = report_page(run_of(two_folds()))
    assert "fold 0: 0.700 to 0.600 in 3 epochs, epoch 2 kept" in text
    off = run_of(two_folds(), config={"training": {"stopping": {"enabled": False}}})
    assert "weights of the last epoch" in read(off).text


def test_provenance_has_config_features_networks_and_versions() -> None:
    text = read(run_of(two_folds())).text
    for said in ("seed: 1", "/cohort/features/uni", "recipe unknown, content 0123456789abcdef",
                 "aaaa000011112222", "crane-ray ", "40 replicates, seed 0"):  # fmt: skip
        assert said in text


EMPTY = Predictions.concat([])
ONE_CLASS = table_of([[0.9, 0.1], [0.4, 0.6]], [0, 0], slides=["a", "b"], cases=["A", "B"])
UNLABELLED = table_of([[0.9, 0.1]], [MISSING], slides=["a"], cases=["A"])
VAL_ALONE = predict(BINARY, split="val")


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (replace(run_of(two_folds()), predictions=None, evaluation=None), "no fold ended well"),
        (run_of(VAL_ALONE), "their loss chose each network's epoch"),
        (run_of(predict(BINARY, split="train")), "networks were trained on"),
        (run_of(ONE_CLASS), "the test part has labels of one class alone"),
        (run_of(UNLABELLED), "No slide of the test part has a label for this task"),
        (run_of(predict(BINARY), courses=(course(0),)), "one fold"),
        (run_of(two_folds(), courses=(course(0), course(1, failure="fold 1: loss is nan"))),
         "Error: fold 1: loss is nan"),
        (run_of(two_folds(THREE), (THREE,)), "AUC, macro one-vs-rest"),
        (run_of(by_case(two_folds(slides_of_case=2))), "Judged on12 casesbags are cases"),
        (run_of(predict(BINARY)), "no labelled val part in fold 0"),
        (run_of(two_folds(), courses=(replace(course(0), history=()),)), "were not kept"),
        (run_of(two_folds(), evaluation=None), "This run has no metrics.json"),
        (run_of(two_folds(), manifest=None), "none is there"),
        (run_of(two_folds(), manifest=None), "does not say what its whole cohort was"),
        (run_of(two_folds(), config=None), "Most confident errors"),
        (run_of(two_folds(), named_classes=False), "called by their indices"),
        (replace(run_of(two_folds()), tasks=(BINARY, THREE)), "no predictions of this task"),
        (run_of(two_folds(skill=50.0)), "None: every decision is right"),
        (run_of(predict(BINARY, split="external"), kind="evaluation", courses=()),
         "judged on another cohort"),
        (run_of(Predictions.concat([two_folds(), ensemble(two_folds())])), "ensemble"),
    ],
)  # fmt: skip
def test_runs_that_lack_something_have_a_page_that_says_so(run: RunResults, said: str) -> None:
    assert said in read(run).text


def test_the_other_parts_metrics_follow_those_of_the_judged_one() -> None:
    text = read(run_of(two_folds())).text
    assert "The same on val parts" in text
    assert text.index("their loss chose") > text.index("percentile intervals")


def test_subgroups_have_a_table_and_a_caution() -> None:
    predictions = two_folds()
    cases = predictions.arrays("amr").case_ids_N
    site = {case: EVIL if int(case[-1]) % 4 < 2 else "B" for case in cases}
    reader = read(run_of(predictions, by={"site": site}))
    assert ["site=B"] in [row[:1] for row in reader.rows]
    assert "without correction for their number" in reader.text
    assert f"site={EVIL}" in reader.text
    assert "img" not in reader.names


def test_text_from_the_run_is_never_markup() -> None:
    task = TaskSpec(name="amr", column="x", classes=(EVIL, "b" + EVIL))
    predictions = table_of([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], [1, 1, 0],
                           slides=[EVIL, "b", "c"], cases=[EVIL, "B", "C"])  # fmt: skip
    facts = {
        "findings": [{"severity": EVIL, "message": EVIL}],
        "features": {EVIL: {"root": EVIL, "identity": EVIL}},
        "checkpoints": {EVIL: {"path": EVIL, "fingerprint": EVIL}},
        "cohort": {"slides": 1, "cases": 1, "classes": {EVIL: [[EVIL, 1, 1]]}},
    }
    run = run_of(
        predictions,
        (task,),
        name=EVIL,
        folder=EVIL,
        config={EVIL: EVIL},
        checkpoints={EVIL: EVIL},
        courses=(course(0, failure=EVIL),),
        manifest=manifest(
            facts=facts, left_out=[LeftOut(slide_id=EVIL, status="failed", reason=EVIL)],
            versions={EVIL: EVIL}, error=EVIL,
        ),
    )  # fmt: skip
    found = run.of_task(0)
    assert found is not None
    errors = mistakes_of(found)
    picture = ErrorPicture(b"jpeg", (4, 3), (b"p",), 2, head=EVIL, whose=EVIL, note=EVIL)
    pictures = {errors[0]: picture, errors[1]: ErrorPicture(failure=EVIL)}
    reader = Reader(report_page(run, pictures=pictures))
    assert reader.open == []
    assert "script" not in reader.names
    assert reader.names.count("img") == 2
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    assert EVIL in reader.text


@settings(max_examples=10, deadline=None)
@given(st.text(st.characters()), st.text(st.characters()))
def test_any_text_makes_a_whole_page(one: str, other: str) -> None:
    predictions = table_of([[0.9, 0.1], [0.8, 0.2]], [1, 0], slides=["a", "b"], cases=["A", "B"])
    run = run_of(predictions, name=one, folder=other, checkpoints={one: other})
    read(run, why_none=other)


def test_the_page_fetches_nothing_and_needs_no_script() -> None:
    page = report_page(run_of(two_folds(skill=0.5)))
    reader = Reader(page)
    assert {"link", "img", "iframe", "image", "use", "script"}.isdisjoint(reader.names)
    named = {name for name, _ in reader.attributes}
    assert {"src", "srcset", "action", "style"}.isdisjoint(named)
    assert all((value or "").startswith("#") for name, value in reader.attributes if name == "href")
    assert set(re.findall(r"\w+://[^\"'\s)<]*", page)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in page and "@import" not in page
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_pictures_are_in_the_page_and_the_policy_allows_those_alone() -> None:
    run = run_of(two_folds(skill=0.5))
    found = run.of_task(0)
    assert found is not None
    first, second = mistakes_of(found)[:2]
    picture = ErrorPicture(b"jpeg", (640, 480), (b"one", b"two"), 112, head="amr", whose="fold 0")
    failed = ErrorPicture(failure="no such file on this node")
    page = report_page(run, pictures={first: picture, second: failed})
    reader = Reader(page)
    sources = [value or "" for name, value in reader.attributes if name == "src"]
    assert len(sources) == 3
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert [name for name, _ in reader.attributes].count("alt") == 3
    assert "img-src data:" in page
    assert "No map: no such file on this node" in reader.text
    assert "No pictures of them: slides are gone" in read(run, why_none="slides are gone").text


def test_paper_has_rules_of_its_own_and_drawings_are_told_in_words() -> None:
    page = report_page(run_of(two_folds()))
    assert page.count("@media print") == 2
    assert "size: A4" in page
    reader = Reader(page)
    svgs = reader.names.count("svg")
    assert [value for name, value in reader.attributes if name == "role"].count("img") == svgs
    ids = {value for name, value in reader.attributes if name == "id"}
    for name, value in reader.attributes:
        if name == "aria-labelledby":
            assert set((value or "").split()) <= ids
    assert reader.names.count("desc") == svgs


def test_a_large_cohort_makes_a_small_page() -> None:
    parts = [predict(BINARY, 4000, fold=fold, skill=0.8) for fold in range(5)]
    predictions = Predictions.concat(parts)
    run = run_of(predictions, evaluation=None)
    assert len(report_page(run)) < 400_000


def test_errors_of_a_task_are_its_own() -> None:
    found = task_of(two_folds(skill=0.2))
    text = read(run_of(two_folds(skill=0.2))).text
    for error in mistakes_of(found):
        assert f"{error.slide_id}{error.case_id}{error.fold}{error.true}" in text
