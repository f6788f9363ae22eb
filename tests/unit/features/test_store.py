import json
import pickle
import shutil
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.parquet as pq
import pytest

from crane_ray import storage
from crane_ray.errors import ConfigError, RecipeMismatchError, StoreError
from crane_ray.features.ledger import GROUP_SLIDES, IndexRow
from crane_ray.features.store import (
    CHUNK_ROWS,
    CHUNKS_PER_SHARD,
    FORMAT_VERSION,
    Array,
    FeatureStore,
    checksum_of,
)
from tests.unit.features.small_store import Cohort, make_cohort, make_recipe, make_store, pipeline


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    """Two slides extracted and committed."""
    made = make_cohort(tmp_path)
    books = made.books()
    with pipeline(made) as worker:
        for shard in list(books.missing_shards()):
            books.take(worker.extract(shard)[0])
    books.flush()
    return made


def test_a_store_is_made_once_and_opened_again(tmp_path: Path) -> None:
    root = str(tmp_path / "x" / "store")
    made = FeatureStore.open_or_create(root, make_recipe())
    assert made.header.chunk_rows == CHUNK_ROWS
    assert made.header.shard_rows == CHUNK_ROWS * CHUNKS_PER_SHARD
    before = (tmp_path / "x" / "store" / "store.json").read_bytes()
    for again in (FeatureStore.open(root), FeatureStore.open_or_create(root, make_recipe())):
        assert again.header == made.header
        assert again.recipe == make_recipe()
    assert (tmp_path / "x" / "store" / "store.json").read_bytes() == before
    assert made.slide_ids() == []


def test_another_recipe_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    root = str(tmp_path / "store")
    FeatureStore.open_or_create(root, make_recipe())
    with pytest.raises(RecipeMismatchError, match=r"dtype[\s\S]*no finished slide yet and may be"):
        FeatureStore.open_or_create(root, make_recipe(dtype="float16"))
    assert FeatureStore.open(root).recipe == make_recipe()


def test_a_store_with_slides_is_never_said_to_be_removable(cohort: Cohort) -> None:
    with pytest.raises(RecipeMismatchError) as caught:
        FeatureStore.open_or_create(cohort.store.root, make_recipe(dtype="float16"))
    assert "removed" not in str(caught.value)


def test_an_unknown_layout_is_refused_also_for_a_store_that_has_one(cohort: Cohort) -> None:
    with pytest.raises(ConfigError, match="zar: no such store; did you mean zarr"):
        FeatureStore.open_or_create(cohort.store.root, make_recipe(), layout="zar")


def test_a_place_without_a_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no feature store there \(no store.json\)"):
        FeatureStore.open(str(tmp_path))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path)
    path = tmp_path / "store.json"
    tree = json.loads(path.read_bytes())
    path.write_text(json.dumps({**tree, "version": FORMAT_VERSION + 1, "news": True}))
    with pytest.raises(StoreError, match=r"format version 2, .* up to 1; upgrade crane-ray"):
        FeatureStore.open(str(tmp_path))
    with pytest.raises(StoreError, match=r"format version 2, .* up to 1; upgrade crane-ray"):
        FeatureStore.open_or_create(str(tmp_path), make_recipe())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": "x"}', "\x00\xff"])
def test_a_broken_header_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "store.json").write_bytes(content.encode("latin1"))
    with pytest.raises(StoreError, match=r"store\.json cannot be used"):
        FeatureStore.open(str(tmp_path))


def test_an_unknown_layout_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    make_store(tmp_path)
    path = tmp_path / "store.json"
    path.write_text(path.read_text().replace('"zarr"', '"zar"'))
    with pytest.raises(StoreError, match="did you mean zarr"):
        FeatureStore.open(str(tmp_path))


@pytest.mark.parametrize(("patches", "shards"), [(1, 1), (8, 1), (9, 2), (16, 2), (21, 3)])
def test_shards_cover_every_row_once(tmp_path: Path, patches: int, shards: int) -> None:
    store = make_store(tmp_path)
    assert store.num_shards(patches) == shards
    rows = [row for shard in range(shards) for row in store.shard_rows(patches, shard)]
    assert rows == list(range(patches))


def test_slides_are_read_once_committed(cohort: Cohort) -> None:
    slide = cohort.store.read("b")
    assert (slide.slide_id, slide.features.shape, slide.xy.shape) == ("b", (21, 12), (21, 2))
    assert slide.recipe == make_recipe()
    assert cohort.store.slide_ids() == ["a", "b"]


def test_a_reader_reads_the_index_once_for_all_slides(
    cohort: Cohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = storage.open_read

    def counted(path: str) -> IO[bytes]:
        opened.append(storage.name_of(path))
        return real(path)

    monkeypatch.setattr(storage, "open_read", counted)
    reader = cohort.store.reader()
    assert reader.slide_ids() == ["a", "b"]
    for slide_id in ("a", "b", "a"):
        slide, alone = reader.read(slide_id), cohort.store.format.read(
            cohort.store.slide_path(slide_id), 0, 21
        )  # fmt: skip
        assert reader.num_patches(slide_id) == len(slide.features) == 21
        np.testing.assert_array_equal(slide.features, alone[0])
        np.testing.assert_array_equal(slide.xy, alone[1])
    assert opened.count("index.parquet") == 1
    for ask in (reader.num_patches, reader.read):
        with pytest.raises(StoreError, match="slide c is not in its index; extract it first"):
            ask("c")


def test_a_reader_keeps_its_slides_while_the_store_changes(cohort: Cohort) -> None:
    store, reader = cohort.store, cohort.store.reader()
    receipts = dict(store.ledger.slides())
    store.discard(receipts["a"].values())
    assert reader.slide_ids() == ["a", "b"]
    with pytest.raises(StoreError, match=r"a\.zarr"):
        reader.read("a")
    assert len(reader.read("b").features) == 21
    assert store.reader().slide_ids() == store.slide_ids() == ["b"]


def test_an_empty_store_has_no_slides(tmp_path: Path) -> None:
    assert make_store(tmp_path).reader().slide_ids() == []


def test_a_reader_of_a_large_index_knows_each_length(tmp_path: Path) -> None:
    store, count = make_store(tmp_path), 2 * GROUP_SLIDES + 7
    rows = {f"s{n:05d}": n * 37 % 1009 for n in range(count)}
    store.index.write(
        IndexRow(slide_id, "", num_patches, 12, None, "c", ())
        for slide_id, num_patches in rows.items()
    )
    assert pq.read_metadata(store.index.path).num_row_groups == 3
    reader = pickle.loads(pickle.dumps(store.reader()))  # as it goes to workers
    assert reader.slide_ids() == sorted(rows)
    assert {slide_id: reader.num_patches(slide_id) for slide_id in rows} == rows


def test_the_recipe_at_a_place_is_that_of_its_store(tmp_path: Path) -> None:
    assert FeatureStore.recipe_at(str(tmp_path)) is None
    make_store(tmp_path)
    assert FeatureStore.recipe_at(str(tmp_path)) == make_recipe()
    (tmp_path / "store.json").write_text("{}")
    with pytest.raises(StoreError, match=r"store\.json cannot be used"):
        FeatureStore.recipe_at(str(tmp_path))


def test_a_slide_is_not_there_before_it_is_in_the_index(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, 1)
    with pipeline(cohort) as worker:
        for shard in cohort.shards():
            worker.extract(shard)
    assert Path(cohort.store.slide_path("a")).exists()
    with pytest.raises(StoreError, match="slide a is not in its index; extract it first"):
        cohort.store.read("a")


def test_a_slide_without_its_arrays_is_an_error(cohort: Cohort) -> None:
    shutil.rmtree(cohort.store.slide_path("a"))
    with pytest.raises(StoreError, match=r"a\.zarr: the metadata of features are missing"):
        cohort.store.read("a")
    assert cohort.store.damaged_shards(cohort.store.index.read()["a"]) == [0, 1, 2]


def test_discarding_takes_a_slide_out_everywhere(cohort: Cohort) -> None:
    store = cohort.store
    receipts = dict(store.ledger.slides())
    store.discard(receipts["a"].values())
    assert store.slide_ids() == ["b"]
    assert not Path(store.slide_path("a")).exists()
    assert {r.status for r in dict(store.ledger.slides())["a"].values()} == {"discarded"}
    assert dict(store.ledger.slides())["b"] == receipts["b"]
    assert not store.damaged_shards(store.index.read()["b"])
    assert [(s.slide_id, s.shard) for s in cohort.shards()] == [("a", 0), ("a", 1), ("a", 2)]


@pytest.mark.parametrize("array", ["features", "coords"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_damage_is_found_in_its_shard(cohort: Cohort, array: str, damage: str) -> None:
    row = cohort.store.index.read()["a"]
    assert cohort.store.damaged_shards(row) == []
    chunk = Path(cohort.store.slide_path("a")) / array / "c" / "3" / "0"
    data = bytearray(chunk.read_bytes())
    data[5] ^= 1
    chunk.unlink()
    if damage != "gone":
        chunk.write_bytes(data if damage == "flip" else data[:-3])
    assert cohort.store.damaged_shards(row) == [1]


def test_checksums_tell_rows_types_and_coordinates_apart() -> None:
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    xy = np.arange(8, dtype=np.int32).reshape(4, 2)
    mine = checksum_of(features, xy)
    assert checksum_of(np.asfortranarray(features), xy.astype(np.int64)) == mine
    others: list[tuple[Array, Array]] = [
        (features[::-1], xy),
        (features, xy[::-1]),
        (features.astype(np.float16), xy),
        (features + 1, xy),
    ]
    assert len({mine, *(checksum_of(*rows) for rows in others)}) == 5
