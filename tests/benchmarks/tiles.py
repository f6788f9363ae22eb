"""Latency of the viewer's tiles: from memory and from the slide, in the app and through Ray Serve.

The floor is what no viewer can leave out: the region read by the slide's reader, and JPEG.
"""

import http.client
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from crane_ray.runtime.serving import serving
from crane_ray.runtime.viewing_jobs import ViewJob
from crane_ray.slides.opening import open_slide
from crane_ray.slides.slide import Slide
from crane_ray.slides.workspace import SlideRow, Workspace
from crane_ray.testing.cohorts import make_cohort
from crane_ray.viewer.app import create_app
from crane_ray.viewer.deep_zoom import DeepZoom
from crane_ray.viewer.settings import ViewSettings
from crane_ray.viewer.tiles import encode, read
from tests.benchmarks.table import Options, Row
from tests.ray.helpers import free_ports
from tests.unit.viewer.asgi import Client

SIZE_PX = (8192, 6144)
MAX_WARM_MS = 50.0
Place = tuple[int, int, int]
"""Level, column and row."""


def measure(options: Options) -> list[Row]:
    """Rows for the app alone, then for the app behind Ray Serve."""
    with tempfile.TemporaryDirectory() as folder:
        slide, work = _workspace(Path(folder))
        with open_slide(slide) as reader:
            zoom = DeepZoom(reader.info)
            places = _places(zoom)[: 60 if options.quick else None]
            floor = _times(places, lambda place: len(encode(read(reader, zoom.tile(*place)))))
        app = create_app(ViewSettings(work=work))
        client = Client(app)
        rows = _rows("tiles, app", places, floor, lambda place: client.get(_address(place)).status)
        app.state.close()
        return rows + _through_serve(work, places, floor)


def _workspace(folder: Path) -> tuple[Slide, str]:
    cohort = make_cohort(folder / "cohort", num_slides=1, size_px=SIZE_PX)
    slide = Slide("slide", str(cohort.slides[0].path))
    work = Workspace(str(folder / "work"))
    work.write_slides([SlideRow(slide.slide_id, slide.uri, "ok")])
    return slide, work.root


def _places(zoom: DeepZoom) -> list[Place]:
    """All tiles of all levels, coarse to fine, as somebody zooms in."""
    return [
        (level, column, row)
        for level in range(zoom.min_level, zoom.max_level + 1)
        for row in range(zoom.num_tiles(level)[1])
        for column in range(zoom.num_tiles(level)[0])
    ]


def _through_serve(work: str, places: Sequence[Place], floor: Sequence[float]) -> list[Row]:
    (port,) = free_ports(1)
    began = time.perf_counter()
    with serving(ViewJob(work=work, port=port)):
        started_s = time.perf_counter() - began
        connection = http.client.HTTPConnection("127.0.0.1", port)

        def get(place: Place) -> int:
            connection.request("GET", _address(place))
            answer = connection.getresponse()
            answer.read()
            return answer.status

        rows = _rows("tiles, Ray Serve", places, floor, get)
        connection.close()
    return [*rows, Row("viewer, start of Ray and Serve", started_s, "s")]


def _rows(
    stage: str, places: Sequence[Place], floor: Sequence[float], get: Callable[[Place], int]
) -> list[Row]:
    statuses: list[int] = []
    cold = _times(places, lambda place: statuses.append(get(place)))
    warm = _times(places, lambda place: statuses.append(get(place)))
    if set(statuses) != {200}:
        return [Row(stage, None, "ms", met=False, note=f"statuses {sorted(set(statuses))}")]
    return [
        _row(f"{stage}, from the slide", cold, floor),
        _row(f"{stage}, from memory", warm, floor, gate=True),
    ]


def _row(stage: str, found: Sequence[float], floor: Sequence[float], *, gate: bool = False) -> Row:
    middle, high = _percentiles(found)
    floor_middle, floor_high = _percentiles(floor)
    return Row(
        stage,
        high,
        "ms (p95)",
        gate=f"< {MAX_WARM_MS:g} ms" if gate else "",
        met=high < MAX_WARM_MS if gate else None,
        floor=floor_high,
        note=f"p50 {middle:.1f} ms, floor's {floor_middle:.1f} ms; {len(found)} tiles",
    )


def _times(places: Sequence[Place], get: Callable[[Place], object]) -> list[float]:
    """Milliseconds of each, one after the other."""
    found = []
    for place in places:
        began = time.perf_counter()
        get(place)
        found.append(1e3 * (time.perf_counter() - began))
    return found


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=20)
    return cuts[9], cuts[18]


def _address(place: Place) -> str:
    return "/api/slides/slide/tiles/{}/{}_{}.jpg".format(*place)
