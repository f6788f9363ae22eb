"""``crane-ray assess`` refuses what does not fit before any work: no cluster, no folder."""

from pathlib import Path

import pytest

from crane_ray.cli.main import call
from tests.unit.runtime.small_models import make_model, make_recipe, make_slides

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--encoder", "uni_v1"], "encoder (--encoder): model resnet50_trunc, asked for uni_v1"),
        (["--mpp", "1"], "scale: model 0.5 um/px, asked for 1 um/px"),
        (["--patch-level", "0"], "scale: model 0.5 um/px, asked for level 0"),
        (["--patch-size", "512"], "patch size in px (--patch-size): model 256, asked for 512"),
        (["--step-size", "128"], "step in px (--step-size): model 256, asked for 128"),
        (["--input-size", "256"], "input size in px (--input-size): model 224, asked for 256"),
        (["--input-size", "patch"], "input size in px (--input-size): model 224, asked for 256"),
        (["--precision", "bf16"], "precision (--precision): model fp32, asked for bf16"),
        (["--weights", "nowhere.pth"], "nowhere.pth': no such file"),
        (["--slides", "nowhere"], "nowhere: no such file or folder"),
        (["--set", "thresholds.grade=0.5"], "threshold of task grade: not a task"),
        (["--cases", "cases.csv"], "--slides and --cases are two ways"),
    ],
)
def test_what_the_model_was_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    model, slides = make_model(tmp_path / "run", make_recipe()), make_slides(tmp_path / "slides")
    work = tmp_path / "work"
    line = ["--model", str(model), "--slides", str(slides), "--work", str(work)]
    assert call(["assess", *line, *words]) == 2
    assert told in " ".join(capsys.readouterr().out.split())
    assert not work.exists()


def test_all_that_differs_is_named_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, slides = make_model(tmp_path / "run", make_recipe()), make_slides(tmp_path / "slides")
    line = ["--model", str(model), "--slides", str(slides), "--work", str(tmp_path / "work")]
    assert call(["assess", *line, "--mpp", "1", "--patch-size", "512", "--encoder", "uni_v1"]) == 2
    out = capsys.readouterr().out
    assert out.count(", asked for ") == 3
    assert "taken from its checkpoints" in out


def test_an_assessment_of_another_job_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, slides = make_model(tmp_path / "run", make_recipe()), make_slides(tmp_path / "slides")
    out = tmp_path / "work" / "assessment"
    out.mkdir(parents=True)
    (out / "assessment.parquet").touch()
    line = ["--model", str(model), "--slides", str(slides), "--work", str(tmp_path / "work")]
    (out / "config.yaml").write_text(
        f"model: {model}\nslides: {{source: {slides}}}\nwork: {tmp_path / 'work'}\n"
        "thresholds: {cell: 0.3}\n"
    )
    assert call(["assess", *line, "--set", "thresholds.cell=0.4"]) == 2
    told = capsys.readouterr().out
    assert "thresholds.cell: there 0.3, here 0.4" in told
    assert "--overwrite" in told
    with pytest.raises(AssertionError, match="a Ray was started"):
        call(["assess", *line, "--set", "thresholds.cell=0.3"])


def test_help_shows_both_ways_and_says_what_it_is_not_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(["assess", "--help"]) == 0
    out = capsys.readouterr().out
    for words in ("--slides /data/new --work new", "--cases cases.csv", "not for diagnosis"):
        assert words in out
