"""The viewer's ASGI app: which address answers with what."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from crane_ray.errors import CraneError
from crane_ray.viewer.answers import Answers
from crane_ray.viewer.assets import read_assets
from crane_ray.viewer.deep_zoom import NoPixelsError
from crane_ray.viewer.faults import BadRequestError, MissingError
from crane_ray.viewer.gate import Gate
from crane_ray.viewer.replies import bytes_reply, problem
from crane_ray.viewer.settings import ViewSettings

Handler = Callable[[Request], Response]
Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(settings: ViewSettings) -> Starlette:
    """The app of a workspace, to be served by whatever speaks ASGI.

    Decoding runs in threads, so that the page and what is cached answer meanwhile. Its threads and
    slides are closed by its lifespan, or by ``app.state.close()`` where a server runs none.
    """
    answers = Answers(settings)
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="viewer")

    def close() -> None:
        threads.shutdown(wait=True, cancel_futures=True)
        answers.close()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        close()

    def route(path: str, handler: Handler) -> Route:
        return Route(path, _threaded(handler, threads), methods=["GET"])

    slide = "/api/slides/{slide_id}"
    app = Starlette(
        routes=[
            *_asset_routes(),
            route("/api/workspace", answers.workspace),
            route("/api/slides", answers.slides),
            route(slide, answers.slide),
            route(slide + "/tiles/{level}/{column}_{row}.jpg", answers.tile),
            route(slide + "/thumbnail.jpg", answers.thumbnail),
            route(slide + "/crop.jpg", answers.crop),
            route(slide + "/contours", answers.contours),
            route(slide + "/patches", answers.patches),
            route(slide + "/map", answers.map_facts),
            route(slide + "/map/places", answers.map_places),
            route(slide + "/map/scores", answers.map_scores),
            route(slide + "/map/extremes", answers.map_extremes),
        ],
        middleware=[Middleware(Gate, token=settings.token, hosts=settings.hosts)],
        exception_handlers={404: _not_found, 405: _not_allowed},
        lifespan=lifespan,
    )
    app.state.close = close
    return app


def _asset_routes() -> list[Route]:
    assets = read_assets()

    async def send(request: Request, name: str) -> Response:
        return bytes_reply(request, *assets[name])

    routes = [
        Route(f"/static/{name}", partial(send, name=name), methods=["GET"]) for name in assets
    ]
    return [Route("/", partial(send, name="index.html"), methods=["GET"]), *routes]


def _threaded(handler: Handler, threads: ThreadPoolExecutor) -> Endpoint:
    """The handler in a thread; what it raises becomes an answer in words."""

    async def endpoint(request: Request) -> Response:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(threads, handler, request)
        except BadRequestError as error:
            return problem(400, str(error))
        except (MissingError, NoPixelsError) as error:
            return problem(404, str(error))
        except CraneError as error:
            return problem(422, str(error))

    return endpoint


async def _not_found(request: Request, error: Exception) -> Response:
    return problem(404, "there is nothing at this address")


async def _not_allowed(request: Request, error: Exception) -> Response:
    answer = problem(405, "the viewer only shows: GET is the one method it knows")
    answer.headers["Allow"] = "GET, HEAD"
    return answer
