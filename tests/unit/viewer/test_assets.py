"""The page's own files: all that it names is there, and colour maps are those of their names."""

import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from crane_ray.viewer.assets import read_assets
from tests.unit.viewer.asgi import Client

ASSETS = read_assets()


def text(name: str) -> str:
    return ASSETS[name][0].decode()


def test_all_files_that_the_page_names_are_served(client: Client) -> None:
    named = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', text("index.html")))
    for name in [name for name in ASSETS if name.endswith(".js") and "/" not in name]:
        named |= {f"/static/{other}" for other in re.findall(r'from "\./([^"]+)"', text(name))}
    assert len(named) > 10
    for address in named:
        answer = client.get(address)
        assert answer.status == 200, address
        kind = "javascript" if address.endswith(".js") else ""
        assert kind in answer.headers["content-type"]


def test_the_page_needs_nothing_from_elsewhere() -> None:
    own = [name for name in ASSETS if "/" not in name]
    for name in own:
        assert not re.findall(r"https?://(?!www\.w3\.org)", text(name)), name
    page = text("index.html")
    assert not re.findall(r"<style|style=|\son\w+=|<script>", page)


def test_licences_lie_beside_what_was_taken() -> None:
    from importlib.resources import files

    folder = files("crane_ray.viewer") / "static" / "openseadragon"
    version = re.search(r"openseadragon (\S+)", text("openseadragon/openseadragon.min.js"))
    assert version is not None
    assert version[1] in (folder / "README.txt").read_text()
    assert "Redistribution and use" in (folder / "LICENSE.txt").read_text()


@pytest.mark.parametrize(
    "name", re.findall(r"^  (\w+): \{\n    label", text("colours.js"), re.MULTILINE)
)
def test_colour_maps_are_those_of_matplotlib(name: str) -> None:
    block = text("colours.js").split(f"  {name}: {{")[1].split("},")[0]
    stops = re.findall(r"\b[0-9a-f]{6}\b", block)
    known = {one.casefold(): one for one in mpl.colormaps}
    expected = mpl.colormaps[known[name]](np.linspace(0, 1, 33))[:, :3]
    found = np.array([to_rgb(f"#{stop}") for stop in stops])
    np.testing.assert_allclose(found, expected, atol=1 / 255)


def test_every_key_that_works_is_in_the_dialog() -> None:
    actions = text("main.js").split("const actions = {")[1].split("\n};")[0]
    keys = re.findall(r'^  (?:"(.)"|(\w+)):', actions, re.MULTILINE)
    shown = set(re.findall(r"<kbd>([^<]+)</kbd>", text("index.html").split("<dialog")[1]))
    names = {
        "ArrowLeft": "&larr;", "ArrowRight": "&rarr;", "ArrowUp": "&uarr;", "ArrowDown": "&darr;",
        "-": "&minus;", "=": "+", "Escape": "Esc",
    }  # fmt: skip
    worked = {quoted or plain for quoted, plain in keys}
    assert len(worked) > 15
    assert {names.get(key, key) for key in worked} == shown
