from pathlib import Path

import pytest

from crane_ray.cli.main import call
from crane_ray.cohort.splits import read_splits

ROWS = "\n".join(f"C{case},s{case}.svs,{'ab'[case % 2]}" for case in range(20))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text(f"case_id,slide_id,label\n{ROWS}\n")
    (tmp_path / "own.yaml").write_text(
        "name: own\ntasks: [{name: kind, column: label, classes: [a, b]}]\n"
    )
    return tmp_path


def test_splits_are_drawn_to_the_default_folder_and_found_sound(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["splits", "--labels", "labels.csv", "--task", "own.yaml", "-k", "5"]) == 0
    assert len(read_splits(str(folder / "splits/own_100"))) == 5
    assert "nothing to complain about" in capsys.readouterr().out
    check = ["splits", "--check", "splits/own_100", "--labels", "labels.csv"]
    assert call([*check, "--task", "own.yaml"]) == 0


def test_errors_in_somebodys_splits_give_status_1_and_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "splits_0.csv").write_text(",train,val,test\n0,s0,s1,s2\n1,s3,s4,s0\n")
    assert call(["splits", "--check", str(folder), "--labels", "labels.csv"]) == 1
    out = capsys.readouterr().out
    assert "shared slides" in out
    assert "shared cases" in out


def test_other_splits_in_the_folder_are_a_users_error(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = ["splits", "--labels", "labels.csv", "--task", "own.yaml", "-k", "3"]
    assert call(draw) == 0
    assert call([*draw, "--seed", "2"]) == 2
    assert "--overwrite" in capsys.readouterr().out
    assert call([*draw, "--seed", "2", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--check", ".", "--seed", "2", "-k", "3"], "--seed, -k: has no meaning with --check"),
        (["--labels", "labels.csv", "--task", "own.yaml", "--features", "."], "--features is for"),
    ],
)
def test_options_that_do_not_go_together(
    folder: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["splits", *words]) == 2
    assert told in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["splits", "--help"]) == 0
    assert "crane-ray splits --check" in capsys.readouterr().out
