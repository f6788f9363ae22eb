"""A client that sends an ASGI app exactly the bytes of an address, without tidying it up."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Client:
    """Asks an app as a web server would; paths are decoded once, as in uvicorn."""

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1:8501") -> None:
        self.app = app
        self.host = host

    def get(self, address: str, method: str = "GET", **headers: str) -> Answer:
        """The answer to a request; headers are given with underscores."""
        path, _, query = address.partition("?")
        named = {"host": self.host} | {key.replace("_", "-"): v for key, v in headers.items()}
        scope = {
            "type": "http", "http_version": "1.1", "method": method, "scheme": "http",
            "path": unquote(path), "raw_path": path.encode(), "root_path": "",
            "query_string": query.encode("ascii"),
            "headers": [(key.encode(), value.encode()) for key, value in named.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8501),
        }  # fmt: skip
        return asyncio.run(self._ask(scope))

    async def _ask(self, scope: dict[str, Any]) -> Answer:
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        start = messages[0]
        headers = {key.decode().lower(): value.decode() for key, value in start["headers"]}
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return Answer(start["status"], headers, body)
