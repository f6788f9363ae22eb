"""The Parquet layout besides its contract: what lies there, what is opened, what is refused."""

import io
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane_ray.errors import StoreError
from crane_ray.features.ledger import IndexRow
from crane_ray.features.store import Array, FeatureStore, SlideHeader, StoreHeader, checksum_of
from crane_ray.features.stores import parquet
from crane_ray.features.stores.parquet import FORMAT
from tests.unit.features.small_store import CHUNK_ROWS, SHARD_ROWS, files_below, make_recipe

DIM = 5
FACTS: dict[str, Any] = {"slide_id": "s", "mpp": 0.25, "target_mpp": None, "xy": [1.5, 2]}


def make_rows(num_patches: int, dtype: str = "float16") -> tuple[SlideHeader, Array, Array]:
    rng = np.random.default_rng(num_patches)
    features = rng.normal(size=(num_patches, DIM)).astype(dtype)
    xy = rng.integers(-(2**31), 2**31, (num_patches, 2)).astype(np.int32)
    return SlideHeader("s", num_patches, DIM, dtype, CHUNK_ROWS, FACTS), features, xy


def write(path: str, num_patches: int, shard_rows: int = SHARD_ROWS, dtype: str = "float16") -> Any:
    header, features, xy = make_rows(num_patches, dtype)
    for start in range(0, num_patches, shard_rows):
        rows = slice(start, start + shard_rows)
        FORMAT.write(path, header, start, features[rows], xy[rows])
    return header, features, xy


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_part_is_what_the_format_says(tmp_path: Path, dtype: str) -> None:
    path = FORMAT.path(str(tmp_path), "a.b")
    _, features, xy = write(path, SHARD_ROWS + 3, dtype=dtype)
    assert sorted(files_below(tmp_path)) == [
        "a.b/part-000000000.parquet",
        f"a.b/part-{SHARD_ROWS:09d}.parquet",
    ]
    table = pq.read_table(Path(path, f"part-{SHARD_ROWS:09d}.parquet"))
    width = DIM * np.dtype(dtype).itemsize
    assert table.schema.remove_metadata() == pa.schema(
        [
            pa.field("x", pa.int32(), nullable=False),
            pa.field("y", pa.int32(), nullable=False),
            pa.field("features", pa.binary(width), nullable=False),
        ]
    )
    assert table["x"].to_pylist() == xy[SHARD_ROWS:, 0].tolist()
    assert table["y"].to_pylist() == xy[SHARD_ROWS:, 1].tolist()
    assert b"".join(table["features"].to_pylist()) == features[SHARD_ROWS:].tobytes()
    metadata = pq.read_metadata(Path(path, "part-000000000.parquet"))
    assert metadata.num_row_groups == 1
    assert metadata.row_group(0).column(2).compression == "UNCOMPRESSED"


def test_what_is_read_belongs_to_the_reader(tmp_path: Path) -> None:
    """Torch warns of arrays that cannot be written to, whatever the number of parts."""
    for num_patches in (3, SHARD_ROWS + 3):
        path = FORMAT.path(str(tmp_path), str(num_patches))
        write(path, num_patches)
        for array in FORMAT.read(path, 0, num_patches):
            assert array.flags.writeable
            assert array.flags.c_contiguous


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 40), st.sampled_from([4, 8, 12]))
def test_any_rows_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, rows: int, shard: int
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "ranges" / f"{rows}-{shard}")
    _, features, xy = write(path, rows, shard)
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.none() | st.integers(start + 1, rows))
    found = FORMAT.read(path, start, stop)
    np.testing.assert_array_equal(found[0], features[start:stop])
    np.testing.assert_array_equal(found[1], xy[start:stop])


def test_only_the_parts_that_are_needed_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "s")
    write(path, 4 * SHARD_ROWS)
    opened: list[str] = []
    table = parquet._table

    def counted(part: str) -> pa.Table:
        opened.append(part)
        return table(part)

    monkeypatch.setattr(parquet, "_table", counted)
    FORMAT.read(path, SHARD_ROWS + 2, 3 * SHARD_ROWS)
    names = [part.rsplit("/", 1)[-1] for part in opened]
    assert names == [f"part-{SHARD_ROWS:09d}.parquet", f"part-{2 * SHARD_ROWS:09d}.parquet"]


@pytest.mark.parametrize("stop", [SHARD_ROWS + 1, 3 * SHARD_ROWS + 1])
def test_rows_that_a_slide_does_not_have_are_refused(tmp_path: Path, stop: int) -> None:
    path = str(tmp_path / "s")
    write(path, SHARD_ROWS)
    with pytest.raises(StoreError, match=r"rows 0 to .* cannot be read.*crane-ray verify"):
        FORMAT.read(path, 0, stop)


def test_parts_of_two_plans_are_never_read_together(tmp_path: Path) -> None:
    path, other = str(tmp_path / "s"), str(tmp_path / "other")
    header, features, xy = write(path, 2 * SHARD_ROWS)
    changed = SlideHeader("s", header.num_patches, DIM, "float16", CHUNK_ROWS, {"mpp": 0.5})
    FORMAT.write(other, changed, SHARD_ROWS, features[SHARD_ROWS:], xy[SHARD_ROWS:])
    name = f"part-{SHARD_ROWS:09d}.parquet"
    Path(path, name).write_bytes(Path(other, name).read_bytes())
    with pytest.raises(StoreError, match="belongs to other arrays"):
        FORMAT.read(path, 0, None)
    begun = str(tmp_path / "begun")
    FORMAT.write(begun, header, 0, features[:SHARD_ROWS], xy[:SHARD_ROWS])
    with pytest.raises(StoreError, match="arrays of other patches"):
        FORMAT.write(begun, changed, SHARD_ROWS, features[SHARD_ROWS:], xy[SHARD_ROWS:])
    with pytest.raises(StoreError, match="arrays of other patches"):
        FORMAT.write(path, header, SHARD_ROWS, features[SHARD_ROWS:], xy[SHARD_ROWS:])


def test_a_file_of_another_name_or_make_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    write(path, 2 * SHARD_ROWS)
    first, second = (Path(path, f"part-{start:09d}.parquet") for start in (0, SHARD_ROWS))
    data = second.read_bytes()
    second.write_bytes(first.read_bytes())
    with pytest.raises(StoreError, match="belongs to other arrays"):
        FORMAT.read(path, SHARD_ROWS, None)
    pq.write_table(pa.table({"x": [1]}), second)
    with pytest.raises(StoreError, match="cannot be read"):
        FORMAT.read(path, SHARD_ROWS, None)
    pq.write_table(pq.read_table(io.BytesIO(data)).slice(0, 0), second)
    with pytest.raises(StoreError, match=f"part {SHARD_ROWS} is empty"):
        FORMAT.read(path, SHARD_ROWS, None)
    second.write_bytes(data)
    FORMAT.read(path, 0, None)


def test_parts_lie_on_any_filesystem(tmp_path: Path) -> None:
    path = FORMAT.path(f"memory://{tmp_path.name}/slides", "s")
    _, features, xy = write(path, 2 * SHARD_ROWS + 1)
    found = FORMAT.read(path, 3, 2 * SHARD_ROWS + 1)
    np.testing.assert_array_equal(found[0], features[3:])
    np.testing.assert_array_equal(found[1], xy[3:])
    fsspec.filesystem("memory").rm(path, recursive=True)
    with pytest.raises(StoreError):
        FORMAT.read(path, 0, None)


def test_a_store_of_this_layout_tells_a_flipped_bit(tmp_path: Path) -> None:
    recipe = make_recipe()
    header = StoreHeader(
        layout="parquet",
        chunk_rows=CHUNK_ROWS,
        shard_rows=SHARD_ROWS,
        recipe=recipe,
        recipe_fingerprint=recipe.fingerprint(),
    )
    (tmp_path / "store.json").write_text(header.model_dump_json())
    store = FeatureStore.open(str(tmp_path))
    _, features, xy = write(store.slide_path("s"), 3 * SHARD_ROWS - 1, dtype="float32")
    parts = [slice(start, start + SHARD_ROWS) for start in range(0, len(features), SHARD_ROWS)]
    checksums = tuple(checksum_of(features[rows], xy[rows]) for rows in parts)
    row = IndexRow("s", "", len(features), DIM, None, "", checksums)
    store.index.write([row])
    assert store.damaged_shards(row) == []
    np.testing.assert_array_equal(store.read("s").features, features)
    part = Path(store.slide_path("s"), f"part-{SHARD_ROWS:09d}.parquet")
    data = bytearray(part.read_bytes())
    where = bytes(data).index(features[SHARD_ROWS + 2].tobytes())
    data[where + 3] ^= 1
    part.write_bytes(data)
    assert store.damaged_shards(row) == [1]
    part.unlink()
    assert store.damaged_shards(row) == [1]
    Path(store.slide_path("s"), "part-000000000.parquet").unlink()
    assert store.damaged_shards(row) == [0, 1]
