import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from crane_ray import storage
from crane_ray.errors import ConfigError, CraneError
from crane_ray.slides.listing import Entry, list_slides, read_table
from tests.object_storage import S3


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def ids(source: Path | str, *, recursive: bool = False) -> list[str]:
    return [entry.slide_id for entry in list_slides(str(source), recursive=recursive)]


def table_of(folder: Path, text: str) -> list[Entry]:
    path = folder / "cohort.csv"
    path.write_text(text)
    return list_slides(str(path))


def test_a_folders_slides_are_listed_by_id(tmp_path: Path) -> None:
    touch(tmp_path, "b.svs", "a.TIFF", "c.ndpi", "d.mrxs", "notes.txt", ".hidden.svs", "sub/e.svs")
    (tmp_path / "folder.svs").mkdir()
    assert ids(tmp_path) == ["a", "b", "c", "d"]
    assert list_slides(str(tmp_path))[1] == Entry("b", f"{tmp_path}/b.svs")


def test_sub_folders_are_looked_into_where_asked(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "x/b.svs", "x/y/c.svs")
    assert ids(tmp_path) == ["a"]
    assert ids(tmp_path, recursive=True) == ["a", "b", "c"]


def test_dots_in_a_name_belong_to_the_id(tmp_path: Path) -> None:
    touch(tmp_path, "TCGA-1.4D.b3.svs")
    assert ids(tmp_path) == ["TCGA-1.4D.b3"]


def test_one_file_is_a_cohort_whatever_its_ending(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs", "b.weird")
    assert ids(tmp_path / "a.svs") == ["a"]
    assert ids(tmp_path / "b.weird") == ["b"]


def test_a_glob_is_searched_for_slides(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.svs", "x/a.txt", "y/b.svs", "z/deep/c.svs")
    assert ids(f"{tmp_path}/*/*.svs") == ["a", "b"]
    assert ids(f"{tmp_path}/?/*") == ["a", "b"]
    assert ids(f"{tmp_path}/**/*.svs") == ["a", "b", "c"]


def test_a_folder_with_brackets_in_its_name_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "batch [1]/a.svs")
    assert ids(tmp_path / "batch [1]") == ["a"]


def test_an_empty_folder_says_where_slides_would_be_found(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.svs", "x/y/b.svs", "notes.txt")
    with pytest.raises(
        ConfigError, match=r"no slide file in it \(2 in its sub-folders: add --recursive\).*\.svs"
    ):
        list_slides(str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"empty: no slide file in it; known endings"):
        list_slides(str(tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"empty: no slide file in it; known endings"):
        list_slides(str(tmp_path / "empty"), recursive=True)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone", r"--slides .*gone: no such file or folder; give a folder, a glob in quotes"),
        ("*.svs", r"--slides .*\*\.svs: the pattern matches no slide file"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        list_slides(f"{tmp_path}/{source}")


@pytest.fixture
def bucket(s3: S3) -> str:
    """A prefix of a bucket with slides and other things in it."""
    base = s3.uri("listing")
    for name in ("b.svs", "a.TIFF", "notes.txt", ".hidden.svs", "sub/e.svs", "d.svs/x.txt"):
        storage.put_bytes(storage.join(base, name), b"x")
    s3.client().put("listing/empty/", b"")
    return base


def test_slides_of_a_bucket_are_listed_like_those_of_a_folder(bucket: str) -> None:
    assert list_slides(f"{bucket}/")[1] == Entry("b", f"{bucket}/b.svs")
    assert ids(bucket) == ["a", "b"]
    assert ids(bucket, recursive=True) == ["a", "b", "e"]
    assert ids(f"{bucket}/b.svs") == ["b"]
    assert ids(f"{bucket}/*.svs") == ["b"]
    assert ids(f"{bucket}/**/*.svs") == ["b", "e"]
    assert ids(f"{bucket}/s?b/[de].svs") == ["e"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gone", r"--slides s3://cohort/listing/gone: no such file or folder"),
        ("gone.csv", r"no such file or folder"),
        ("*.ndpi", r"\*\.ndpi: the pattern matches no slide file"),
        ("d.svs", r"no slide file in it \(its sub-folders are looked into with --recursive\)"),
        ("empty", r"empty: no slide file in it"),
    ],
)
def test_a_place_in_a_bucket_without_slides_is_named(
    bucket: str, source: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        list_slides(f"{bucket}/{source}")


def test_a_bucket_that_is_not_there_is_no_empty_one(s3: S3) -> None:
    with pytest.raises(ConfigError, match=r"--slides s3://no-such-bucket/x: no such file"):
        list_slides("s3://no-such-bucket/x")


def test_a_table_in_a_bucket_names_slides_beside_it_and_elsewhere(s3: S3) -> None:
    text = "uri,slide_id\nslides/x.svs,1\n./y.svs,\ns3://other/z.svs,\n/data/w.svs,\n"
    storage.put_bytes(s3.uri("tables/cohort.csv"), text.encode())
    assert list_slides(s3.uri("tables/cohort.csv")) == [
        Entry("1", s3.uri("tables/slides/x.svs")),
        Entry("w", "/data/w.svs"),
        Entry("y", s3.uri("tables/y.svs")),
        Entry("z", "s3://other/z.svs"),
    ]
    sink = io.BytesIO()
    pd.DataFrame({"uri": ["a.svs"]}).to_parquet(sink)
    storage.put_bytes(s3.uri("tables/cohort.parquet"), sink.getvalue())
    assert list_slides(s3.uri("tables/cohort.parquet")) == [Entry("a", s3.uri("tables/a.svs"))]


def test_a_tables_cells_are_taken_as_they_are(tmp_path: Path) -> None:
    entries = table_of(
        tmp_path,
        "slide_id,uri,case_id,mpp\n"
        "0071,slides/x.svs,007,0.25\n"
        "1e5,/data/y.svs,NA,\n"
        "None,s3://bucket/z.svs,,nan\n",
    )
    assert entries == [
        Entry("0071", f"{tmp_path}/slides/x.svs", "007", 0.25),
        Entry("1e5", "/data/y.svs", "NA", None),
        Entry("None", "s3://bucket/z.svs", "", None),
    ]


def test_a_table_needs_only_uris(tmp_path: Path) -> None:
    entries = table_of(tmp_path, "uri\nslides/007.b.svs\n\nfile:///data/a.svs\n")
    assert [(entry.slide_id, entry.uri) for entry in entries] == [
        ("007.b", f"{tmp_path}/slides/007.b.svs"),
        ("a", "/data/a.svs"),
    ]


def test_blanks_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    path.write_text("uri, slide_id, mpp\n a.svs , 01 , 0.5 \n", encoding="utf-8-sig")
    assert list_slides(str(path)) == [Entry("01", f"{tmp_path}/a.svs", "", 0.5)]


def test_a_parquet_table_is_read_like_a_csv(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"uri": ["a.svs", "b.svs"], "slide_id": ["01", None], "mpp": [0.5, None], "case_id": [7, 8]}
    )
    for number, frame in enumerate([table, table.convert_dtypes()]):
        path = tmp_path / f"{number}.parquet"
        frame.to_parquet(path)
        assert list_slides(str(path)) == [
            Entry("01", f"{tmp_path}/a.svs", "7", 0.5),
            Entry("b", f"{tmp_path}/b.svs", "8", None),
        ]


def test_a_table_without_uris_names_the_columns_it_has(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"needs the column uri; found: path, slide_id \(optional"
    ):
        table_of(tmp_path, "path,slide_id\na.svs,a\n")
    with pytest.raises(ConfigError, match=r"cohort\.csv: the table has no rows"):
        table_of(tmp_path, "uri,slide_id\n")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b""),
        ("a.csv", b"uri\n\xff\xfe\n"),
        ("a.csv", b'uri\n"a,b\n'),
        ("a.parquet", b"PAR1"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{name}: not a readable table"):
        read_table(path)
    with pytest.raises(CraneError, match=r"gone\.csv: cannot be read: No such file"):
        read_table(tmp_path / "gone.csv")


@pytest.mark.parametrize("mpp", ["0,25", "forty", "0.25um"])
def test_an_mpp_that_is_no_number_costs_its_slide_alone(tmp_path: Path, mpp: str) -> None:
    bad, good = table_of(tmp_path, f'uri,mpp\na.svs,"{mpp}"\nb.svs,0.5\n')
    assert bad.problem == f"mpp {mpp!r} in the slide table is no number (um/px)"
    assert bad.mpp is None
    assert (good.problem, good.mpp) == ("", 0.5)


def test_a_row_without_uri_is_named_by_its_line(tmp_path: Path) -> None:
    entries = table_of(tmp_path, "uri,slide_id\na.svs,a\n,b\n,\n")
    by_id = {entry.slide_id: entry.problem for entry in entries}
    assert by_id["a"] == ""
    assert by_id["b"] == "row 3 of the slide table has no uri"
    assert "row-4" in by_id


@pytest.mark.parametrize(
    ("slide_id", "safe"),
    [("x/y", "x_y"), ("../x", "_x"), (".x", "x"), ("..", "row-2"), ("a\\b", "a_b")],
)
def test_an_id_that_cannot_name_a_file_costs_its_slide_alone(
    tmp_path: Path, slide_id: str, safe: str
) -> None:
    entries = {
        e.slide_id: e for e in table_of(tmp_path, f"uri,slide_id\na.svs,{slide_id}\nb.svs,b\n")
    }
    assert set(entries) == {safe, "b"}
    assert f"slide_id {slide_id!r} cannot name a file" in entries[safe].problem
    assert "slashes and leading dots" in entries[safe].problem
    assert entries["b"].problem == ""


def test_an_id_of_several_files_is_one_problem_that_names_them(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.svs", "y/a.tif", "y/b.svs")
    first, second = list_slides(str(tmp_path), recursive=True)
    assert first.slide_id == "a"
    assert "slide_id a stands for 2 entries" in first.problem
    for part in (
        f"{tmp_path}/x/a.svs",
        f"{tmp_path}/y/a.tif",
        "slide table with distinct slide_ids",
    ):
        assert part in first.problem
    assert second == Entry("b", f"{tmp_path}/y/b.svs")


def test_an_id_twice_in_a_table_is_a_problem_too(tmp_path: Path) -> None:
    entries = table_of(tmp_path, "uri,slide_id,mpp\na.svs,1,0.25\na.svs,1,0.5\nb.svs,2,\n")
    assert [entry.slide_id for entry in entries] == ["1", "2"]
    assert "stands for 2 entries" in entries[0].problem
    assert entries[0].problem.endswith("list it once")
    assert entries[1].problem == ""


def test_entries_come_back_from_an_arrow_table() -> None:
    """Also one by one: a column of None alone would have no type."""
    entries = [Entry("a", "/s/a.svs"), Entry("b", "s3://x/b.svs", "case", 0.25, "twice")]
    for some in (entries, entries[:1], entries[1:]):
        table = pa.Table.from_pylist([{"entry": entry.record()} for entry in some])
        assert table.schema.field("entry").type.field("mpp").type == pa.float64()
        assert [Entry.from_record(row["entry"]) for row in table.to_pylist()] == some
