"""The command as a person uses it: exit statuses, messages, help, and the demo from end to end."""

from pathlib import Path

import pytest
import yaml

from crane_ray.cli.main import VERBS, call
from crane_ray.features.store import FeatureStore
from crane_ray.runtime.jobs import PatchJob
from tests.ray.helpers import command, finish


@pytest.fixture
def out(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    """Runs a command in this process; gives its status and all that it printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str]:
        status = call(list(words))
        captured = capfd.readouterr()
        return status, captured.out + captured.err

    return run


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_teaches_with_an_example(verb: str, out) -> None:  # type: ignore[no-untyped-def]
    status, text = out(verb, "--help")
    assert status == 0
    assert f"crane-ray {verb}" in text.split("Examples:")[1]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["ptach"], ["no verb 'ptach'", "did you mean patch?"]),
        (["patch", "--work", "w"], ["slides.source", "--slides"]),
        (["patch", "--slides", "/nowhere", "--work", "w"], ["/nowhere", "no such file or folder"]),
        (["patch", "--set", "patch.sise_px=3"], ["patch.sise_px", "did you mean patch.size_px?"]),
        (["patch", "--set", "tissue"], ["--set tissue", "path.to.key=value"]),
        (["patch", "--patch-size", "x"], ["patch.size_px", "'x'", "integer"]),
        (["patch", "--preset", "liver"], ["tissue", "'liver' is no preset", "bwh_biopsy"]),
        (["patch", "--mpp", "0.5", "--patch-level", "1"], ["one scale is needed"]),
        (["extract", "--config", "/no/such.yaml"], ["/no/such.yaml", "No such file"]),
        (["verify", "/nowhere"], ["/nowhere", "no feature store there"]),
        (["submit", "extract", "--work", "w"], ["no cluster named", "http://HEAD:8265"]),
    ],
)
def test_mistakes_are_named_with_what_to_do(  # type: ignore[no-untyped-def]
    words: list[str], parts: list[str], out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, text = out(*words)
    assert status == 2
    flat = " ".join(text.split())
    for part in parts:
        assert part in flat
    assert "Traceback" not in text


def test_an_encoder_that_is_not_there_names_the_nearest(  # type: ignore[no-untyped-def]
    out, demo_folder: Path
) -> None:
    work = demo_folder / "work"
    status, text = out("extract", "--work", str(work), "--encoder", "resnet50_trunk")
    assert status == 2
    assert "did you mean resnet50_trunc?" in text


def test_a_workspace_that_cannot_be_written_says_so(  # type: ignore[no-untyped-def]
    out, tmp_path: Path, demo_folder: Path
) -> None:
    (tmp_path / "file").touch()
    slides = str(demo_folder / "cohort" / "slides")
    status, text = out("patch", "--slides", slides, "--work", str(tmp_path / "file" / "work"))
    assert status == 2
    assert "cannot be written" in text


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, run as a user runs it, on two slides."""
    folder = tmp_path_factory.mktemp("demo")
    home = {"HOME": str(folder)}
    status, output = finish(command("demo", "--work", str(folder), "--num-slides", "2", **home))
    assert status == 0, output
    assert "demo done" in output
    assert "random seed 0 weights" in output
    assert "WARNING" not in output
    return folder


@pytest.mark.ray
def test_the_demo_leaves_all_that_it_names(demo_folder: Path) -> None:
    work = demo_folder / "work"
    store = FeatureStore.open(str(work / "features" / "resnet50_trunc"))
    assert len(store.slide_ids()) == 2
    assert "random" in store.recipe.encoder.weights
    for slide_id in store.slide_ids():
        found = store.read(slide_id)
        assert found.features.shape == (len(found.xy), 1024)
        for part in ("masks/{}.jpg", "stitches/{}.jpg", "contours/{}.geojson", "patches/{}.h5"):
            assert (work / part.format(slide_id)).stat().st_size > 0
    resolved = yaml.safe_load((work / "patch.yaml").read_text())
    assert PatchJob.model_validate(resolved).tissue.preset == "bwh_biopsy"
