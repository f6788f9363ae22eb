"""The viewer's page in a real Chromium: slides open, zoom, switch heads, and are found again."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import uvicorn

from crane_ray.viewer.app import create_app
from crane_ray.viewer.settings import ViewSettings
from tests.unit.viewer.small_workspace import BROKEN, GOOD, HEADS, ODD, make_workspace

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="chromium and chromedriver are not installed"
)
WAIT_S = 30.0


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A viewer in a thread of this process."""
    work = make_workspace(tmp_path_factory.mktemp("page"))
    app = create_app(ViewSettings(work=str(work), hosts=("127.0.0.1",)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started, "the server")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join()


@pytest.fixture
def page(url: str) -> Iterator["Page"]:
    """A page in a browser; what its console says at the end fails the test."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.add_argument("--window-size=1280,860")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield Page(driver, url)
        said = [one for one in driver.get_log("browser") if one["source"] != "rendering"]
        assert said == []  # rendering: that the test reads the canvas
    finally:
        driver.quit()


class Page:
    """What the tests look at and do."""

    def __init__(self, driver: Any, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, hash_: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(self.url + hash_)

    def slide(self, slide_id: str, query: str = "") -> str:
        return f"#/slide/{quote(slide_id, safe='')}{query}"

    def run(self, script: str) -> object:
        return self.driver.execute_script(script)

    def text(self, selector: str) -> str:
        return str(self.run(f"return document.querySelector({selector!r})?.textContent ?? ''"))

    def press(self, keys: str) -> None:
        self.driver.switch_to.active_element.send_keys(keys)

    def colours(self) -> list[object]:
        """Colours of the overlay at its corners and middle, where patches are."""
        found = self.run("""
            const canvas = document.getElementById("overlay"), context = canvas.getContext("2d");
            const at = [[.2, .3], [.5, .45], [.8, .3], [.2, .65], [.8, .65]];
            return at.map(([x, y]) => Array.from(context.getImageData(
                Math.round(x * canvas.width), Math.round(y * canvas.height), 1, 1).data));""")
        assert isinstance(found, list)
        return found

    def is_painted(self) -> bool:
        return any(colour[3] for colour in self.colours())  # type: ignore[index]

    def zoom(self) -> float:
        """Screen px a level-0 px, as the address says it."""
        found = self.run("return new URLSearchParams(location.hash.split('?')[1]).get('zoom')")
        return float(str(found)) if found else 0.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
        time.sleep(0.05)


def test_a_slide_is_found_zoomed_and_its_heads_are_compared(page: Page) -> None:
    page.open()
    until(lambda: "3 slides" in page.text("#count"), "the list")
    assert GOOD in page.text("#cards")
    assert "0.75" in page.text(f"[data-slide='{GOOD}'] .predictions")
    page.press("/")
    page.press("p1")
    until(lambda: "1 of 3 slides" in page.text("#count"), "the search")
    page.run("document.querySelector('.card a').click()")
    until(page.is_painted, "the map")
    until(lambda: page.zoom() > 0, "the address")
    shown = page.colours()
    whole = page.zoom()
    page.run("document.getElementById('zoom-in').click()")
    until(lambda: page.zoom() > 1.2 * whole, "the zoom")
    page.run("document.getElementById('fit').click()")
    until(lambda: abs(page.zoom() / whole - 1) < 0.01, "the whole slide")
    page.run("document.getElementById('stage').focus()")
    page.press("]")
    until(lambda: page.colours() != shown, "the other head")
    until(lambda: quote(HEADS[1], safe="") in page.driver.current_url, "the head in the address")
    until(lambda: "subtype: b" in page.text("#top-title"), "its patches")
    page.driver.back()
    until(lambda: page.colours() == shown, "the first head again")
    page.press("h")
    until(lambda: page.run("return document.getElementById('overlay').style.opacity") == "0", "h")
    page.press("?")
    until(lambda: page.run("return document.getElementById('help').open") is True, "the keys")


def test_an_address_brings_back_the_same_view(page: Page) -> None:
    query = (
        f"?head={quote(HEADS[1])}&x=800&y=500&zoom=1.5&opacity=35&below=20&colours=magma"
        "&on=overlay+grid+contours"
    )
    page.open(page.slide(GOOD, query))
    until(page.is_painted, "the map")
    assert page.zoom() == pytest.approx(1.5, rel=0.01)
    assert page.run("return document.getElementById('overlay').style.opacity") == "0.35"
    assert page.run("return document.querySelector('[name=head]:checked').value") == HEADS[1]
    assert page.run("return document.getElementById('colours').value") == "magma"
    until(
        lambda: bool(
            page.run("""
        const canvas = document.getElementById("marks");
        return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
            .data.some((value) => value > 0);""")
        ),
        "the grid",
    )
    assert "µm" in page.text("#scale-text")
    page.run("document.querySelector('#top button').click()")
    until(lambda: "x=1344" in page.driver.current_url, "the most attended patch")
    page.run("window.OpenSeadragon; document.getElementById('stage').focus()")
    page.press("j")
    until(lambda: ODD in page.text("#slide-name"), "the next slide")
    until(lambda: "no mpp" in page.text("#scale-text"), "pixels in place of micrometres")
    page.press("j")
    until(lambda: "not a slide that can be read" in page.text("#message"), "the reason")
    assert BROKEN in page.text("#slide-name")
