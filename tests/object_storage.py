"""A real S3 server on loopback (moto's), and a proxy before it that loses and cuts requests."""

import http.client
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

import pytest

BUCKET = "cohort"
SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()  # until the tests are gone, however they end
"""
PAGE = 50
"""Keys in one answer of a listing (S3's own: 1,000)."""
PACKAGES = ("s3fs", "moto", "flask", "boto3")

Fault = Literal["refuse", "reset", "cut", "cut upload"]
"""``refuse``: a 503. ``reset``: no answer at all. ``cut``: half of the answer's body.
``cut upload``: half of the request's body is read, then the connection ends."""


@dataclass
class S3:
    """A server, and the environment that leads to it."""

    endpoint: str
    environment: dict[str, str]

    def uri(self, *parts: str) -> str:
        return "/".join([f"s3://{BUCKET}", *parts])

    def client(self) -> "Client":
        return Client(self.endpoint)


class Client:
    """What tests ask the server without crane-ray's own code between."""

    def __init__(self, endpoint: str) -> None:
        boto3 = pytest.importorskip("boto3")
        self._s3 = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def make_bucket(self, name: str = BUCKET) -> None:
        self._s3.create_bucket(Bucket=name)

    def keys(self, prefix: str = "") -> list[str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def put(self, key: str, data: bytes) -> None:
        self._s3.put_object(Bucket=BUCKET, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        return bytes(self._s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def unfinished_uploads(self) -> list[str]:
        answer = self._s3.list_multipart_uploads(Bucket=BUCKET)
        return [upload["Key"] for upload in answer.get("Uploads", [])]

    def content(self, prefix: str = "") -> dict[str, bytes]:
        """Objects by their key after the prefix."""
        return {key.removeprefix(prefix): self.get(key) for key in self.keys(prefix)}

    def close(self) -> None:
        self._s3.close()


@dataclass
class Proxy:
    """Passes requests on to a server, but for those that ``fault`` names."""

    endpoint: str
    fault: Callable[[str, str, int], Fault | None] = lambda method, path, number: None
    """From method, path with query, and the request's number (from 0) to what befalls it."""
    seen: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def judge(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.seen.append((method, path))
            number = len(self.seen) - 1
        return self.fault(method, path, number)


def require_s3() -> None:
    """Skips a test where the packages of the tests' S3 server are not installed."""
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"needs {package} (crane-ray[s3,test])")


@contextmanager
def moto_server() -> Iterator[str]:
    """The endpoint of an S3 server in a process of its own, on a free port of loopback."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)},
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


def aws_environment(endpoint: str) -> dict[str, str]:
    """All that leads to a server, and nowhere else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_MAX_ATTEMPTS": "1",  # the client library's own attempts would hide crane-ray's
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """AWS variables of the machine replaced by the given ones, clients made anew on both sides."""
    gone = [name for name in os.environ if name.startswith("AWS_")]
    before = {name: os.environ.get(name) for name in {*gone, *values}}
    for name in gone:
        del os.environ[name]
    os.environ.update(values)
    forget_clients()
    try:
        yield
    finally:
        forget_clients()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def forget_clients() -> None:
    """Clients keep the endpoint that they were made with."""
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server for the session, with the bucket made."""
    require_s3()
    with moto_server() as endpoint:
        client = Client(endpoint)
        client.make_bucket()
        client.close()
        yield endpoint


@pytest.fixture
def s3(s3_endpoint: str) -> Iterator[S3]:
    """An environment in which ``s3://cohort`` is on the tests' own server."""
    values = aws_environment(s3_endpoint)
    with environment(values):
        yield S3(s3_endpoint, values)


@pytest.fixture
def faulty_s3(s3_endpoint: str) -> Iterator[Proxy]:
    """The same, through a proxy whose ``fault`` says which requests go wrong."""
    with proxy_before(s3_endpoint) as proxy, environment(aws_environment(proxy.endpoint)):
        yield proxy


@contextmanager
def proxy_before(endpoint: str) -> Iterator[Proxy]:
    """A proxy on loopback before a server."""
    proxy = Proxy("")
    handler = type("BoundHandler", (_Handler,), {"proxy": proxy, "target": urlsplit(endpoint)})
    server = _Server(("127.0.0.1", 0), handler)
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    proxy: Proxy
    target: "object"
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        fault = self.proxy.judge(self.command, self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == "cut upload":
            self.rfile.read(length // 2)
            self._hang_up()
            return
        body = self.rfile.read(length)
        if fault == "reset":
            self._hang_up()
        elif fault == "refuse":
            self._answer(503, [("Content-Type", "text/xml")], BUSY, len(BUSY))
        else:
            status, headers, content, length = self._ask(body)
            if fault == "cut" and length > 1 and content:
                self._answer(status, headers, content[: length // 2], length)
                self._hang_up()
            else:
                self._answer(status, headers, content, length)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes, int]:
        host, port = self.target.hostname, self.target.port  # type: ignore[attr-defined]
        connection = http.client.HTTPConnection(host, port, timeout=30)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in {"connection", "expect"}:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            skipped = {"connection", "transfer-encoding", "content-length"}
            headers = [pair for pair in answer.getheaders() if pair[0].lower() not in skipped]
            stated = answer.getheader("Content-Length")
            return answer.status, headers, content, int(stated or len(content))
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], content: bytes, length: int
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


BUSY = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>ServiceUnavailable</Code>'
    b"<Message>Reduce nothing, just wait</Message></Error>"
)
