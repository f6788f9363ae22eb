"""What the viewer answers, address by address; each function runs in a thread."""

import re
from collections.abc import Callable
from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from crane_ray import storage
from crane_ray.errors import CraneError, StorageError
from crane_ray.maps.scores import SlideScores
from crane_ray.slides.patch_files import read_patches
from crane_ray.slides.slide import Slide
from crane_ray.slides.tissue import read_contours
from crane_ray.slides.workspace import SlideRow
from crane_ray.version import __version__
from crane_ray.viewer import overlays
from crane_ray.viewer.catalogue import Catalogue, Run, as_slide
from crane_ray.viewer.faults import BadRequestError, MissingError
from crane_ray.viewer.listing import MAX_LIMIT, Question, list_slides
from crane_ray.viewer.open_readers import OpenReaders
from crane_ray.viewer.replies import bytes_reply, etag_of, is_known, json_reply, not_changed
from crane_ray.viewer.settings import ViewSettings
from crane_ray.viewer.slide_facts import pixel_facts, slide_facts, unreadable
from crane_ray.viewer.tiles import JPEG_QUALITY, MAX_CROP_SIDE, Tiles, no_picture, shrunk
from crane_ray.viewer.versions import Versions

Maker = Callable[[Slide, str], bytes]
"""Makes a picture of a slide; the text is its file's version."""

MB = 2**20
JPEG, SVG, BINARY = "image/jpeg", "image/svg+xml", "application/octet-stream"
MAX_NUMBER = 2**31 - 1


class Answers:
    """Looks things up for one workspace; safe to use from several threads.

    Nothing of an address ever becomes a part of a path: slides, runs and heads are looked up by
    name among those that the workspace has.
    """

    def __init__(self, settings: ViewSettings) -> None:
        self._settings = settings
        self._catalogue = Catalogue(settings.work, settings.assessment)
        self._readers = OpenReaders(
            settings.max_open_slides, reader=settings.reader, staging=settings.staging
        )
        self._tiles = Tiles(self._readers, settings.tile_cache_mb * MB)
        self._scores = overlays.ScoreFiles()
        self._versions = Versions()

    def close(self) -> None:
        """Closes the slides."""
        self._readers.close()

    def workspace(self, request: Request) -> Response:
        """What the workspace is and which runs of maps it has."""
        snapshot = self._catalogue.snapshot()
        runs = [
            {
                "name": run.name,
                "model": storage.name_of(run.header.model),
                "heads": run.header.heads,
                "tasks": [task.model_dump() for task in run.header.tasks],
                "features": storage.name_of(run.header.features),
                "dense": run.header.dense,
                "slides": sum(map(run.has_maps, run.rows)),
            }
            for run in snapshot.runs.values()
        ]
        content = {
            "name": storage.name_of(self._settings.work),
            "folder": self._settings.work,
            "slides": len(snapshot.slides),
            "runs": runs,
            "problems": snapshot.problems,
            "version": __version__,
        }
        return json_reply(request, content)

    def slides(self, request: Request) -> Response:
        """A part of the list of slides."""
        ask = request.query_params
        question = Question(
            text=ask.get("q", "")[:200],
            show=ask.get("show", "all"),
            sort=ask.get("sort", "slide_id"),
            descending=ask.get("order") == "down",
            offset=_number(request, "offset", 0),
            limit=min(_number(request, "limit", 60), MAX_LIMIT),
            run=ask.get("run"),
        )
        return json_reply(request, list_slides(self._catalogue.snapshot(), question))

    def slide(self, request: Request) -> Response:
        """All that is known of a slide; it is opened for this."""
        row = self._row(request)
        facts = slide_facts(row, self._catalogue.snapshot(), request.query_params.get("run"))
        try:
            version = self._versions.of(row.uri)
            with self._readers.use(as_slide(row), version) as reader:
                facts |= pixel_facts(row, reader.info, version)
        except CraneError as error:
            facts |= unreadable(row, error)
        workspace = self._catalogue.workspace
        facts["marks"] = {
            "contours": storage.exists(workspace.contours(row.slide_id)),
            "patches": storage.exists(workspace.patches(row.slide_id)),
        }
        return json_reply(request, facts)

    def tile(self, request: Request) -> Response:
        """A deep-zoom tile."""
        row = self._row(request)
        level, column, line = (_part(request, name) for name in ("level", "column", "row"))
        make = partial(self._tiles.tile, place=(level, column, line))
        return self._picture(request, row, f"{level}/{column}/{line}", make)

    def thumbnail(self, request: Request) -> Response:
        """The slide as a small picture; one that says so where there is none.

        A list of slides of which some failed is no error of the page.
        """
        row = self._row(request)
        far = self._settings.staging.local or storage.is_uri(row.uri)
        try:
            if not far:
                return self._picture(request, row, "thumbnail", self._tiles.thumbnail)
            why = "its file is far away, and fetched when the slide is opened"
        except CraneError as error:
            why = str(error)
        try:
            return self._mask(request, row)
        except CraneError:
            return bytes_reply(request, no_picture(why), SVG)

    def crop(self, request: Request) -> Response:
        """A square of the slide: x, y and side in level-0 px."""
        row = self._row(request)
        x, y, side = (_number(request, name) for name in ("x", "y", "side"))
        if side > MAX_CROP_SIDE:
            raise BadRequestError(f"side {side}: at most {MAX_CROP_SIDE} px")
        make = partial(self._tiles.crop, square=(x, y, side))
        return self._picture(request, row, f"crop {x} {y} {side}", make)

    def contours(self, request: Request) -> Response:
        """Tissue polygons as GeoJSON, level-0 px."""
        row = self._row(request)
        path = self._own(self._catalogue.workspace.contours(row.slide_id))
        if not storage.exists(path):
            raise MissingError(f"slide {row.slide_id}: no tissue contours; crane-ray patch makes "
                               "them")  # fmt: skip
        return json_reply(request, read_contours(path).to_geojson())

    def patches(self, request: Request) -> Response:
        """Places of the patches as int32 x, y; their width and height in the headers."""
        row = self._row(request)
        path = self._own(self._catalogue.workspace.patches(row.slide_id))
        if not storage.exists(path):
            raise MissingError(f"slide {row.slide_id}: no patches; crane-ray patch places them")
        grid = read_patches(path, row.slide_id)
        answer = bytes_reply(request, overlays.places(grid.xy.astype("int32")), BINARY)
        width, height = grid.geometry.footprint_xy
        answer.headers["X-Footprint-Px"] = f"{width:g} {height:g}"
        return answer

    def map_facts(self, request: Request) -> Response:
        """What the maps of a slide have."""
        return json_reply(request, overlays.describe(self._map(request)))

    def map_places(self, request: Request) -> Response:
        """Places of the scores."""
        return bytes_reply(request, overlays.places(self._map(request).xy), BINARY)

    def map_scores(self, request: Request) -> Response:
        """Scores of a head."""
        scores, head = self._map(request), _head(request)
        self._check_head(scores, head)
        kind = request.query_params.get("kind", "percentile")
        if kind not in overlays.KINDS:
            raise BadRequestError(f"kind {kind!r}: {' and '.join(overlays.KINDS)} are known")
        return bytes_reply(request, overlays.values(scores, head, kind), BINARY)

    def map_extremes(self, request: Request) -> Response:
        """The patches with the highest and the lowest scores of a head."""
        scores, head = self._map(request), _head(request)
        self._check_head(scores, head)
        count = _number(request, "count", 12)
        content = {
            "footprint_px": scores.footprint_px,
            "top": overlays.extremes(scores, head, count, lowest=False),
            "bottom": overlays.extremes(scores, head, count, lowest=True),
        }
        return json_reply(request, content)

    def _row(self, request: Request) -> SlideRow:
        row = self._catalogue.slide(request.path_params["slide_id"])
        if row is None:
            raise MissingError("the workspace has no slide of this name; it may have been removed")
        return row

    def _run(self, request: Request) -> Run:
        run = self._catalogue.snapshot().run(request.query_params.get("run"))
        if run is None:
            raise MissingError("the workspace has no such maps; crane-ray heatmap makes some")
        return run

    def _map(self, request: Request) -> SlideScores:
        row, run = self._row(request), self._run(request)
        if not run.has_maps(row.slide_id):
            made = run.rows.get(row.slide_id)
            why = f": {made.reason}" if made and made.reason else ""
            raise MissingError(f"slide {row.slide_id}: no maps of {run.name}{why}")
        path = self._own(run.folder.scores(row.slide_id))
        return self._scores.read(path, self._versions.of(path))

    def _own(self, path: str) -> str:
        return self._catalogue.own_file(path)

    @staticmethod
    def _check_head(scores: SlideScores, head: str) -> None:
        if head not in scores.heads:
            raise MissingError(
                f"slide {scores.slide_id}: no head of this name; there are "
                f"{', '.join(scores.heads)}"
            )

    def _mask(self, request: Request, row: SlideRow) -> Response:
        """The picture that patching made: small, and in the workspace wherever the slide is."""
        path = self._own(self._catalogue.workspace.mask(row.slide_id))
        return bytes_reply(request, shrunk(storage.read_bytes(path)), JPEG)

    def _picture(self, request: Request, row: SlideRow, what: str, make: Maker) -> Response:
        try:
            version = self._versions.of(row.uri)
        except StorageError as error:
            raise MissingError(f"slide {row.slide_id}: {error}") from error
        etag = etag_of(row.slide_id, version, what, JPEG_QUALITY)
        fixed = request.query_params.get("v") == version
        if is_known(request, etag):
            return not_changed(etag, fixed=fixed)
        data = make(as_slide(row), version)
        return bytes_reply(request, data, JPEG, etag=etag, fixed=fixed)


def _head(request: Request) -> str:
    return request.query_params.get("head", "")


def _part(request: Request, name: str) -> int:
    """A number in the address's path."""
    return _whole(request.path_params[name], name)


def _number(request: Request, name: str, default: int | None = None) -> int:
    """A number in the address's query."""
    text = request.query_params.get(name)
    if text is None:
        if default is None:
            raise BadRequestError(f"{name}: missing; a whole number is needed")
        return default
    return _whole(text, name)


def _whole(text: str, name: str) -> int:
    # Python's int() takes more than digits, and thousands of them.
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or int(text) > MAX_NUMBER:
        raise BadRequestError(f"{name}: a whole number from 0 to {MAX_NUMBER} is needed")
    return int(text)
