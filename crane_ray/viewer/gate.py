"""Who is let in: the middleware in front of every answer of the viewer."""

import hashlib
import hmac
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPENSEADRAGON_STYLE = "'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
"""Of the one style element that OpenSeadragon puts into the page, for touch screens."""
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; img-src 'self' data:; "
        f"style-src 'self' {OPENSEADRAGON_STYLE}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
COOKIE_SECONDS = 30 * 24 * 3600
NO_TOKEN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>crane-ray view</title>
<h1>This viewer asks for a token</h1>
<p>Open the whole address that <code>crane-ray view</code> printed when it started; it ends in
<code>?token=...</code>. Programs send it as <code>Authorization: Bearer TOKEN</code>.</p></html>"""


class Gate:
    """Refuses foreign host names and requests without the token; adds the security headers.

    A page of another site can point its own name at 127.0.0.1 (DNS rebinding) and would then be
    let read everything: hence the check of the Host header where nobody is asked for a token.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: tuple[str, ...]) -> None:
        self.app = app
        self._token = token
        self._hosts = frozenset(host.casefold() for host in hosts)
        # Cookies are shared by all ports of a host: viewers must not overwrite each other's.
        digest = hashlib.sha256((token or "").encode()).hexdigest()
        self.cookie = f"crane_ray_{digest[:12]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers by itself, or lets the request through."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        answer = self._refusal(Request(scope))
        await (answer or self.app)(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        host = _host_name(request.headers.get("host", ""))
        if self._hosts and host not in self._hosts:
            return PlainTextResponse(
                f"host {host!r} is not this viewer's; it answers to "
                f"{', '.join(sorted(self._hosts))}. To use another name, start it with --host.",
                status_code=421,
            )
        if self._token is None:
            return None
        offered = request.query_params.get("token")
        if offered is not None and self._is_token(offered):
            return self._welcome(request)
        if self._is_token(_bearer(request)) or self._is_token(request.cookies.get(self.cookie, "")):
            return None
        return HTMLResponse(
            NO_TOKEN, status_code=401, headers={"WWW-Authenticate": "Bearer", **NEVER_STORED}
        )

    def _is_token(self, offered: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(offered.encode(), self._token.encode())

    def _welcome(self, request: Request) -> Response:
        """Puts the token in a cookie and takes it out of the address, so that nobody copies it."""
        left = [pair for pair in parse_qsl(request.url.query) if pair[0] != "token"]
        # One slash: //host would be another site.
        where = "/" + request.url.path.lstrip("/\\") + (f"?{urlencode(left)}" if left else "")
        answer = RedirectResponse(where, status_code=303, headers=NEVER_STORED)
        assert self._token is not None
        # Lax: links from a chat or a notebook must work, and no request changes anything.
        answer.set_cookie(
            self.cookie, self._token, max_age=COOKIE_SECONDS, httponly=True, samesite="lax"
        )
        return answer


NEVER_STORED = {"Cache-Control": "no-store"}


def _bearer(request: Request) -> str:
    kind, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.casefold() == "bearer" else ""


def _host_name(header: str) -> str:
    """The Host header without its port; ``[::1]:8501`` gives ``::1``."""
    if header.startswith("["):
        return header[1:].partition("]")[0].casefold()
    return header.rpartition(":")[0].casefold() if ":" in header else header.casefold()
