"""What a node has to see of what the driver sees, and how it tells."""

from pathlib import Path

import pytest

from crane_ray.cli.submission import JOBS
from crane_ray.runtime.job_paths import FOLDERS, INPUTS
from crane_ray.runtime.jobs import ExtractJob, PatchJob
from crane_ray.runtime.landmarks import ON_EVERY_NODE, View, landmarks_of, unseen, view
from crane_ray.version import __version__


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A shared folder as the driver's node sees it."""
    (tmp_path / "shared" / "slides").mkdir(parents=True)
    (tmp_path / "shared" / "slides" / "a.svs").touch()
    (tmp_path / "shared" / "slides.csv").write_text("uri\n")
    return tmp_path / "shared"


def patch(slides: Path | str, work: Path | str) -> PatchJob:
    return PatchJob.load(overrides=[("slides.source", str(slides)), ("work", str(work))])


def extract(**settings: Path | str) -> ExtractJob:
    named = [(name.replace("__", "."), str(value)) for name, value in settings.items()]
    return ExtractJob.load(overrides=named)


def unmounted(shared: Path) -> None:
    """The same machine as a node sees it that has only the mount point."""
    shared.rename(shared.with_name("away"))
    shared.mkdir()


def test_where_all_see_the_same_nothing_is_said(shared: Path) -> None:
    tree = patch(shared / "slides" / "*.svs", shared / "new" / "work")
    assert unseen(landmarks_of("patch", tree)) == []


def test_a_mount_point_with_nothing_mounted_is_told(shared: Path) -> None:
    found = landmarks_of("patch", patch(shared / "slides", shared / "new" / "work"))
    unmounted(shared)
    slides, work = unseen(found)
    assert slides == f"slides.source {shared}/slides: {shared}/slides is not there"
    assert work.startswith(f"work {shared}/new/work: {shared} is there, but holds other things")
    assert "not mounted" in work


def test_a_folder_that_changes_meanwhile_is_the_same_folder(shared: Path) -> None:
    found = landmarks_of("patch", patch(shared / "slides", shared))
    (shared / "slides.csv").unlink()
    assert unseen(found) == []


def test_an_empty_folder_has_to_be_there_and_no_more(shared: Path) -> None:
    (shared / "empty").mkdir()
    found = landmarks_of("extract", extract(work=shared / "empty"))
    assert unseen(found) == []
    (shared / "empty").rmdir()
    assert len(unseen(found)) == 1


def test_what_the_driver_alone_reads_is_not_asked_for(shared: Path) -> None:
    job = patch(shared / "slides.csv", "s3://b/work")
    job = job.model_copy(update={"process_list": str(shared / "p.csv")})
    assert landmarks_of("patch", job) == ()
    weights = extract(work="s3://b/w", encoder__weights=shared / "uni.bin")
    assert landmarks_of("extract", weights) == ()


def test_a_place_that_not_even_the_driver_sees_proves_nothing() -> None:
    assert landmarks_of("extract", extract(work="/nowhere/at/all")) == ()


def test_a_node_tells_which_crane_ray_it_has(shared: Path) -> None:
    found = landmarks_of("patch", patch(shared / "slides", shared / "new"))
    assert view(found) == View(__version__, ())
    unmounted(shared)
    assert len(view(found).unseen) == 2


def test_verbs_and_keys_are_those_that_there_are() -> None:
    assert set(ON_EVERY_NODE) <= set(JOBS)
    assert {key for keys in ON_EVERY_NODE.values() for key in keys} <= {*INPUTS, *FOLDERS}
    assert set(JOBS) - set(ON_EVERY_NODE) == {"splits", "report", "doctor", "plan"}
