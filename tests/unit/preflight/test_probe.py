"""The probe on this machine, and on one where something is amiss."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crane_ray import storage
from crane_ray.errors import StorageError
from crane_ray.preflight import codecs, probe
from crane_ray.preflight.judging import Needs, judge
from crane_ray.preflight.report import Asked, Gpu, Node, StorageCheck
from crane_ray.slides.staging import default_folder

TOKEN = "0123"


def test_this_machine_is_like_itself(tmp_path: Path) -> None:
    (tmp_path / "driver").write_text(TOKEN)
    (tmp_path / "w.pth").write_bytes(b"12345")
    weights = (str(tmp_path / "w.pth"), str(tmp_path / "none.pth"))
    asked = Asked(markers=str(tmp_path), token=TOKEN, weights=weights, packages=("no_such_one",))
    report = probe.probe(asked)
    assert report.codecs == dict.fromkeys(codecs.CHECKS, "")
    assert report.weights == {weights[0]: 5, weights[1]: None}
    assert report.missing == ("no_such_one",)
    assert report.storage == StorageCheck()
    assert report.versions["ray"]
    assert report.cache.folder == default_folder()
    assert 0 < report.cache.free_bytes <= report.cache.total_bytes
    other = probe.probe(Asked())
    judged = judge(report, [Node("this", 2, object_store_bytes=1, report=other)], Needs())
    assert {finding.check for finding in judged} <= {"cache disk", "/dev/shm", "GPU"}


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("openslide", "OpenSlide"),
        ("simplejpeg", "simplejpeg (JPEG)"),
        ("imagecodecs", "imagecodecs (JPEG 2000)"),
        ("cv2", "OpenCV"),
    ],
)
def test_a_library_that_is_not_there_is_an_answer(
    module: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert module in probe.check_codecs()[library]


def test_a_codec_that_gives_other_pixels_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    import simplejpeg

    right: Any = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda data: right(data) + 50)
    assert "grey levels off" in probe.check_codecs()["simplejpeg (JPEG)"]


def test_the_probe_needs_no_package_to_be_loaded() -> None:
    hidden = ["numpy", "pydantic", "yaml", "fsspec", "cv2", "openslide", "ray", "torch"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({hidden!r}))\n"
        "from crane_ray.preflight.probe import probe\n"
        "from crane_ray.preflight.report import Asked\n"
        "print(all(probe(Asked(markers='/x', token='y')).codecs.values()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_another_folder_of_the_same_name_is_not_shared_storage(tmp_path: Path) -> None:
    checked = probe.check_storage(str(tmp_path / "not mounted"), TOKEN)
    assert "cannot be read" in checked.reads
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "driver").write_text("another run's")
    assert TOKEN in probe.check_storage(str(tmp_path), TOKEN).reads


def test_storage_that_only_reads_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "driver").write_text(TOKEN)

    def refuse(path: str, data: bytes) -> None:
        raise StorageError(f"{path}: cannot be written: the filesystem is read-only")

    monkeypatch.setattr(storage, "put_bytes", refuse)
    checked = probe.check_storage(str(tmp_path), TOKEN)
    assert not checked.reads
    assert "read-only" in checked.writes


def test_a_disk_is_looked_at_through_the_nearest_folder_there_is(tmp_path: Path) -> None:
    disk = probe.check_disk(str(tmp_path / "a" / "b"))
    assert (disk.problem, disk.total_bytes > 0) == ("", True)
    assert list(tmp_path.iterdir()) == []


def test_gpus_are_read_from_what_nvidia_smi_prints() -> None:
    text = "NVIDIA A100-SXM4-80GB, 81920, 550.54.15\nNVIDIA GB10, [N/A], 550.54.15\n"
    gpus, driver = probe.parse_gpus(text)
    assert gpus == (Gpu("NVIDIA A100-SXM4-80GB", 80 * 2**30), Gpu("NVIDIA GB10", 0))
    assert driver == "550.54.15"
    assert probe.parse_gpus("") == ((), "")
