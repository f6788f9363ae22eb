"""What made-up bad nodes are told."""

from dataclasses import replace
from typing import Any

import pytest

from crane_ray.preflight.codecs import CHECKS
from crane_ray.preflight.judging import CODEC_PACKAGES, Finding, Needs, gb, judge
from crane_ray.preflight.report import Disk, Node, StorageCheck
from tests.unit.preflight.machines import GB, SOUND, VERSIONS, gpu_node, node

WORK = "s3://bucket/work"


def only_finding(bad: Node, needs: Needs | None = None) -> Finding:
    (finding,) = judge(SOUND, [node("sound"), bad], needs or Needs())
    assert finding.node == bad.name
    assert finding.found
    assert finding.needed
    assert finding.fix
    return finding


def test_sound_nodes_have_no_findings() -> None:
    assert judge(SOUND, [node("one"), node("two"), gpu_node()], Needs(WORK, staging=True)) == []


@pytest.mark.parametrize(
    ("package", "version", "severity"),
    [
        ("ray", "2.60.1", "error"),
        ("crane-ray", "0.1.1", "error"),
        ("numpy", "1.26.4", "error"),
        ("numpy", "2.4.5", "warning"),
        ("torch", "2.13.0", "warning"),
    ],
)
def test_other_versions_are_errors_only_where_they_break_something(
    package: str, version: str, severity: str
) -> None:
    finding = only_finding(node(versions={**VERSIONS, package: version}))
    assert (finding.severity, finding.check, finding.found) == (severity, package, version)
    assert VERSIONS[package] in finding.needed
    assert f"{package}=={VERSIONS[package]}" in finding.fix


@pytest.mark.parametrize(("python", "severity"), [("3.12.7", "error"), ("3.11.9", "warning")])
def test_another_minor_python_breaks_pickles(python: str, severity: str) -> None:
    finding = only_finding(node(python=python))
    assert (finding.severity, finding.check) == (severity, "python")


def test_a_package_that_is_missing_is_an_error_unless_it_is_of_an_extra() -> None:
    without = {name: version for name, version in VERSIONS.items() if name != "torch"}
    assert only_finding(node(versions=without)).found == "not installed"
    driver = replace(SOUND, versions={**VERSIONS, "timm": "1.0"})
    assert judge(driver, [node()], Needs()) == []
    assert only_finding(node(missing=("timm",))).severity == "error"


def test_a_codec_that_fails_is_an_error_with_its_own_words() -> None:
    finding = only_finding(node(codecs={"OpenSlide": "libopenslide.so: no such file"}))
    assert finding.severity == "error"
    assert "libopenslide.so" in finding.found
    assert "openslide-bin" in finding.fix


def test_every_codec_has_a_package_to_install() -> None:
    assert {name.split()[0] for name in CHECKS} == set(CODEC_PACKAGES)


@pytest.mark.parametrize(
    ("shm", "severity"),
    [
        (None, "error"),
        (Disk("/dev/shm", 64 * 2**20, 64 * 2**20), "warning"),
        (Disk("/dev/shm", 64 * GB, 10**6), "error"),
    ],
)
def test_shared_memory_that_is_missing_small_or_full(shm: Disk | None, severity: str) -> None:
    finding = only_finding(node(shm=shm))
    assert (finding.severity, finding.check) == (severity, "/dev/shm")
    assert "20.0 GB" in finding.needed


def test_shared_memory_is_looked_for_on_linux_alone() -> None:
    assert judge(SOUND, [node(shm=None, system="Darwin")], Needs()) == []


def test_a_small_cache_disk_breaks_a_run_only_where_slides_are_staged() -> None:
    bad = node(cache=Disk("/tmp/cache", 10 * GB, 2 * GB))
    assert only_finding(bad).severity == "warning"
    assert only_finding(bad, Needs(staging=True)).severity == "error"
    unwritable = node(cache=Disk("/data", 900 * GB, 500 * GB, "read-only file system"))
    assert "read-only" in only_finding(unwritable, Needs(staging=True)).found


@pytest.mark.parametrize(
    ("check", "work", "fix"),
    [
        (StorageCheck(reads="no such file"), "/data/work", "mount the same shared filesystem"),
        (StorageCheck(writes="no permission"), "/data/work", "chown"),
        (StorageCheck(reads="access denied"), WORK, "credentials"),
    ],
)
def test_storage_that_cannot_be_used_is_an_error(check: StorageCheck, work: str, fix: str) -> None:
    finding = only_finding(node(storage=check), Needs(work))
    assert (finding.severity, finding.check) == ("error", "storage")
    assert work in finding.needed
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("size", "there", "severity"),
    [(GB, None, "warning"), (GB, GB - 1, "warning"), (30 * GB, None, "error"), (1000, None, None)],
)
def test_weights_that_a_node_lacks_must_fit_the_object_store(
    size: int, there: int | None, severity: str | None
) -> None:
    driver = replace(SOUND, weights={"/w.pth": size})
    findings = judge(driver, [node(weights={"/w.pth": there})], Needs())
    assert [finding.severity for finding in findings] == ([severity] if severity else [])


@pytest.mark.parametrize(
    ("bad", "severity", "words"),
    [
        (gpu_node(torch_gpu="torch 2.14 finds no GPU"), "error", "driver 550.1"),
        (gpu_node(gpus=(), driver=""), "error", "nvidia-smi finds none"),
        (replace(gpu_node(), gpus=0), "warning", "1 x A100"),
    ],
)
def test_gpus_that_cannot_be_used(bad: Node, severity: str, words: str) -> None:
    finding = only_finding(bad)
    assert (finding.severity, finding.check) == (severity, "GPU")
    assert words in finding.found


def test_a_node_that_does_not_answer_is_an_error() -> None:
    finding = only_finding(Node("two", 16, silence="No module named 'crane_ray'"))
    assert finding.severity == "error"
    assert "No module named" in finding.found
    assert "0.1.0" in finding.needed


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_node_without_rates_is_no_error(is_busy: bool) -> None:
    finding = only_finding(replace(node(), unmeasured="why", is_busy=is_busy))
    assert finding.severity == "warning"
    assert ("idle" in finding.fix) == is_busy


def test_errors_come_first_and_equal_findings_are_told_once() -> None:
    old: Any = {"versions": {**VERSIONS, "torch": "2.13.0"}}
    findings = judge(SOUND, [node("a", **old), node("b", **old), node("c", shm=None)], Needs())
    assert [finding.severity for finding in findings] == ["error", "warning"]
    assert findings[1].node == "a, b"


@pytest.mark.parametrize(
    ("size", "words"), [(5, "0.0 kB"), (2e6, "2.0 MB"), (3.5e9, "3.5 GB"), (1.2e13, "12.0 TB")]
)
def test_bytes_in_words(size: float, words: str) -> None:
    assert gb(size) == words
