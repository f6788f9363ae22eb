"""The viewer behind Ray Serve: it starts, shows tiles, and stops."""

import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
import simplejpeg
from ray import serve

from crane_ray.runtime.serving import serving
from crane_ray.runtime.viewing_jobs import ViewJob
from tests.ray.clusters import is_alive, kill
from tests.ray.helpers import free_ports, processes_below, wait_for
from tests.unit.viewer.small_workspace import GOOD, make_workspace

pytestmark = pytest.mark.ray


@pytest.mark.chaos
def test_tiles_come_through_serve_with_the_token_and_again_after_its_replica_died(
    local_ray: None, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    work = str(make_workspace(tmp_path))
    job = ViewJob(work=work, port=port, token="random")
    tile = f"api/slides/{quote(GOOD)}/tiles/11/1_1.jpg"
    with serving(job) as address:
        page, _, token = address.url.partition("?token=")
        assert page == f"http://127.0.0.1:{port}/"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(page + tile)
        request = urllib.request.Request(page + tile, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request) as answer:
            assert simplejpeg.decode_jpeg(answer.read()).shape == (512, 512, 3)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        replicas = replicas_of_viewers()
        assert len(replicas) == 1
        kill(replicas[0])
        wait_for(lambda: not is_alive(replicas[0]), "the end of the replica")
        wait_for(lambda: answers(request), "another replica")
        assert replicas_of_viewers() not in ([], replicas)
    with pytest.raises(OSError):
        urllib.request.urlopen(page)
    assert not serve.status().applications


def replicas_of_viewers() -> list[int]:
    """The processes that answer for viewers on this session's Ray."""
    name = "ray::ServeReplica:crane-ray-view"
    return [pid for pid, what in processes_below(os.getpid()) if what.startswith(name)]


def answers(request: urllib.request.Request) -> bool:
    """True where a request is answered within seconds."""
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200 and answer.read())
    except OSError:
        return False
