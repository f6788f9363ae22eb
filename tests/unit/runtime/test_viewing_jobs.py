"""Who may look at a viewer is decided by its config."""

import socket
from pathlib import Path

import pytest

from crane_ray.errors import ConfigError
from crane_ray.runtime.pools import Node
from crane_ray.runtime.viewing_checks import check_port, check_replicas, check_workspace, page_url
from crane_ray.runtime.viewing_jobs import ViewJob


def job(**values: object) -> ViewJob:
    return ViewJob.load(None, [("work", "/w"), *values.items()])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_on_loopback_nobody_is_asked_but_names_are_checked(host: str) -> None:
    settings = job(host=host).settings()
    assert settings.token is None
    assert set(settings.hosts) == {"127.0.0.1", "localhost", "::1"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "gpu-7", "127.0.0.1.example"])
def test_elsewhere_a_token_is_drawn(host: str) -> None:
    first, second = job(host=host).settings(), job(host=host).settings()
    assert first.token is not None
    assert len(first.token) >= 32
    assert first.token != second.token
    assert first.hosts == ()


def test_a_token_of_ones_own_or_a_drawn_one_on_loopback() -> None:
    assert job(token="sixteen-letters-").settings().token == "sixteen-letters-"
    drawn = job(token="random").settings()
    assert drawn.token not in {None, "random"}
    assert drawn.hosts


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"token": "short"}, "too short to be safe"),
        ({"token": "sixteen letters\n-"}, "ASCII"),
        ({"host": ""}, "address of this machine"),
        ({"host": "http://x/"}, "address of this machine"),
        ({"port": 0}, "port"),
        ({"replicas": 0}, "replicas"),
    ],
)
def test_impossible_values_are_refused(values: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        job(**values)


def test_the_page_is_named_so_that_it_can_be_opened() -> None:
    assert page_url(job(), None) == "http://127.0.0.1:8501/"
    assert page_url(job(host="::1", port=9000), None) == "http://[::1]:9000/"
    assert page_url(job(host="0.0.0.0"), "a+b").startswith(f"http://{socket.gethostname()}:8501/")
    assert page_url(job(host="h"), "a+/b") == "http://h:8501/?token=a%2B%2Fb"


def test_a_port_that_is_taken_is_refused_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: cannot be listened on"):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)


def test_more_replicas_than_cpus_are_refused() -> None:
    check_replicas(job(replicas=3), (Node(2), Node(1)))
    with pytest.raises(ConfigError, match="there are 2"):
        check_replicas(job(replicas=3), (Node(2),))


def test_what_is_no_workspace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("file", "nothing"):
        with pytest.raises(ConfigError, match="crane-ray patch"):
            check_workspace(job(work=str(tmp_path / name)))
    check_workspace(job(work=str(tmp_path)))
    with pytest.raises(ConfigError, match="tif"):
        check_workspace(job(work=str(tmp_path), reader="tif"))
