"""Memory that the attention of a large bag takes, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from crane_ray.cohort.tasks import load_task_set
from crane_ray.maps.attending import attend
from crane_ray.mil.aggregator import build_aggregator
from crane_ray.mil.checkpoints import Checkpoint
from crane_ray.mil.configs import ModelConfig

ROOT = Path(__file__).parents[3]
NUM_PATCHES, DIM, NUM_NETWORKS = 60_000, 256, 2
MAX_MB = 150
"""Beyond features and networks: 20 to 30 MB measured, 380 MB where the whole bag goes through at
once."""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_bag_of_sixty_thousand_patches() -> None:
    command = [sys.executable, "-m", "tests.unit.maps.test_memory"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < MAX_MB


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measure() -> float:
    """Megabytes by which the peak grows, after a first bag has brought up torch."""
    torch.set_num_threads(1)
    tasks = load_task_set("cardiac-mtl").tasks
    config = ModelConfig()
    networks = [
        Checkpoint(build_aggregator(config, DIM, tasks), config, DIM, tasks, "crane-ray", {}, True)
        for _ in range(NUM_NETWORKS)
    ]
    features = np.random.default_rng(0).random((NUM_PATCHES, DIM), dtype=np.float32)
    attend(networks, features[:100])
    before = peak_mb()
    attend(networks, features)
    return peak_mb() - before


if __name__ == "__main__":
    print(measure())
