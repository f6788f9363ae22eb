from pathlib import Path

import pytest

from crane_ray.cli.main import call
from tests.unit.report.made_up import two_folds


@pytest.fixture
def run(tmp_path: Path) -> Path:
    two_folds().to_parquet(str(tmp_path / "run" / "predictions.parquet"))
    (tmp_path / "run" / "config.yaml").write_text("split: test\n")
    return tmp_path / "run"


def test_the_page_is_made_anew_and_its_path_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["report", str(run)]) == 0
    assert f"report: {run}/report.html" in capsys.readouterr().out.replace("\n", "")
    assert "Evaluation run" in (run / "report.html").read_text()
    assert call(["report", str(run), "--out", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "other.html").read_bytes() == (run / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no config.yaml and no manifest.json there"),
        (["{run}", "--work", "nowhere"], "no slides.parquet there"),
        (["{run}", "--maps", "nowhere"], "none are there (no maps.json)"),
    ],
)
def test_mistakes_are_told(
    run: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["report", *(word.format(run=run) for word in words)]) == 2
    out = " ".join(capsys.readouterr().out.split())
    assert said in out
    assert "Traceback" not in out
