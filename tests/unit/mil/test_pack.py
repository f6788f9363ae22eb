"""Packs: what is in them, what is left out, and who builds them."""

import json
import multiprocessing
import os
import shutil
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from crane_ray.errors import ConfigError, SlideError, StorageError
from crane_ray.mil import pack as pack_module
from crane_ray.mil import pack_writing
from crane_ray.mil.configs import PackConfig
from crane_ray.mil.pack import Pack, build_pack
from crane_ray.mil.pack_writing import Wanted
from crane_ray.mil.sources import FeatureSource, open_source
from tests.unit.features.test_clam_files import make_slide, put_slide
from tests.unit.mil.test_sources import rows_of, write_h5, write_pt

Array = npt.NDArray[Any]


class Memory:
    """A source whose slides are arrays, or the errors that reading them raises."""

    root = "memory"

    def __init__(self, slides: dict[str, Any], version: str = "1") -> None:
        self.slides, self.version = slides, version
        self.reads: list[str] = []

    def slide_ids(self) -> list[str]:
        return sorted(self.slides)

    def read(self, slide_id: str) -> Array:
        self.reads.append(slide_id)
        found = self.slides[slide_id]
        if isinstance(found, Exception):
            raise found
        return np.asarray(found)

    def identity(self) -> str:
        return self.version

    def provenance(self) -> dict[str, Any]:
        return {}


def config(folder: Path) -> PackConfig:
    return PackConfig(folder=str(folder / "packs"), reserve_gb=0)


def wanted(source: FeatureSource, slide_ids: Sequence[str] | None = None) -> list[Wanted]:
    return [Wanted(slide_id, source, slide_id) for slide_id in slide_ids or source.slide_ids()]


def packed(folder: Path, slides: dict[str, Any]) -> Pack:
    return build_pack(wanted(Memory(slides), list(slides)), config(folder))


def reasons(pack: Pack) -> dict[str, str]:
    return {slide.slide_id: slide.reason for slide in pack.left_out}


def test_a_store_is_packed_as_it_is(tmp_path: Path) -> None:
    store, _ = make_slide(tmp_path / "store")
    more = np.random.default_rng(1).normal(size=(5, 12)).astype(np.float16)
    put_slide(store, "c", more, np.zeros((5, 2), np.int32))
    source = open_source(str(tmp_path / "store"))
    pack = build_pack([Wanted("bare", source, "a.b"), Wanted("c", source, "c")], config(tmp_path))
    assert pack.slide_ids == ("bare", "c")
    assert np.array_equal(pack.read("bare"), store.read("a.b").features)
    assert np.array_equal(pack.read("c"), more)
    assert pack.read("c").dtype == np.float16
    assert (pack.dim, pack.num_patches("c")) == (12, 5)
    assert not pack.left_out


@pytest.mark.parametrize("write", [write_h5, write_pt])
def test_clams_files_are_packed_as_they_are(tmp_path: Path, write: Any) -> None:
    expected = {f"s{number}": rows_of(3 + number, number) for number in range(4)}
    for slide_id, rows in expected.items():
        write(tmp_path, slide_id, rows)
    pack = build_pack(wanted(open_source(str(tmp_path))), config(tmp_path))
    for slide_id, rows in expected.items():
        assert pack.read(slide_id).dtype == np.float32
        assert np.array_equal(pack.read(slide_id), rows)


def test_slides_of_several_sources_lie_in_one_pack(tmp_path: Path) -> None:
    one, two = Memory({"x": rows_of(2)}), Memory({"x": rows_of(3, 1)})
    two.root = "elsewhere"
    pack = build_pack([Wanted("a", one, "x"), Wanted("b", two, "x")], config(tmp_path))
    assert (pack.num_patches("a"), pack.num_patches("b")) == (2, 3)


def test_a_wider_type_anywhere_widens_all_without_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    slides: dict[str, Any] = {
        f"s{number:02}": rng.normal(size=(4, 3)).astype(np.float16) for number in range(60)
    }
    slides["s37"] = rng.normal(size=(4, 3)).astype(np.float32)  # not among those sampled first
    slides["s38"] = rng.normal(size=(4, 3)) * 1e5  # float64, beyond float16
    spread = np.linspace(0, 59, pack_writing.SAMPLED).astype(int)
    assert not {37, 38} & set(spread.tolist())
    source = Memory(slides)
    told: list[int] = []
    pack = build_pack(wanted(source), config(tmp_path), lambda: told.append(1))
    assert len(told) == 60
    assert len(source.reads) == 60 + pack_writing.SAMPLED  # nothing is read again to widen
    for slide_id, rows in slides.items():
        assert pack.read(slide_id).dtype == np.float32
        assert np.array_equal(pack.read(slide_id), rows.astype(np.float32))
    assert not list((tmp_path / "packs").rglob("*.narrow"))


def test_widening_goes_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pack_writing, "WIDENED_BYTES", 64)
    monkeypatch.setattr(pack_writing, "SAMPLED", 1)
    first = np.random.default_rng(0).normal(size=(101, 3)).astype(np.float16)
    pack = packed(tmp_path, {"a": first, "b": rows_of(2)[:, :3]})
    assert np.array_equal(pack.read("a"), first.astype(np.float32))


def test_slides_that_cannot_be_used_are_left_out_with_a_reason(tmp_path: Path) -> None:
    bad, worse = rows_of(5), rows_of(5)
    bad[3, 1], worse[:2, 0] = np.nan, np.inf
    slides = {
        "good": rows_of(4),
        "nan": bad,
        "inf": worse,
        "empty": np.zeros((0, 4), np.float32),
        "long": np.zeros((3, 7), np.float32),
        "huge": np.full((2, 4), 1e200),
        "broken": SlideError("broken.h5 cannot be used: truncated"),
        "fine": rows_of(6, 1),
    }
    pack = packed(tmp_path, slides)
    assert pack.slide_ids == ("good", "fine")
    for slide_id in pack.slide_ids:
        assert np.array_equal(pack.read(slide_id), np.asarray(slides[slide_id]))
    found = reasons(pack)
    assert found["nan"].startswith("1 of its 5 patches have features that are no finite numbers")
    assert "the first is patch 3" in found["nan"]
    assert found["inf"].startswith("2 of its 5") and "patch 0" in found["inf"]
    assert found["empty"].startswith("it has no patches")
    assert "have 7 numbers, those of most slides 4" in found["long"]
    assert found["huge"].startswith("2 of its 2")
    assert found["broken"] == "broken.h5 cannot be used: truncated"
    assert len(found) == 6
    again = packed(tmp_path, slides)
    assert (again.slide_ids, again.left_out) == (pack.slide_ids, pack.left_out)


def test_the_length_is_that_of_most_slides_and_not_of_the_first(tmp_path: Path) -> None:
    slides = {"odd": np.zeros((3, 7), np.float32), "a": rows_of(4, 0), "b": rows_of(6, 1)}
    pack = packed(tmp_path, slides)
    assert (pack.dim, pack.slide_ids) == (4, ("a", "b"))
    assert "have 7 numbers, those of most slides 4" in reasons(pack)["odd"]


def test_the_length_comes_from_slides_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_writing, "SAMPLED", 2)
    broken = SlideError("broken")
    pack = packed(tmp_path, {"a": broken, "b": broken, "c": rows_of(3), "d": np.zeros((0, 9))})
    assert (pack.slide_ids, pack.dim) == (("c",), 4)


def test_nothing_that_can_be_used_is_an_error_that_says_why(tmp_path: Path) -> None:
    broken = SlideError("the file is broken")
    slides = {"a": broken, "b": broken, "c": np.zeros((0, 4))}
    for _ in range(2):  # when it is built, and when it is found
        with pytest.raises(ConfigError, match=r"can be used: 2 x the file is broken; 1 x it has"):
            packed(tmp_path, slides)
    with pytest.raises(ConfigError, match="none was asked for"):
        packed(tmp_path, {})


def test_storage_that_fails_is_no_reason_to_leave_a_slide_out(tmp_path: Path) -> None:
    slides = {"a": rows_of(3), "b": StorageError("s3://bucket/b: timed out")}
    with pytest.raises(StorageError, match=r"^s3://bucket/b: timed out$"):
        packed(tmp_path, slides)
    slides["b"] = rows_of(2)
    assert packed(tmp_path, slides).slide_ids == ("a", "b")


def test_a_pack_is_built_once_and_anew_for_other_features(tmp_path: Path) -> None:
    source = Memory({"a": rows_of(3), "b": rows_of(4)})
    build_pack(wanted(source), config(tmp_path))
    first = len(source.reads)
    build_pack(wanted(source), config(tmp_path))
    assert len(source.reads) == first
    changed = Memory({"a": rows_of(5, 1), "b": rows_of(4)}, version="2")
    pack = build_pack(wanted(changed), config(tmp_path))
    assert np.array_equal(pack.read("a"), rows_of(5, 1))
    some = build_pack(wanted(source, ["b"]), config(tmp_path))
    assert some.slide_ids == ("b",)
    assert build_pack(wanted(source), config(tmp_path)).num_patches("a") == 3


def build_in_a_process(folder: str, ready: Any, counts: Any) -> None:
    source = open_source(f"{folder}/features")
    reads = 0
    plain = source.read

    def read(slide_id: str) -> Array:
        nonlocal reads
        reads += 1
        return plain(slide_id)

    source.read = read  # type: ignore[method-assign]
    ready.wait()
    pack = build_pack(wanted(source), config(Path(folder)))
    counts.put((reads, float(pack.read("s3").sum())))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_build_a_pack_once(tmp_path: Path) -> None:
    for number in range(30):
        write_h5(tmp_path / "features", f"s{number}", rows_of(40, number))
    context = multiprocessing.get_context("fork")
    ready, counts = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=build_in_a_process, args=(str(tmp_path), ready, counts))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = sorted(counts.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert [reads for reads, _ in found] == [0, 30 + pack_writing.SAMPLED]
    assert {total for _, total in found} == {float(rows_of(40, 3).sum())}


def die_while_building(folder: str) -> None:
    source = Memory({"a": rows_of(3), "b": rows_of(4)})
    steps = iter(range(2))

    def advance() -> None:
        if next(steps):
            os._exit(9)

    build_pack(wanted(source), config(Path(folder)), advance)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_what_a_killed_builder_left_is_replaced(tmp_path: Path) -> None:
    process = multiprocessing.get_context("fork").Process(
        target=die_while_building, args=(str(tmp_path),)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    (partial,) = (path for path in (tmp_path / "packs").iterdir() if path.is_dir())
    assert partial.name.startswith(".")
    pack = packed(tmp_path, {"a": rows_of(3), "b": rows_of(4)})
    assert np.array_equal(pack.read("b"), rows_of(4))
    assert not partial.exists()


@pytest.mark.parametrize("fault", ["short", "no features", "no facts", "half facts"])
def test_a_pack_that_was_cut_short_is_built_anew(tmp_path: Path, fault: str) -> None:
    slides = {"a": rows_of(3), "b": rows_of(4)}
    packed(tmp_path, slides)
    (folder,) = (path for path in (tmp_path / "packs").iterdir() if path.is_dir())
    if fault == "short":
        os.truncate(folder / "features.bin", 10)
    elif fault == "half facts":
        (folder / "pack.json").write_text('{"format": 1, "dim"')
    else:
        (folder / ("pack.json" if fault == "no facts" else "features.bin")).unlink()
    assert np.array_equal(packed(tmp_path, slides).read("b"), rows_of(4))


def test_a_disk_without_room_is_an_error_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_000_000_050))
    reserve = PackConfig(folder=str(tmp_path), reserve_gb=3)
    source = Memory({"a": rows_of(3), "b": rows_of(4)})
    with pytest.raises(
        StorageError, match=r"--pack-folder .*: 0.0 GB are free .* larger disk"
    ) as e:
        build_pack(wanted(source), reserve)
    assert str(e.value).count("--pack-folder") == 1
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_disk_that_fills_up_is_an_error_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space left on device; give a larger disk") as e:
        packed(tmp_path, {"a": rows_of(3)})
    assert e.value.errno == 28
    assert not [path for path in (tmp_path / "packs").iterdir() if path.is_dir()]


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "packs").write_text("a file")
    with pytest.raises(ConfigError, match=r"--pack-folder .*packs: .*; give another"):
        packed(tmp_path, {"a": rows_of(3)})


def test_memory_holds_one_slide_at_a_time(tmp_path: Path) -> None:
    class Fresh(Memory):
        def read(self, slide_id: str) -> Array:
            return np.full((1000, 64), int(slide_id), np.float32)

    source = Fresh({f"{number:02}": None for number in range(60)})
    tracemalloc.start()
    pack = build_pack(wanted(source), config(tmp_path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    one = 1000 * 64 * 4
    assert peak < 8 * one
    assert pack.read("42")[999, 63] == 42
    assert isinstance(pack.read("42"), np.memmap)


def test_writing_to_what_was_read_does_not_reach_the_disk(tmp_path: Path) -> None:
    slides = {"a": rows_of(3)}
    packed(tmp_path, slides).read("a")[:] = 0
    assert np.array_equal(packed(tmp_path, slides).read("a"), rows_of(3))


def test_where_packs_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRANE_RAY_PACKS", str(tmp_path / "here"))
    assert PackConfig().root() == tmp_path / "here"
    assert PackConfig(folder=str(tmp_path)).root() == tmp_path
    monkeypatch.delenv("CRANE_RAY_PACKS")
    assert PackConfig().root().name == f"crane-ray-packs-{os.getuid()}"
    with pytest.raises(ValueError, match="own disk is needed, no URI"):
        PackConfig(folder="s3://bucket/packs")


def test_other_formats_have_other_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed(tmp_path, {"a": rows_of(3)})
    monkeypatch.setattr(pack_module, "FORMAT", 2)
    packed(tmp_path, {"a": rows_of(3)})
    folders = [path for path in (tmp_path / "packs").iterdir() if path.is_dir()]
    assert len(folders) == 2
    facts = [json.loads((folder / "pack.json").read_text()) for folder in folders]
    assert all(found["rows"] == {"a": [0, 3]} for found in facts)
