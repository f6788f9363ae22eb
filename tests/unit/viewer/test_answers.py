"""What the viewer answers for a workspace: slides, tiles, maps, and reasons in words."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
import simplejpeg

from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.viewer import catalogue
from crane_ray.viewer.app import create_app
from crane_ray.viewer.settings import ViewSettings
from tests.unit.viewer.asgi import Client
from tests.unit.viewer.small_workspace import BROKEN, GOOD, HEADS, ODD, RUN, SIZE, make_maps

A = f"/api/slides/{quote(GOOD)}"


def client_of(work: Path, **settings: object) -> Client:
    return Client(create_app(ViewSettings.model_validate({"work": str(work), **settings})))


def ids(client: Client, query: str) -> list[str]:
    return [slide["slide_id"] for slide in client.get(f"/api/slides?{query}").json()["slides"]]


def test_the_workspace_names_its_runs_and_their_heads(client: Client) -> None:
    found = client.get("/api/workspace").json()
    assert (found["slides"], found["problems"]) == (3, [])
    (run,) = found["runs"]
    assert (run["name"], run["heads"], run["slides"]) == (RUN, list(HEADS), 1)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", [GOOD, ODD, BROKEN]),
        ("q=P2", [ODD]),
        ("q=a%201%20p1", [GOOD]),
        ("q=no_such", []),
        ("q=cell", [GOOD]),
        ("show=failed", [BROKEN]),
        ("show=no_tissue", [ODD]),
        ("show=maps", [GOOD]),
        ("sort=slide_id&order=down", [BROKEN, ODD, GOOD]),
        ("sort=num_patches&order=down", [GOOD, ODD, BROKEN]),
        ("sort=num_patches", [ODD, GOOD, BROKEN]),
        ("sort=p:cell:cell&order=down", [GOOD, ODD, BROKEN]),
        ("offset=1&limit=1", [ODD]),
        ("offset=9", []),
    ],
)
def test_slides_are_searched_filtered_sorted_and_paged(
    client: Client, query: str, expected: list[str]
) -> None:
    assert ids(client, query) == expected


def test_thousands_of_slides_come_in_parts(tmp_path: Path) -> None:
    rows = [
        SlideRow(f"s{n:05}", f"/x/{n}.svs", "ok", f"c{n % 100}", num_patches=n) for n in range(5000)
    ]
    Workspace(str(tmp_path)).write_slides(rows)
    client = client_of(tmp_path)
    answer = client.get("/api/slides?q=c7&sort=num_patches&order=down&limit=99999").json()
    assert (answer["total"], answer["matched"], len(answer["slides"])) == (5000, 550, 200)
    assert answer["slides"][0]["slide_id"] == "s04979"


def test_a_slide_says_what_is_known_of_it(client: Client) -> None:
    found = client.get(A).json()
    assert (found["width_px"], found["height_px"], found["mpp"]) == (*SIZE, 0.5)
    assert found["maps"] == "ok"
    said = {one["task"]: one for one in found["predictions"]}
    assert said["cell"]["decision"] == "cell"
    assert said["subtype"] == {
        "task": "subtype", "classes": ["a", "b", "c"], "probabilities": [0.2, 0.5, 0.3],
        "decision": "b",
    }  # fmt: skip
    assert found["tiles"]["max_level"] == 11


def test_a_slide_without_mpp_says_so(client: Client) -> None:
    found = client.get(f"/api/slides/{quote(ODD)}").json()
    assert found["mpp"] is None
    assert "no mpp" in found["no_mpp"]
    assert found["reason"] == "no tissue was found"


def test_a_slide_that_cannot_be_read_says_why(client: Client) -> None:
    found = client.get(f"/api/slides/{BROKEN}").json()
    assert found["tiles"] is None
    assert "slide broken: not a slide that can be read" in found["problem"]
    assert (found["maps"], found["maps_reason"]) == ("failed", "no features of it")
    tile = client.get(f"/api/slides/{BROKEN}/tiles/9/0_0.jpg")
    assert tile.status == 422
    assert "not a slide that can be read" in tile.json()["problem"]
    thumbnail = client.get(f"/api/slides/{BROKEN}/thumbnail.jpg")
    assert (thumbnail.status, thumbnail.headers["content-type"]) == (200, "image/svg+xml")


def test_tiles_are_kept_by_browsers_as_long_as_the_file_is_the_same(work: Path) -> None:
    client = client_of(work)
    version = client.get(A).json()["tiles"]["version"]
    tile = client.get(f"{A}/tiles/11/1_1.jpg?v={version}")
    assert tile.headers["content-type"] == "image/jpeg"
    assert "immutable" in tile.headers["cache-control"]
    assert "private" in tile.headers["cache-control"]
    assert simplejpeg.decode_jpeg(tile.body).shape == (512, 512, 3)
    again = client.get(f"{A}/tiles/11/1_1.jpg?v={version}", if_none_match=tile.headers["etag"])
    assert (again.status, again.body) == (304, b"")
    other = client.get(f"{A}/tiles/11/1_1.jpg?v=older", if_none_match='"x"')
    assert (other.status, other.headers["cache-control"]) == (200, "private, no-cache")


def test_a_slide_that_is_replaced_gets_new_tiles(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crane_ray.viewer.versions.LOCAL_S", 0.0)
    client = client_of(work)
    before = client.get(f"{A}/tiles/9/0_0.jpg")
    slides = work.parent / "slides"
    (slides / "b.tif").replace(slides / "a.tif")
    after = client.get(f"{A}/tiles/9/0_0.jpg", if_none_match=before.headers["etag"])
    assert after.status in {200, 404}
    assert after.body != before.body


def test_scores_come_as_numbers(client: Client) -> None:
    facts = client.get(f"{A}/map").json()
    assert (facts["heads"], facts["footprint_px"], facts["cell_px"]) == (list(HEADS), 128, 128)
    places = np.frombuffer(client.get(f"{A}/map/places").body, "<i4").reshape(-1, 2)
    assert len(places) == facts["count"] == 60
    head = quote(HEADS[1])
    percentiles = np.frombuffer(client.get(f"{A}/map/scores?head={head}").body, "<f4")
    raw = np.frombuffer(client.get(f"{A}/map/scores?head={head}&kind=raw").body, "<f4")
    assert (percentiles.argsort() == raw.argsort()).all()
    assert (places[raw.argsort()][:, 1] == np.sort(places[:, 1])).all()
    assert facts["raw_ranges"][1] == pytest.approx([raw.min(), raw.max()])


def test_extremes_are_the_patches_that_stand_out(client: Client) -> None:
    found = client.get(f"{A}/map/extremes?head=cell&count=3").json()
    assert [(patch["x"], patch["y"]) for patch in found["top"]] == [
        (1280, 768), (1280, 640), (1280, 512),
    ]  # fmt: skip
    assert (found["bottom"][0]["x"], found["bottom"][0]["y"]) == (128, 128)
    assert found["top"][0]["percentile"] == pytest.approx(59 / 60)
    crop = client.get(f"{A}/crop.jpg?x=1280&y=768&side=128")
    assert simplejpeg.decode_jpeg(crop.body).shape == (160, 160, 3)


def test_patches_and_contours_are_those_of_the_workspace(client: Client) -> None:
    patches = client.get(f"{A}/patches")
    assert patches.headers["x-footprint-px"] == "128 128"
    assert len(np.frombuffer(patches.body, "<i4")) == 120
    (feature,) = client.get(f"{A}/contours").json()["features"]
    assert [len(ring) for ring in feature["geometry"]["coordinates"]] == [5, 4]
    for what in ("patches", "contours"):
        missing = client.get(f"/api/slides/{BROKEN}/{what}")
        assert missing.status == 404
        assert "crane-ray patch" in missing.json()["problem"]


def test_what_changes_in_the_workspace_is_seen(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(catalogue, "LOOK_SHARE", 1e9)
    client, workspace = client_of(work), Workspace(str(work))
    assert len(ids(client, "")) == 3
    rows = workspace.read_slides()
    workspace.write_slides([*rows.values(), replace(rows[GOOD], slide_id="new")])
    assert "new" in ids(client, "")


def test_a_broken_run_does_not_hide_the_others(work: Path) -> None:
    (work / "heatmaps" / "bad").mkdir()
    (work / "heatmaps" / "bad" / "maps.json").write_text('{"version": 99}')
    found = client_of(work).get("/api/workspace").json()
    assert [run["name"] for run in found["runs"]] == [RUN]
    (problem,) = found["problems"]
    assert "maps bad" in problem
    assert "99" in problem


def test_runs_are_told_apart(work: Path) -> None:
    workspace = Workspace(str(work))
    from crane_ray.slides.patch_files import read_patches

    grid = read_patches(workspace.patches(GOOD), GOOD)
    make_maps(workspace, workspace.read_slides()[GOOD], grid, run="other_s1")
    folder = make_maps(workspace, workspace.read_slides()[GOOD], grid, run="a_dense_one")
    folder.write_header(folder.read_header().model_copy(update={"dense": True}))
    less = make_maps(workspace, workspace.read_slides()[GOOD], grid, run="a_failed_one")
    less.write_index([])
    client = client_of(work)
    names = [run["name"] for run in client.get("/api/workspace").json()["runs"]]
    assert names == ["other_s1", RUN, "a_dense_one", "a_failed_one"]
    assert client.get(A).json()["run"] == "other_s1"
    assert client.get(f"{A}?run={RUN}").json()["run"] == RUN
    assert client.get(f"{A}/map?run=none").status == 404


def test_diagnoses_of_the_case_are_shown_beside_the_slide(work: Path) -> None:
    table = pd.DataFrame(
        {
            "case_id": ["P1", "P2"], "p_cell_no_cell": [0.1, 0.8], "p_cell_cell": [0.9, 0.2],
            "decision_cell": ["cell", "no_cell"], "p_cell_grade_low": [0.4, None],
            "p_cell_grade_high": [0.6, None], "decision_cell_grade": ["high", None],
        }
    )  # fmt: skip
    (work / "assessment").mkdir()
    table.to_parquet(work / "assessment" / "assessment.parquet")
    client = client_of(work)
    said = client.get(A).json()["diagnosis"]
    assert [(one["task"], one["classes"], one["decision"]) for one in said] == [
        ("cell", ["no_cell", "cell"], "cell"), ("cell_grade", ["low", "high"], "high"),
    ]  # fmt: skip
    other = client.get(f"/api/slides/{quote(ODD)}").json()
    assert [one["decision"] for one in other["diagnosis"]] == ["no_cell"]
    assert ids(client, "sort=p:cell:cell&order=down")[0] == GOOD


def test_an_empty_workspace_is_shown_as_one(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    assert client.get("/api/workspace").json()["slides"] == 0
    assert client.get("/api/slides").json()["total"] == 0
    assert client.get("/").status == 200


def test_scores_that_are_no_numbers_do_not_break_the_page(work: Path) -> None:
    from crane_ray.maps.folder import MapsFolder
    from crane_ray.maps.scores import read_scores, write_scores

    path = MapsFolder(str(work / "heatmaps" / RUN)).scores(GOOD)
    scores = read_scores(path)
    scores.raw_HN[0, :] = np.nan
    write_scores(path, scores)
    client = client_of(work)
    assert client.get(f"{A}/map").json()["raw_ranges"][0] is None
    top = client.get(f"{A}/map/extremes?head=cell").json()["top"]
    assert {patch["raw"] for patch in top} == {None}


def test_answers_are_valid_json_for_browsers(client: Client) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    for address in ("/api/workspace", "/api/slides", A, f"{A}/map"):
        json.loads(client.get(address).body, parse_constant=refuse)


def test_slides_that_are_far_away_are_not_fetched_for_a_list(work: Path) -> None:
    from crane_ray.slides.pictures import write_picture
    from tests.unit.viewer.small_workspace import smooth_image

    far = client_of(work, staging={"local": True, "folder": str(work.parent / "cache")})
    without = far.get(f"{A}/thumbnail.jpg")
    assert without.headers["content-type"] == "image/svg+xml"
    assert b"fetched when the slide is opened" in without.body
    write_picture(Workspace(str(work)).mask(GOOD), smooth_image(1000, 700))
    found = simplejpeg.decode_jpeg(far.get(f"{A}/thumbnail.jpg").body)
    assert found.shape in {(179, 256, 3), (180, 256, 3)}
    assert not (work.parent / "cache").exists()
    assert far.get(f"{A}/tiles/9/0_0.jpg").status == 200
    assert (work.parent / "cache").exists()
