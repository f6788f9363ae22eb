"""Attempts to read what is none of the viewer's business."""

from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from crane_ray.errors import StoreError
from crane_ray.slides.workspace import Workspace
from crane_ray.viewer.app import create_app
from crane_ray.viewer.gate import Gate
from crane_ray.viewer.paths import OutsideError, inside
from crane_ray.viewer.settings import ViewSettings
from tests.unit.viewer.asgi import Answer, Client
from tests.unit.viewer.small_workspace import GOOD, RUN

A = f"/api/slides/{quote(GOOD)}"
TOKEN = "a-token-of-some-length"
SECRET = b"the secret outside"

CLIMBS = [
    "..", "../..", "../../outside", "..%2f..%2foutside", "%2e%2e/%2e%2e/outside",
    "%2e%2e%2foutside", "%252e%252e%252foutside", "..%5c..%5coutside", "..\\..\\outside", "%00",
    "A%201%00.jpg", "/etc/passwd", "%2fetc%2fpasswd", "//etc/passwd", "~", ".", "a" * 5000,
    "file:%2f%2f%2fetc%2fpasswd", "%c0%ae%c0%ae%c0%afoutside", "A%201%2f..%2f..%2foutside",
    "outside.geojson",
]  # fmt: skip


@pytest.fixture
def secret(work: Path) -> Path:
    """A file beside the workspace that nothing of it names."""
    for name in ("outside", "outside.geojson", "outside.h5", "outside.parquet"):
        (work.parent / name).write_bytes(SECRET)
    return work.parent / "outside"


def ask(work: Path, address: str, **headers: str) -> Answer:
    app = create_app(ViewSettings(work=str(work)))
    answer = Client(app).get(address, **headers)
    app.state.close()
    return answer


@pytest.mark.parametrize("climb", CLIMBS)
def test_no_slide_id_leads_out_of_the_workspace(client: Client, climb: str) -> None:
    for address in (
        f"/api/slides/{climb}", f"/api/slides/{climb}/contours", f"/api/slides/{climb}/patches",
        f"/api/slides/{climb}/map", f"/api/slides/{climb}/thumbnail.jpg",
        f"/api/slides/{climb}/tiles/9/0_0.jpg", f"/static/{climb}", f"/{climb}",
        f"/static/openseadragon/{climb}",
    ):  # fmt: skip
        answer = client.get(address)
        assert answer.status == 404, address
        assert SECRET not in answer.body
        assert b"root:" not in answer.body
        assert "problem" in answer.json()


@pytest.mark.parametrize("name", [*CLIMBS, "../" + RUN, RUN + "/../" + RUN, "*", "study_s1/scores"])
def test_no_run_or_head_leads_out_of_it(client: Client, name: str) -> None:
    value = name if "%" in name else quote(name, safe="")
    assert client.get(f"{A}/map?run={value}").status == 404
    assert client.get(f"{A}/map/scores?head={value}").status == 404
    assert client.get(f"{A}/map/extremes?head={value}").status == 404


@pytest.mark.parametrize(
    ("link", "target", "address"),
    [
        (f"contours/{GOOD}.geojson", "outside.geojson", f"{A}/contours"),
        (f"patches/{GOOD}.h5", "outside.h5", f"{A}/patches"),
        (f"heatmaps/{RUN}/scores/{GOOD}.parquet", "outside.parquet", f"{A}/map"),
        (f"heatmaps/{RUN}/scores/{GOOD}.parquet", "outside.parquet", f"{A}/map/places"),
    ],
)
def test_links_that_lead_out_are_refused(
    work: Path, secret: Path, link: str, target: str, address: str
) -> None:
    path = work / link
    assert ask(work, address).status == 200
    path.unlink()
    path.symlink_to(secret.parent / target)
    answer = ask(work, address)
    assert answer.status == 422
    assert "leads out of it" in answer.json()["problem"]
    assert str(secret.parent / target) not in answer.json()["problem"]


@pytest.mark.parametrize("folder", ["contours", "patches", f"heatmaps/{RUN}/scores"])
def test_folders_that_lead_out_are_refused(work: Path, folder: str) -> None:
    elsewhere = work.parent / "elsewhere"
    (work / folder).rename(elsewhere)
    (work / folder).symlink_to(elsewhere)
    what = {"contours": "contours", "patches": "patches"}.get(folder, "map")
    assert ask(work, f"{A}/{what}").status == 422


def test_tables_and_headers_that_lead_out_are_not_read(work: Path) -> None:
    for name in ("slides.parquet", f"heatmaps/{RUN}/maps.json"):
        path = work / name
        path.rename(work.parent / path.name)
        path.symlink_to(work.parent / path.name)
    found = ask(work, "/api/workspace").json()
    assert (found["slides"], found["runs"]) == (0, [])
    assert len([text for text in found["problems"] if "leads out" in text]) == 2


def test_links_that_stay_inside_are_followed(work: Path) -> None:
    path = work / "contours" / f"{GOOD}.geojson"
    path.rename(work / "moved.geojson")
    path.symlink_to(work / "moved.geojson")
    assert ask(work, f"{A}/contours").status == 200
    linked = work.parent / "linked"
    linked.symlink_to(work)
    assert ask(linked, f"{A}/contours").status == 200


def test_an_id_in_the_table_that_climbs_is_refused_too(work: Path, secret: Path) -> None:
    workspace = Workspace(str(work))
    rows = workspace.read_slides()
    workspace.write_slides([*rows.values(), replace(rows[GOOD], slide_id="../../outside")])
    assert ask(work, "/api/slides/..%2f..%2foutside/contours").status == 404
    with pytest.raises(OutsideError):
        inside(str(work), workspace.contours("../../outside"))


@pytest.mark.parametrize("path", ["s3://b/made/../x", "s3://b/other/x", "s3://b/made/./x", "/etc"])
def test_uris_that_climb_are_refused(path: str) -> None:
    with pytest.raises(StoreError, match="leads out"):
        inside("s3://b/made", path)
    assert inside("s3://b/made", "s3://b/made/contours/a.geojson")


@pytest.mark.parametrize(
    ("tile", "status"),
    [
        ("11/0_0", 200), ("11/-1_0", 400), ("11/0_-1", 400), ("-1/0_0", 400), ("99/0_0", 404),
        ("11/99_0", 404), ("8/0_0", 404), ("11/2147483647_0", 404), ("11/99999999999_0", 400),
        (f"11/{'9' * 6000}_0", 400), ("11/0x1_0", 400), ("11/1e3_0", 400), ("11/%D9%A1_0", 400),
        ("11/+1_0", 400), ("11/_", 404), ("1 1/0_0", 400), ("nan/0_0", 400), ("11/0_0_0", 400),
    ],
)  # fmt: skip
def test_tile_numbers_that_make_no_sense_are_refused(
    client: Client, tile: str, status: int
) -> None:
    answer = client.get(f"{A}/tiles/{tile}.jpg")
    assert answer.status == status
    assert status == 200 or answer.json()["problem"]


@pytest.mark.parametrize(
    "query",
    ["", "x=1", "x=1&y=1&side=99999999", "x=1&y=1&side=0", "x=-1&y=0&side=9", "x=999999&y=0&side=9",
     "x=a&y=0&side=9"],
)  # fmt: skip
def test_crops_that_make_no_sense_are_refused(client: Client, query: str) -> None:
    assert client.get(f"{A}/crop.jpg?{query}").status in {400, 404}


@pytest.mark.parametrize(
    "query",
    ["show=x", "sort=x", "offset=-1", "limit=x", "offset=99999999999"],
)
def test_lists_that_make_no_sense_are_refused(client: Client, query: str) -> None:
    assert client.get(f"/api/slides?{query}").status == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_sent(client: Client, method: str) -> None:
    for address in ("/", "/api/slides", A, f"{A}/tiles/11/0_0.jpg"):
        answer = client.get(address, method=method)
        assert answer.status == 405
        assert "access-control-allow-origin" not in answer.headers


def test_head_has_no_body(client: Client) -> None:
    answer = client.get("/api/workspace", method="HEAD")
    assert answer.status == 200


@pytest.mark.parametrize("address", ["/", "/api/workspace", A, "/nothing", "/static/main.js"])
def test_every_answer_carries_the_security_headers(client: Client, address: str) -> None:
    headers = client.get(address, origin="http://evil.example").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost:9", "LOCALHOST", "[::1]:8501"])
def test_loopback_names_are_answered(client: Client, host: str) -> None:
    assert client.get("/", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8501", "127.0.0.1.evil.example", "", "localhost.", "[::2]"],
)
def test_other_names_are_not_since_their_owner_could_point_them_here(
    client: Client, host: str
) -> None:
    for address in ("/", "/api/workspace", f"{A}/tiles/11/0_0.jpg"):
        answer = client.get(address, host=host)
        assert answer.status == 421
        assert b"slide" not in answer.body


@pytest.fixture(scope="module")
def guarded(shared_work: Path) -> Client:
    return Client(create_app(ViewSettings(work=str(shared_work), token=TOKEN)), host="gpu-7:8501")


@pytest.mark.parametrize(
    "headers",
    [
        {}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"},
        {"authorization": f"Bearer {TOKEN}x"}, {"authorization": TOKEN},
        {"cookie": f"token={TOKEN}"}, {"cookie": "x=y"}, {"authorization": "Bearer \u00e4"},
    ],
)  # fmt: skip
def test_without_the_token_nothing_is_told(guarded: Client, headers: dict[str, str]) -> None:
    for address in ("/", "/?token=wrong", "/?token=", "/api/slides", A, "/static/main.js", "/x"):
        answer = guarded.get(address, **headers)
        assert answer.status == 401
        assert "no-store" in answer.headers["cache-control"]
        assert b"token" in answer.body
        assert TOKEN.encode() not in answer.body


def test_the_address_with_the_token_leaves_a_cookie_and_goes(guarded: Client) -> None:
    answer = guarded.get(f"/?token={TOKEN}&x=1")
    assert (answer.status, answer.headers["location"]) == (303, "/?x=1")
    cookie, *traits = [part.strip() for part in answer.headers["set-cookie"].split(";")]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(traits)
    assert guarded.get("/", cookie=cookie).status == 200
    assert guarded.get("/api/slides", cookie=f"other=1; {cookie}").status == 200


def test_programs_bring_the_token_in_a_header(guarded: Client) -> None:
    assert guarded.get(A, authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "/%2f/evil.example"])
def test_the_way_from_the_token_leads_to_no_other_site(guarded: Client, path: str) -> None:
    where = guarded.get(f"{path}?token={TOKEN}").headers["location"]
    assert where.startswith("/")
    assert not where.startswith(("//", "/\\"))


def test_viewers_on_one_host_have_cookies_of_their_own() -> None:
    async def app(*parts: object) -> None: ...

    names = {Gate(app, token=token, hosts=()).cookie for token in ("first-token", "second-token")}
    assert len(names) == 2
    assert not any("token" in name for name in names)
