import json
import platform
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from crane_ray import __version__
from crane_ray.manifest import LeftOut, RunManifest
from crane_ray.slides.params import TissueParams


def test_a_run_that_begins_carries_what_it_is_made_of() -> None:
    config = TissueParams(preset="tcga")
    before = datetime.now(UTC).replace(microsecond=0)
    manifest = RunManifest.start("patch", config)
    assert before <= datetime.fromisoformat(manifest.started) <= datetime.now(UTC)
    assert (manifest.verb, manifest.outcome, manifest.finished) == ("patch", "running", None)
    assert TissueParams.model_validate(manifest.config) == config
    assert manifest.config_fingerprint == config.fingerprint()
    assert manifest.versions["crane-ray"] == __version__
    assert manifest.versions["python"] == platform.python_version()
    assert manifest.versions["numpy"] == np.__version__


def test_runs_of_one_second_have_names_of_their_own_in_the_order_of_time() -> None:
    names = [RunManifest.start("patch", TissueParams()).run_id for _ in range(20)]
    assert len(set(names)) == 20
    stamps = [name.split("-")[0] for name in names]
    assert stamps == sorted(stamps)
    assert all("-patch-" in name for name in names)


def test_a_manifest_that_is_written_is_read_back(tmp_path: Path) -> None:
    running = RunManifest.start("patch", TissueParams())
    path = running.write(str(tmp_path / "manifests"))
    assert path == f"{tmp_path}/manifests/{running.run_id}.json"
    assert RunManifest.model_validate_json(Path(path).read_bytes()) == running
    left_out = [LeftOut(slide_id="a", status="failed", reason="cut short — ß")]
    ended = running.finish("failures", counts={"done": 3}, left_out=left_out)
    assert ended.write(str(tmp_path / "manifests")) == path, "one file a run"
    assert RunManifest.model_validate_json(Path(path).read_bytes()) == ended
    assert (ended.outcome, ended.counts, ended.left_out) == ("failures", {"done": 3}, left_out)
    assert len(list((tmp_path / "manifests").iterdir())) == 1


def test_the_end_is_not_before_the_beginning() -> None:
    running = RunManifest.start("patch", TissueParams())
    ended = running.finish("done")
    assert ended.finished is not None
    assert ended.finished >= running.started
    assert ended.seconds is not None
    assert 0 <= ended.seconds < 60
    assert running.outcome == "running", "a manifest is a value"


def test_the_file_says_its_format(tmp_path: Path) -> None:
    path = RunManifest.start("verify", TissueParams()).write(str(tmp_path))
    assert json.loads(Path(path).read_bytes())["format"] == 1


def test_a_manifest_is_frozen() -> None:
    manifest = RunManifest.start("patch", TissueParams())
    with pytest.raises(ValidationError, match="frozen"):
        manifest.outcome = "done"  # type: ignore[misc]
