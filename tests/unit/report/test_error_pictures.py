"""Maps and patches of errors: of the very network that erred, and each failure with its reason."""

import base64
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from crane_ray.errors import ConfigError
from crane_ray.evaluation.predictions import Predictions
from crane_ray.maps.attending import attend
from crane_ray.maps.folder import HeadTask, MapsFolder, MapsHeader
from crane_ray.maps.scores import SlideScores, write_scores
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.mil.checkpoints import load_checkpoint, save_checkpoint
from crane_ray.mil.configs import ModelConfig
from crane_ray.report.writing import write_report
from tests.unit.features.small_store import INFO, NUM_PATCHES, Cohort, make_cohort
from tests.unit.features.test_clam_files import put_slide
from tests.unit.report.made_up import BINARY

Features = npt.NDArray[np.float32]


@dataclass
class Run:
    """A training on three slides whose every decision is wrong."""

    folder: Path
    cohort: Cohort
    xy: npt.NDArray[np.int32]

    def report(self, work: str | None = "", maps: str | None = None) -> str:
        work = self.cohort.workspace.root if work == "" else work
        path = write_report(str(self.folder), work=work, maps=maps)
        return Path(path).read_text()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    cohort = make_cohort(tmp_path / "work", num_slides=3)
    cohort.workspace.write_slides(cohort.rows.values())
    folder = tmp_path / "results" / "amr_s1"
    torch.manual_seed(0)
    config = ModelConfig(hidden_dim=8, attention_dim=4, dropout=0.0)
    network = build_aggregator(config, INFO.dim, (BINARY,)).eval()
    save_checkpoint(
        str(folder / "s_0_checkpoint"), network, config, dim=INFO.dim, tasks=(BINARY,),
        provenance={"fingerprint": "f"},
    )  # fmt: skip
    places = np.arange(NUM_PATCHES)
    xy = np.stack([places % 7 * 64, places // 7 * 70], axis=1).astype(np.int32)
    parts = []
    for number, slide_id in enumerate(cohort.rows):
        features = np.random.default_rng(number).normal(size=(NUM_PATCHES, 12)).astype(np.float32)
        put_slide(cohort.store, slide_id, features, xy)
        parts.append(predicted(folder, slide_id, features))
    Predictions.concat(parts).to_parquet(str(folder / "predictions.parquet"))
    (folder / "config.yaml").write_text(f"bags: {{features: {cohort.store.root}}}\n")
    (folder / "folds" / "0").mkdir(parents=True)
    (folder / "folds" / "0" / "outcome.json").write_text('{"fold": 0}')
    return Run(folder, cohort, xy)


def predicted(folder: Path, slide_id: str, features: Features) -> Predictions:
    """What the network says of a slide, with the other class as its label."""
    checkpoint = load_checkpoint(str(folder / "s_0_checkpoint.safetensors"))
    p = attend([checkpoint], features).probabilities["amr"]
    return Predictions.from_logits(
        np.log(p)[None], [1 - int(p.argmax())], fold=0, split="test", task="amr",
        slide_ids=[slide_id], case_ids=[f"case {slide_id}"],
    )  # fmt: skip


def images(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_each_error_has_its_map_and_its_top_patches(run: Run) -> None:
    page = run.report()
    shown = images(page)
    assert len(shown) == 3 * (1 + 5)
    assert page.count("attention of head amr, network of fold 0") == 3
    assert {picture.size for picture in shown} >= {(112, 112)}
    assert all(max(picture.size) <= 640 for picture in shown)
    assert "No map" not in page
    assert len(page) < 600_000


def test_a_slide_that_is_gone_costs_its_own_picture_alone(run: Run) -> None:
    Path(run.cohort.rows["b"].uri).unlink()
    page = run.report()
    assert len(images(page)) == 2 * 6
    assert "No map: no such file on this node" in page


def test_a_slide_of_object_storage_is_fetched_only_if_asked_for(run: Run) -> None:
    from crane_ray.report.error_pictures import Places, _slide
    from crane_ray.report.mistakes import Mistake
    from crane_ray.slides.workspace import SlideRow

    error = Mistake("amr", "a", "A", 0, "amr", "no_amr", 0.9, 0.1)
    rows = {"a": SlideRow("a", "s3://bucket/a.svs", "ok")}
    places = Places(run.cohort.workspace, rows)
    with pytest.raises(Exception, match="not fetched unless asked for"):
        _slide(error, places)
    assert _slide(error, replace(places, fetch=True)).uri == "s3://bucket/a.svs"


def test_another_network_of_that_name_is_not_shown(run: Run) -> None:
    torch.manual_seed(1)
    config = ModelConfig(hidden_dim=8, attention_dim=4, dropout=0.0)
    network = build_aggregator(config, INFO.dim, (BINARY,))
    with torch.no_grad():
        for weights in network.parameters():
            weights.mul_(5)
    save_checkpoint(
        str(run.folder / "s_0_checkpoint"), network, config, dim=INFO.dim, tasks=(BINARY,),
        provenance={},
    )  # fmt: skip
    page = run.report()
    assert not images(page)
    assert "features or checkpoint have changed since" in page


def test_patches_that_were_placed_anew_are_told(run: Run) -> None:
    run.cohort.patch("a", offset=8)
    page = run.report()
    assert len(images(page)) == 3 + 2 * 5
    assert "no patches: its 21 patches are not the 21 that were scored" in page


def test_maps_that_were_made_are_shown_in_place_of_the_erring_networks(run: Run) -> None:
    folder = MapsFolder(f"{run.cohort.workspace.root}/heatmaps/amr_s1")
    header = MapsHeader(
        model=str(run.folder), checkpoints={"0": "f", "1": "g"}, heads=("amr",),
        tasks=(HeadTask(name="amr", classes=BINARY.classes),), features="", recipe_fingerprint="",
    )  # fmt: skip
    folder.write_header(header)
    ranks = np.linspace(0, 1, NUM_PATCHES, dtype=np.float32)[None]
    write_scores(
        folder.scores("a"),
        SlideScores("a", ("amr",), run.xy, ranks, ranks, 64.0, (512, 512), 0.5),
    )
    page = run.report(work=None, maps=folder.root)
    assert page.count("folds 0, 1 together, or those that the slide was held out of") == 1
    assert len(images(page)) == 6
    assert page.count("have none of it") == 2
    folder.write_header(header.model_copy(update={"checkpoints": {"0": "x"}}))
    with pytest.raises(ConfigError, match=r"made by other networks \(x\) than those of .* \(f\)"):
        run.report(work=None, maps=folder.root)


def test_without_slides_the_page_says_why_there_are_no_pictures(run: Run) -> None:
    page = run.report(work=None)
    assert "slides.parquet is not there, which says where slides are" in page
    (run.folder / "config.yaml").write_text("bags: {features: /gone}\n")
    page = run.report()
    assert "are no feature store, or are not there any more" in page


def test_folders_that_are_none_are_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match=r"--work .*no slides\.parquet"):
        run.report(work=str(run.folder))
    with pytest.raises(Exception, match=r"no maps\.json"):
        run.report(maps=str(run.folder))
