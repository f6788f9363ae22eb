"""Features of other tools into a store: the recipe, the rows, and what is refused."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from crane_ray.errors import ConfigError, RecipeMismatchError
from crane_ray.features.clam_files import clam_file, export_slide, has_coords
from crane_ray.features.commits import Books
from crane_ray.features.feature_files import FeatureFiles, list_feature_files
from crane_ray.features.import_recipe import (
    Asked,
    Look,
    conflict,
    decide_recipe,
    imported_encoder,
    look,
)
from crane_ray.features.importing import import_shards
from crane_ray.features.ledger import Receipt
from crane_ray.features.recipe import FeatureType, Recipe
from crane_ray.features.store import FeatureStore
from crane_ray.slides.patches import PatchSpec
from crane_ray.slides.scale import GivenScale
from crane_ray.slides.workspace import SlideRow, Workspace
from tests.unit.features.small_store import files_below
from tests.unit.features.test_clam_files import make_slide
from tests.unit.features.test_feature_files import (
    DIM,
    TRIDENT,
    make_features,
    write_h5,
    write_pt,
)

SCALE = GivenScale(size_px=256, mpp=0.5)
KIDNEY = Path(__file__).resolve().parents[3].parent / "shared/data/bags/tcga_kidney"


def seen(slide_id: str = "s", **fields: Any) -> Look:
    return replace(Look(slide_id, 9, DIM, "float32", "i"), **fields)


def decide(
    *looks: Look, scale: GivenScale = SCALE, dtype: FeatureType | None = None,
    settled: Recipe | None = None,
) -> Recipe:  # fmt: skip
    return decide_recipe(looks, Asked("uni_v1", scale, dtype), "clam", settled)


def test_a_recipe_says_what_is_known_and_what_is_not() -> None:
    recipe = decide(seen())
    assert recipe.patch == PatchSpec(size_px=256, mpp=0.5)
    assert recipe.encoder == imported_encoder("uni_v1", DIM)
    assert recipe.encoder.weights_sha256 == "imported"
    assert recipe.encoder.precision == "unknown"
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize(
    ("dtypes", "dtype", "expected"),
    [
        (["float16", "float16"], None, "float16"),
        (["float16", "float32"], None, "float32"),
        (["float64"], None, "float32"),
        (["float32"], "float16", "float16"),
        (["float16"], "float32", "float32"),
    ],
)
def test_the_type_is_that_of_the_files_unless_asked_for(
    dtypes: list[str], dtype: FeatureType | None, expected: str
) -> None:
    assert decide(*(seen(dtype=given) for given in dtypes), dtype=dtype).dtype == expected


def test_most_files_decide_and_the_others_are_refused() -> None:
    looks = [seen("a", dim=512), seen("b"), seen("c"), seen("d", problem="cut", dim=512),
             seen("e", num_patches=0, dim=512), seen("f", dim=512, problem="cut")]  # fmt: skip
    recipe = decide(*looks)
    assert recipe.encoder.dim == DIM
    assert conflict(looks[0], recipe).startswith("its file says features of length 512")
    assert conflict(looks[1], recipe) == ""
    assert conflict(looks[3], recipe) == "cut"
    assert "encoder named conch" in conflict(seen(encoder="conch"), recipe, "uni_v1")
    assert "patch size in pixels of 512" in conflict(seen(size_px=512), recipe)
    assert conflict(seen(level=1), recipe) == ""
    assert "level of 1" in conflict(seen(level=1), decide(seen(size_px=256, level=0),
                                                         scale=GivenScale()))  # fmt: skip


def test_the_files_own_scale_is_used() -> None:
    recipe = decide(seen(size_px=224, level=1), scale=GivenScale())
    assert recipe.patch == PatchSpec(size_px=224, level=1)
    recipe = decide(seen(size_px=256, step_px=192, magnification="20.0"), scale=GivenScale(mpp=0.5))
    assert recipe.patch == PatchSpec(size_px=256, step_px=192, mpp=0.5)


@pytest.mark.parametrize(
    ("found", "scale", "message"),
    [
        (seen(), GivenScale(), "size and scale .* --patch-size .* and --mpp .* or --patch-level"),
        (seen(), GivenScale(mpp=0.5), "give --patch-size"),
        (seen(size_px=256, magnification="20"), GivenScale(), r"they say 20x.* give --mpp"),
        (seen(), GivenScale(size_px=256), "give --mpp"),
        (seen(), GivenScale(size_px=256, mpp=1, level=1), "one scale is needed"),
        (seen(problem="cut"), SCALE, "none of its slides has features"),
    ],
)
def test_nothing_is_guessed(found: Look, scale: GivenScale, message: str) -> None:
    with pytest.raises(ConfigError, match=f"--from clam.*{message}"):
        decide(found, scale=scale)


def test_a_store_settles_what_is_left_open() -> None:
    settled = decide(seen(), dtype="float16")
    again = decide(seen("x", dim=99), seen("y", dim=99), scale=GivenScale(), settled=settled)
    assert again == settled


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Slides a (h5 and pt), b (h5 of TRIDENT's), c (pt alone)."""
    folder = tmp_path / "clam"
    coords = np.arange(10_000).reshape(5000, 2)
    features = make_features(5000)
    write_h5(folder / "h5_files" / "a.h5", features, coords)
    write_pt(folder / "pt_files" / "a.pt", features)
    write_h5(folder / "h5_files" / "b.h5", features[None, :100], coords[None, :100], TRIDENT)
    write_pt(folder / "pt_files" / "c.pt", features[:2048])
    return folder


def run(
    folder: Path, root: Path, *, layout: str = "zarr", asked: Asked | None = None,
    replace_stale: bool = False, stop_after: int = 10**9,
) -> tuple[FeatureStore, Books]:  # fmt: skip
    """An import as the job does it, without Ray; ``stop_after`` receipts it dies."""
    asked = asked or Asked("uni_v1", SCALE)
    files = {item.slide_id: item for item in list_feature_files(str(folder))}
    looks = [look(item) for item in files.values()]
    recipe = decide_recipe(looks, asked, str(folder))
    store = FeatureStore.open_or_create(str(root), recipe, layout=layout)
    rows = {
        item.slide_id: SlideRow(
            item.slide_id, "", "ok", num_patches=item.num_patches,
            spec_fingerprint=recipe.patch.fingerprint(), coords_checksum=item.identity,
        )
        for item in looks if not item.problem
    }  # fmt: skip
    books = Books(store, Workspace(str(root)), rows, replace_stale=replace_stale)
    taken = 0
    for slide_id, shards in groupby(books.missing_shards(), key=lambda shard: shard.slide_id):
        receipts = import_shards(
            store, files[slide_id], list(shards), may_round=asked.dtype is not None
        )
        for receipt in receipts:
            if taken == stop_after:
                return store, books
            books.take(receipt)
            taken += 1
    books.flush()
    return store, books


@pytest.mark.parametrize("layout", ["zarr", "parquet"])
def test_features_and_coordinates_are_those_of_the_files(
    folder: Path, tmp_path: Path, layout: str
) -> None:
    store, books = run(folder, tmp_path / "store", layout=layout)
    assert (books.done, books.failed) == ({"a", "b", "c"}, {})
    for slide_id, shards in store.ledger.slides():
        for receipt in shards.values():
            assert receipt.host.endswith(f":{os.getpid()}")
            assert datetime.fromisoformat(receipt.written).tzinfo is UTC
            assert receipt.reader == {"a": "h5+pt", "b": "h5", "c": "pt"}[slide_id]
    expected = make_features(5000)
    for slide_id, rows in (("a", 5000), ("b", 100), ("c", 2048)):
        found = store.read(slide_id)
        assert found.features.dtype == np.float32
        np.testing.assert_array_equal(found.features, expected[:rows])
        if slide_id == "c":
            assert not has_coords(found.xy)
        else:
            np.testing.assert_array_equal(found.xy, np.arange(10_000).reshape(5000, 2)[:rows])
    for row in store.index.read().values():
        assert store.damaged_shards(row) == []
    readers = {slide_id: shards[0].reader for slide_id, shards in store.ledger.slides()}
    assert readers == {"a": "h5+pt", "b": "h5", "c": "pt"}


def test_what_the_files_say_of_the_patches_is_kept(folder: Path, tmp_path: Path) -> None:
    import zarr

    store, _ = run(folder, tmp_path / "store")
    attributes: Any = dict(zarr.open_group(store.slide_path("b"), mode="r").attrs)
    assert attributes["footprint_xy_level0_px"] == [512.0, 512.0]
    assert attributes["coords"] is True
    assert attributes["imported"]["target_magnification"] == 20
    assert "savetodir" not in attributes["imported"]
    bare: Any = dict(zarr.open_group(store.slide_path("c"), mode="r").attrs)
    assert (bare["coords"], bare["mpp"], bare["footprint_xy_level0_px"]) == (False, None, None)


@pytest.mark.parametrize("layout", ["zarr", "parquet"])
@pytest.mark.parametrize("stop_after", [0, 1, 2, 4])
def test_an_import_that_was_interrupted_goes_on_to_the_same_bytes(
    folder: Path, tmp_path: Path, layout: str, stop_after: int
) -> None:
    undisturbed, _ = run(folder, tmp_path / "one", layout=layout)
    run(folder, tmp_path / "two", layout=layout, stop_after=stop_after)
    store, books = run(folder, tmp_path / "two", layout=layout)
    assert books.done | books.skipped == {"a", "b", "c"}
    assert files_below(tmp_path / "two/slides") == files_below(tmp_path / "one/slides")
    assert store.slide_ids() == undisturbed.slide_ids()
    _, again = run(folder, tmp_path / "two", layout=layout)
    assert (again.done, again.skipped) == (set(), {"a", "b", "c"})


def test_changed_files_are_noticed(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "store")
    changed = make_features(2048)
    write_pt(folder / "pt_files" / "c.pt", changed)
    store, books = run(folder, tmp_path / "store")
    assert list(books.failed) == ["c"]
    assert "--replace-stale" in books.failed["c"]
    store, books = run(folder, tmp_path / "store", replace_stale=True)
    assert (books.done, books.skipped) == ({"c"}, {"a", "b"})
    np.testing.assert_array_equal(store.read("c").features, changed)


def test_a_file_that_changes_in_mid_run_is_an_error(folder: Path, tmp_path: Path) -> None:
    store, _ = run(folder, tmp_path / "store", stop_after=0)
    rows = {"c": SlideRow("c", "", "ok", num_patches=2048, coords_checksum="other",
                          spec_fingerprint=store.recipe.patch.fingerprint())}  # fmt: skip
    shards = list(Books(store, Workspace(""), rows).missing_shards())
    files = FeatureFiles("c", pt=str(folder / "pt_files" / "c.pt"))
    (receipt,) = import_shards(store, files, shards, may_round=False)
    assert (receipt.status, receipt.slide_id) == ("error", "c")
    assert "changed since the run began" in receipt.error
    assert not receipt.fatal


def only(tmp_path: Path, features: Any, dtype: FeatureType | None = None) -> tuple[Any, Receipt]:
    """What came of a folder with one slide."""
    write_pt(tmp_path / "one" / "s.pt", features)
    asked = Asked("uni_v1", SCALE, dtype)
    store, _ = run(tmp_path / "one", tmp_path / "store", asked=asked)
    ((_, shards),) = store.ledger.slides()
    return store, shards[max(shards)]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    features = make_features()
    features[5, 2] = value
    store, receipt = only(tmp_path, features)
    assert "NaN or infinite" in receipt.error
    assert store.slide_ids() == []


def test_nothing_is_rounded_unasked_and_nothing_overflows(tmp_path: Path) -> None:
    features = make_features()
    store, receipt = only(tmp_path / "a", features, "float16")
    assert receipt.status == "ok"
    np.testing.assert_array_equal(store.read("s").features, features.astype(np.float16))
    features[1, 1] = 70_000
    store, receipt = only(tmp_path / "b", features, "float16")
    assert "reach 70000, beyond the range of float16" in receipt.error
    _, receipt = only(tmp_path / "c", make_features(dtype="float64"))
    assert "would be rounded" in receipt.error
    _, receipt = only(tmp_path / "d", make_features(dtype="float64").astype("f4").astype("f8"))
    assert receipt.status == "ok"


@pytest.mark.parametrize("layout", ["zarr", "parquet"])
@pytest.mark.parametrize("kinds", [("h5", "pt"), ("h5",)])
def test_out_to_clam_and_in_again_changes_nothing(tmp_path: Path, layout: str, kinds: Any) -> None:
    store, row = make_slide(tmp_path / "store", layout)
    before = store.read(row.slide_id)
    export_slide(store, row, str(tmp_path / "clam"), kinds)
    asked = Asked(store.recipe.encoder.name, GivenScale(), "float16")
    back, books = run(tmp_path / "clam", tmp_path / "back", layout=layout, asked=asked)
    assert books.done == {row.slide_id}
    after = back.read(row.slide_id)
    np.testing.assert_array_equal(after.features, before.features)
    np.testing.assert_array_equal(after.xy, before.xy)
    assert back.recipe == store.recipe
    with pytest.raises(ConfigError, match="give --patch-size"):
        run(tmp_path / "clam", tmp_path / "other", asked=Asked("another", GivenScale()))


def test_imported_features_are_never_mixed_with_extracted_ones(
    tmp_path: Path, folder: Path
) -> None:
    store, _ = make_slide(tmp_path / "store", dtype="float32")
    with pytest.raises(RecipeMismatchError, match=r"encoder\.weights_sha256"):
        run(folder, tmp_path / "store", asked=Asked(store.recipe.encoder.name, SCALE))


def test_a_look_never_raises(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    path.write_text("text")
    assert "s.h5 cannot be used" in look(FeatureFiles("s", h5=str(path))).problem
    write_h5(path, make_features(), np.zeros((9, 2), int), {"patch_size": 256.5})
    assert "patch_size is 256.5" in look(FeatureFiles("s", h5=str(path))).problem
    empty = look(FeatureFiles("s", h5=write_h5(path, np.zeros((0, 4), "f4"))))
    assert (empty.problem, empty.num_patches) == ("", 0)


@pytest.mark.skipif(not KIDNEY.exists(), reason="no TCGA kidney bags in ../shared/data/bags")
def test_real_bags_without_coordinates_come_in_and_go_out_unchanged(tmp_path: Path) -> None:
    import torch

    clam = tmp_path / "clam" / "pt_files"
    clam.mkdir(parents=True)
    chosen = sorted((KIDNEY / "pt_files").glob("*.pt"))[:40]
    for path in chosen:
        (clam / path.name).symlink_to(path)
    asked = Asked("hipt", GivenScale(size_px=4096, mpp=0.5))
    store, books = run(tmp_path / "clam", tmp_path / "store", layout="parquet", asked=asked)
    assert (len(books.done), books.failed) == (len(chosen), {})
    for row in store.index.read().values():
        export_slide(store, row, str(tmp_path / "out"))
        there = torch.load(clam / f"{row.slide_id}.pt", weights_only=True)
        out = torch.load(clam_file(str(tmp_path / "out"), row.slide_id, "pt"), weights_only=True)
        assert out.equal(there)
        with h5py.File(clam_file(str(tmp_path / "out"), row.slide_id, "h5")) as file:
            assert list(file) == ["features"]
