from pathlib import Path

import pytest
import yaml

from crane_ray.cohort.cohort import read_cohort
from crane_ray.cohort.drawing import PARTS
from crane_ray.cohort.splits import Split, read_splits
from crane_ray.cohort.splitting import (
    DrawnSplits,
    SplitsCheck,
    SplitsJob,
    check_folder,
    draw_splits,
    split_folder,
)
from crane_ray.cohort.tasks import load_task_set
from crane_ray.errors import ConfigError
from tests.unit.cohort.tables import SHARED, kinds, only, write

TASK = "name: own\ntasks: [{name: kind, column: label, classes: [a, b]}]\n"


@pytest.fixture
def labels(tmp_path: Path) -> str:
    """60 cases with one to three slides, three sites of two labels each."""
    rows = [
        f"C{case},c{case}-{slide}.svs,{'ab'[case % 2]},H{case % 6}"
        for case in range(60)
        for slide in range(1 + case % 3)
    ]
    write(tmp_path, TASK, "own.yaml")
    return write(tmp_path, "\n".join(["case_id,slide_id,label,site", *rows]))


def job(labels: str, **settings: object) -> SplitsJob:
    folder = Path(labels).parent
    given = {"labels": labels, "task": str(folder / "own.yaml"), "out": str(folder / "out")}
    return SplitsJob.model_validate(given | settings)


def cases_of(split: Split) -> list[set[str]]:
    return [{slide.split("-")[0] for slide in split.part(part)} for part in PARTS]


@pytest.mark.parametrize("method", ["kfold", "sites", "crane", "clam"])
@pytest.mark.parametrize("locked", [None, "0.2"])
def test_every_method_writes_sound_splits_by_patient(
    labels: str, method: str, locked: str | None
) -> None:
    drawn = draw_splits(job(labels, method=method, k=3, locked_test=locked))
    assert read_splits(drawn.folder) == drawn.splits
    assert list(drawn.splits) == [0, 1, 2]
    for split in drawn.splits.values():
        train, val, test = cases_of(split)
        assert len(train | val | test) == len(train) + len(val) + len(test) == 60
        assert sum(len(split.part(part)) for part in PARTS) == 120
    assert not any(finding.severity == "error" for finding in drawn.findings)
    tests = [cases_of(split)[2] for split in drawn.splits.values()]
    overlaps = locked is None and len(set.union(*tests)) < sum(map(len, tests))
    assert ("test_overlap" in kinds(drawn.findings)) == overlaps
    assert not (overlaps and method in {"kfold", "sites"})
    assert ("one_test_set" in kinds(drawn.findings)) == (locked is not None)


def test_the_config_lies_beside_the_splits_and_draws_them_again(labels: str) -> None:
    first = draw_splits(job(labels, k=4, seed=5, label_frac=0.5))
    config = yaml.safe_load((Path(first.folder) / "config.yaml").read_text())
    again = draw_splits(SplitsJob.model_validate(config))
    assert again.splits == first.splits


def test_a_locked_set_can_be_used_again_by_another_draw(labels: str, tmp_path: Path) -> None:
    first = draw_splits(job(labels, k=3, locked_test="0.25"))
    file = str(Path(first.folder) / "locked_test.csv")
    other = draw_splits(
        job(labels, method="clam", k=2, seed=9, locked_test=file, out=str(tmp_path / "other"))
    )
    assert set(other.splits[0].test) == set(first.splits[0].test)


def test_identical_splits_may_be_drawn_again_others_need_to_be_asked_for(labels: str) -> None:
    drawn = draw_splits(job(labels, k=4))
    before = {file.name: file.read_bytes() for file in Path(drawn.folder).iterdir()}
    draw_splits(job(labels, k=4))
    for change in ({"k": 4, "seed": 2}, {"k": 3}, {"k": 4, "locked_test": "0.2"}):
        with pytest.raises(ConfigError, match=r"other splits are there already.*--overwrite"):
            draw_splits(job(labels, **change))
    assert {file.name: file.read_bytes() for file in Path(drawn.folder).iterdir()} == before
    draw_splits(job(labels, k=3, overwrite=True))
    assert list(read_splits(drawn.folder)) == [0, 1, 2]
    assert len(list(Path(drawn.folder).iterdir())) == 10


def test_folds_left_over_from_a_longer_draw_are_other_splits(labels: str) -> None:
    draw_splits(job(labels, method="crane", k=2))
    with pytest.raises(ConfigError, match=r"splits_1\.csv"):
        draw_splits(job(labels, method="crane", k=1))
    drawn = draw_splits(job(labels, method="crane", k=1, overwrite=True))
    assert list(read_splits(drawn.folder)) == [0]


def test_hold_out_test_is_the_same_in_every_fold(labels: str) -> None:
    drawn = draw_splits(job(labels, method="crane", k=3, hold_out_test=True))
    assert len({split.test for split in drawn.splits.values()}) == 1
    assert len({split.val for split in drawn.splits.values()}) == 3


def test_strata_may_be_any_column(labels: str) -> None:
    drawn = draw_splits(job(labels, method="crane", k=1, strata="site"))
    cohort = read_cohort(labels, load_task_set(str(Path(labels).parent / "own.yaml")))
    site = dict(zip(cohort.case_ids, cohort.table["site"], strict=True))
    _, val, test = cases_of(drawn.splits[0])
    for part, number in ((val, 1), (test, 2)):
        sites = [site[case.upper()] for case in part]
        assert {own: sites.count(own) for own in sites} == {
            f"H{place}": number for place in range(6)
        }


def test_strata_too_small_for_every_part_are_warned_of(labels: str) -> None:
    small = only(draw_splits(job(labels, k=11, strata="site")).findings, "small_strata")
    assert small.severity == "warning"
    drawn = draw_splits(job(labels, method="crane", val_frac=0.05, strata="site", overwrite=True))
    assert len(only(drawn.findings, "small_strata").names) == 6
    fine = draw_splits(job(labels, method="crane", strata="site", overwrite=True))
    assert "small_strata" not in kinds(fine.findings)


def test_a_locked_file_that_cuts_sites_is_warned_of(labels: str, tmp_path: Path) -> None:
    file = write(tmp_path, "C0\nC1\n", "ids.txt")
    drawn = draw_splits(job(labels, method="sites", k=2, locked_test=file))
    assert only(drawn.findings, "shared_sites").names == ("H0", "H1")
    whole = job(labels, method="sites", k=2, locked_test="0.2", overwrite=True)
    assert "shared_sites" not in kinds(draw_splits(whole).findings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "kfold", "test_frac": 0.2}, "1/k"),
        ({"method": "sites", "hold_out_test": True}, "crane and clam"),
        ({"method": "crane", "hold_out_test": True, "locked_test": "0.1"}, "choose one"),
        ({"method": "kfold", "k": 1}, "at least 2"),
        ({"label_frac": 0}, "greater than 0"),
    ],
)
def test_wishes_that_contradict_each_other(
    labels: str, settings: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        job(labels, **settings)


def test_the_default_folder_is_clams() -> None:
    assert [split_folder("t", share) for share in (1.0, 0.25, 0.29, 0.125)] == [
        "splits/t_100", "splits/t_25", "splits/t_29", "splits/t_12.5",
    ]  # fmt: skip


def checked(table: str, **settings: object) -> DrawnSplits:
    folder = Path(table).parent
    given: dict[str, object] = {"splits": str(folder / "out"), "labels": table}
    return check_folder(SplitsCheck.model_validate(given | settings))


def test_a_check_with_and_without_task_table_and_features(labels: str, tmp_path: Path) -> None:
    draw_splits(job(labels, k=3))
    task = str(tmp_path / "own.yaml")
    assert checked(labels).findings == ()
    assert checked(labels, task=task).findings == ()
    assert checked(labels, labels=None).findings == ()
    (tmp_path / "clam/pt_files").mkdir(parents=True)
    (tmp_path / "clam/pt_files/c0-0.pt").touch()
    found = checked(labels, task=task, features=str(tmp_path / "clam")).findings
    assert len(only(found, "without_features").names) == 119
    with pytest.raises(ValueError, match="give --labels"):
        checked(labels, labels=None, task=task)


def test_a_check_without_task_still_finds_shared_patients(labels: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/splits_0.csv").write_text(",train,val,test\n0,c1-0,c2-0,c1-1.svs\n")
    assert only(checked(labels).findings, "shared_cases").names == ("C1",)


@pytest.mark.skipif(not SHARED.exists(), reason="no CRANE splits in ../shared/data")
@pytest.mark.parametrize(("table", "task"), [("MTL", "cardiac-mtl"), ("Grade", "cardiac-grade")])
def test_cranes_published_files_come_out(tmp_path: Path, table: str, task: str) -> None:
    drawn = draw_splits(
        SplitsJob(
            labels=str(SHARED / f"crane/CardiacDummy_{table}Split.csv"),
            task=f"{task}-strata",
            method="crane",
            k=1,
            seed=1,
            out=str(tmp_path),
        )
    )
    assert drawn.findings == ()
    published = list((SHARED / f"crane/splits/{task}_100").iterdir())
    assert len(published) == 3
    for file in published:
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()
