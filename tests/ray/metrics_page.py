"""What the nodes of a Ray export to Prometheus."""

import re
import urllib.request
from dataclasses import dataclass

import ray

SAMPLE = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True)
class Sample:
    """One line of the page."""

    name: str
    labels: dict[str, str]
    value: float


def read_metrics() -> list[Sample]:
    """All samples of crane-ray's metrics on the nodes of the connected Ray."""
    found = []
    for node in ray.nodes():
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        for line in lines:
            if line.startswith("ray_crane_ray_") and (match := SAMPLE.match(line)):
                name, labels, value = match.groups()
                found.append(Sample(name, dict(LABEL.findall(labels)), float(value)))
    return found


def total(samples: list[Sample], name: str, **labels: str) -> float:
    """The sum of a metric over processes."""
    return sum(
        one.value for one in samples if one.name == name and labels.items() <= one.labels.items()
    )
