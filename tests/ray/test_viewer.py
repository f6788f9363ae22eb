"""The viewer behind Ray Serve: it starts, shows tiles, and stops."""

import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote

import pytest
import simplejpeg
from ray import serve

from crane_ray.runtime.serving import serving
from crane_ray.runtime.viewing_jobs import ViewJob
from tests.ray.helpers import free_ports
from tests.unit.viewer.small_workspace import GOOD, make_workspace

pytestmark = pytest.mark.ray


def test_tiles_come_through_serve_and_only_with_the_token(local_ray: None, tmp_path: Path) -> None:
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
    with pytest.raises(OSError):
        urllib.request.urlopen(page)
    assert not serve.status().applications
