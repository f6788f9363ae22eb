"""The image and the compose file, as far as can be seen without an engine."""

import os
import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from tests.unit.cluster.files import CLUSTER, ROOT, dockerfile, image_tag, load, size

COMPOSE = CLUSTER / "docker" / "compose.yaml"
NODES = ("head", "worker-1", "worker-2")


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def resolved(**variables: str) -> dict[str, Any]:
    """The compose file with variables filled in, as compose does."""

    def fill(match: re.Match[str]) -> str:
        name, kind, default = match.groups()
        if kind == "?" and name not in variables:
            raise KeyError(f"{name}: {default}")
        return variables.get(name, default)

    text = re.sub(r"\$\{(\w+):([-?])([^}]*)\}", fill, COMPOSE.read_text())
    assert "$" not in text
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def test_the_image_has_a_ray_and_a_python_that_are_supported() -> None:
    (ray,) = [one for one in project()["dependencies"] if one.startswith("ray[")]
    assert image_tag() in SpecifierSet(ray.partition("]")[2])
    (python,) = re.findall(r"^ARG PYTHON=py3(\d+)$", dockerfile(), re.MULTILINE)
    assert f"3.{python}" in SpecifierSet(project()["requires-python"])
    assert f"Programming Language :: Python :: 3.{python}" in project()["classifiers"]
    assert "FROM rayproject/ray:${RAY_VERSION}-${PYTHON}" in dockerfile()
    (extras,) = re.findall(r"^ARG EXTRAS=(.+)$", dockerfile(), re.MULTILINE)
    assert set(extras.split(",")) <= project()["optional-dependencies"].keys()


def test_what_is_copied_is_there_and_is_sent() -> None:
    copies = re.findall(r"^COPY --chown=\S+ (.+) \S+$", dockerfile(), re.MULTILINE)
    sources = [source for copied in copies for source in copied.split()]
    assert len(sources) > 4
    assert all((ROOT / source).exists() for source in sources)
    ignore = (CLUSTER / "docker" / "Dockerfile.dockerignore").read_text().split()
    sent = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert ignore[0] == "*"
    assert {source.split("/")[0] for source in sources} - {"."} == sent
    needed = {project()["readme"], *project()["license-files"], "pyproject.toml", "crane_ray"}
    assert sent == needed


def test_one_version_is_named_everywhere() -> None:
    pages = [*CLUSTER.rglob("*.md"), *CLUSTER.rglob("*.yaml"), CLUSTER / "docker" / "Dockerfile"]
    tags = {tag for page in pages for tag in re.findall(r"crane-ray:(\d[\w.]*)", page.read_text())}
    assert tags == {image_tag()}


def test_a_head_and_two_workers_share_a_folder_and_a_token() -> None:
    services = resolved(RAY_AUTH_TOKEN="secret")["services"]
    started = [name for name, service in services.items() if "profiles" not in service]
    assert tuple(started) == NODES
    for name in NODES:
        service = services[name]
        assert service["image"] == f"crane-ray:{image_tag()}"
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN"] == "secret"
        assert service["volumes"] == ["./shared:/shared"]
        assert service["init"] is True, "nobody else buries Ray's ended processes"
        words = service["command"].split()
        assert words[:2] == ["ray", "start"]
        assert "--block" in words
        objects = size(words[words.index("--object-store-memory") + 1])
        assert objects < size(service["shm_size"])
    assert services["head"]["ports"] == ["127.0.0.1:8265:8265"]
    for name in NODES[1:]:
        assert "--address head:6379" in services[name]["command"]
        assert services[name]["depends_on"] == {"head": {"condition": "service_healthy"}}


def test_without_a_token_nothing_starts() -> None:
    with pytest.raises(KeyError, match="openssl rand"):
        resolved()


def test_compose_accepts_the_file() -> None:
    compose = ["docker", "compose"]
    if (
        shutil.which("docker") is None
        or subprocess.run([*compose, "version"], capture_output=True, check=False).returncode
    ):
        pytest.skip("docker compose is not installed (the client is enough)")
    environment = {**os.environ, "RAY_AUTH_TOKEN": "secret"}
    words = [*compose, "--file", str(COMPOSE), "config", "--format", "json"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["services"].keys() == set(NODES)


def test_the_kubernetes_manifests_build_on_this_image() -> None:
    (image,) = load("kuberay", "base", "kustomization.yaml")["images"]
    assert image["newTag"] == image_tag()
