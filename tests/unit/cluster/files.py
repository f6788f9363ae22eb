"""Where the files of `cluster/` are, and what several of their tests read from them."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"
FOLDERS = sorted(path.name for path in CLUSTER.iterdir() if path.is_dir())


def load(*parts: str) -> Any:
    """A YAML file of one document."""
    return yaml.safe_load(CLUSTER.joinpath(*parts).read_text(encoding="utf-8"))


def image_tag() -> str:
    """The tag that everything names, which is the version of the image's Ray."""
    (version,) = re.findall(r"^ARG RAY_VERSION=(.+)$", dockerfile(), re.MULTILINE)
    return str(version)


def dockerfile() -> str:
    """How the image is built."""
    return (CLUSTER / "docker" / "Dockerfile").read_text(encoding="utf-8")


def size(text: str) -> float:
    """Bytes of a size as Kubernetes, Docker or Ray write it: 3Gi, 2gb, 2000000000."""
    number, unit = re.fullmatch(r"(\d+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    factors = {"": 1, "gb": 2**30, "gi": 2**30, "ti": 2**40}
    return float(int(number) * factors[unit.lower()])
