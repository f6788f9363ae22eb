"""A whole run with slides, workspace and store in a bucket, beside the same run on a disk."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crane_ray import storage
from crane_ray.features.store import FeatureStore
from crane_ray.runtime.extraction import run_extraction
from crane_ray.runtime.jobs import ExtractJob, PatchJob
from crane_ray.runtime.patching import run_patching
from crane_ray.testing.cohorts import SyntheticCohort
from tests.object_storage import Client, aws_environment, environment, moto_server, require_s3
from tests.ray.helpers import SLOW, command, finish

pytestmark = pytest.mark.ray

NUM_SLIDES = 2


@pytest.fixture(scope="module")
def bucket(isolated_home: Path) -> Iterator[Client]:
    """A server; the environment of the commands that start leads to it."""
    require_s3()
    with moto_server() as endpoint, environment(aws_environment(endpoint)):
        client = Client(endpoint)
        client.make_bucket()
        yield client
        client.close()


@pytest.fixture(scope="module")
def slides(bucket: Client, cohort: SyntheticCohort) -> list[Path]:
    """Two slides, in the bucket and on the disk."""
    paths = [slide.path for slide in cohort.slides[:NUM_SLIDES]]
    for path in paths:
        bucket.put(f"slides/{path.name}", path.read_bytes())
    return paths


def settings(source: str, work: str) -> tuple[dict[str, object], dict[str, object]]:
    patching = {
        "slides.source": source,
        "work": work,
        "tissue.preset": "bwh_biopsy",
        "patch.size_px": 32,
        "patch.step_px": 16,
        "cluster.num_cpus": 2,
    }
    extraction = {
        "work": work,
        "encoder.name": SLOW,
        "encoder.weights": "random",
        "encoder.precision": "fp32",
        "encoder.batch_size": 256,
        "cluster.num_cpus": 2,
    }
    return patching, extraction


def words(verb: str, values: dict[str, object]) -> list[str]:
    return [verb, *(f"--set={key}={value}" for key, value in values.items())]


def run(source: str, work: str, **more: str) -> None:
    patching, extraction = settings(source, work)
    for verb, values in (("patch", patching), ("extract", extraction)):
        status, output = finish(command(*words(verb, values), **more))
        assert status == 0, output


def store_root(work: str) -> str:
    return storage.join(work, "features", SLOW.rsplit(".", 1)[-1])


@pytest.fixture(scope="module")
def beside(
    bucket: Client,
    slides: list[Path],
    tmp_path_factory: pytest.TempPathFactory,
    local_ray: None,
) -> Path:
    """The workspace on the disk; the one in the bucket is ``s3://cohort/work``."""
    root = tmp_path_factory.mktemp("beside")
    (root / "slides").mkdir()
    for path in slides:
        (root / "slides" / path.name).symlink_to(path)
    work = str(root / "work")
    patching, extraction = settings(str(root / "slides"), work)
    assert not run_patching(PatchJob.load(overrides=patching.items())).failures
    assert not run_extraction(ExtractJob.load(overrides=extraction.items())).failures
    run("s3://cohort/slides/", "s3://cohort/work", CRANE_RAY_CACHE=str(root / "cache"))
    return root / "work"


def test_a_run_in_a_bucket_gives_the_features_of_one_on_a_disk(
    bucket: Client, slides: list[Path], beside: Path
) -> None:
    entries = (beside.parent / "cache" / "entries").iterdir()
    assert len(list(entries)) == NUM_SLIDES, "slides were staged"
    local = FeatureStore.open(store_root(str(beside)))
    far = FeatureStore.open(store_root("s3://cohort/work"))
    assert far.slide_ids() == local.slide_ids() == sorted(path.stem for path in slides)
    for slide_id in local.slide_ids():
        np.testing.assert_array_equal(far.read(slide_id).features, local.read(slide_id).features)
        np.testing.assert_array_equal(far.read(slide_id).xy, local.read(slide_id).xy)
    prefix = f"{store_root('work')}/slides/"
    written = bucket.content(prefix)
    below = Path(store_root(str(beside)), "slides")
    expected = {str(p.relative_to(below)): p.read_bytes() for p in below.rglob("*") if p.is_file()}
    assert written == expected
    for kind in ("contours", "masks", "stitches", "patches"):
        names = {Path(key).stem for key in bucket.keys(f"work/{kind}/")}
        assert names == {path.stem for path in slides}
    manifests = [json.loads(bucket.get(key)) for key in bucket.keys("work/manifests/")]
    assert sorted(manifest["verb"] for manifest in manifests) == ["extract", "patch"]
    assert bucket.unfinished_uploads() == []


def test_a_rerun_in_a_bucket_has_nothing_to_do(bucket: Client, beside: Path) -> None:
    before = bucket.content(f"{store_root('work')}/slides/")
    assert before
    _, extraction = settings("s3://cohort/slides/", "s3://cohort/work")
    status, output = finish(command(*words("extract", extraction)))
    assert status == 0, output
    assert bucket.content(f"{store_root('work')}/slides/") == before
    status, output = finish(
        command("verify", store_root("s3://cohort/work"), "--set=cluster.num_cpus=2")
    )
    assert status == 0, output
