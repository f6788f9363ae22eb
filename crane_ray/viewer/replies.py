"""Answers of the viewer: JSON, bytes, and errors in words."""

import hashlib
import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

FOR_EVER = "private, max-age=604800, immutable"
"""For addresses that carry the version of what they show."""
ASK_AGAIN = "private, no-cache"
"""Kept by the browser, which asks each time whether it is still right."""


def json_reply(request: Request, content: Any) -> Response:
    """Content as JSON with an ETag."""
    data = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    return bytes_reply(request, data, "application/json")


def bytes_reply(
    request: Request, data: bytes, media_type: str, *, etag: str | None = None, fixed: bool = False
) -> Response:
    """Bytes with an ETag; 304 without them where the browser has them already.

    Args:
        request: what is answered.
        data: the bytes.
        media_type: their type.
        etag: changes with the bytes; their hash where not given.
        fixed: True where the address never shows anything else.
    """
    tag = etag or etag_of(data)
    kept = FOR_EVER if fixed else ASK_AGAIN
    headers = {"ETag": tag, "Cache-Control": kept}
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)


def not_changed(etag: str, *, fixed: bool) -> Response:
    """Says that what the browser has is still right."""
    kept = FOR_EVER if fixed else ASK_AGAIN
    return Response(status_code=304, headers={"ETag": etag, "Cache-Control": kept})


def is_known(request: Request, etag: str) -> bool:
    """True where the browser has what the tag names."""
    known = (tag.strip().removeprefix("W/") for tag in _known_tags(request))
    return etag in known


def etag_of(*parts: bytes | str | int) -> str:
    """A quoted tag that changes with any of the parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return f'"{digest.hexdigest()[:20]}"'


def problem(status: int, words: str) -> Response:
    """An error that the page shows as it is."""
    data = json.dumps({"problem": words}).encode()
    headers = {"Cache-Control": "no-store"}
    return Response(data, status, headers, "application/json")


def _known_tags(request: Request) -> list[str]:
    return request.headers.get("if-none-match", "").split(",")
