"""``python -m tests.docs_picture DEMO`` makes `docs/pictures/viewer.webp`, the README's picture.

DEMO is what ``crane-ray demo --work DEMO`` left: painted slides, an encoder with random weights,
and networks that were trained on them. The picture is the viewer's page in Chromium, as it is;
chromium and chromedriver are needed.
"""

import io
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvicorn
from PIL import Image
from selenium import webdriver

from crane_ray.viewer.app import create_app
from crane_ray.viewer.settings import ViewSettings

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "viewer.webp"
VIEW = "#/slide/slide_0009?head=quilty&opacity=40&colours=cividis&on=overlay+contours"
WINDOW = (1440, 900)
WAIT_S = 60.0
IS_THERE = """
    const canvas = document.getElementById("overlay");
    const map = canvas && canvas.width && canvas.getContext("2d")
        .getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
    const seen = (one) => one.getBoundingClientRect().top < innerHeight && one.width > 0;
    return Boolean(map) && [...document.images].filter(seen).every((one) => one.complete);
"""


def take(url: str) -> bytes:
    """A picture, as PNG, of the page at an address once all of it is there."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.add_argument(f"--window-size={WINDOW[0]},{WINDOW[1]}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        driver.get(url + VIEW)
        until(lambda: bool(driver.execute_script(IS_THERE)), "the map and the patches")
        time.sleep(5)  # tiles fade in
        png: bytes = driver.get_screenshot_as_png()
        return png
    finally:
        driver.quit()


def until(condition: Callable[[], bool], what: str) -> None:
    """Returns once the condition holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
        time.sleep(0.1)


def main(demo: Path) -> None:
    """Shows a demo's workspace, and writes the picture."""
    app = create_app(ViewSettings(work=str(demo / "work"), hosts=("127.0.0.1",)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started, "the server")
        port = server.servers[0].sockets[0].getsockname()[1]
        png = take(f"http://127.0.0.1:{port}/")
    finally:
        server.should_exit = True
        thread.join()
    PICTURE.parent.mkdir(exist_ok=True)
    Image.open(io.BytesIO(png)).convert("RGB").save(PICTURE, quality=84, method=6)
    print(PICTURE, PICTURE.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
