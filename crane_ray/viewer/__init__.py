"""A web page for slides with their attention maps: a plain ASGI app, which imports no ray."""
