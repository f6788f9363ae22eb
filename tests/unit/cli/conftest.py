"""A small study, and no cluster: what the command line refuses, it refuses before one starts."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.small_study import SmallStudy, make_study


@pytest.fixture
def study(tmp_path: Path) -> SmallStudy:
    return make_study(tmp_path / "study")


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any) -> None:
        raise AssertionError("a Ray was started")

    for module in (
        "training", "evaluation", "tuning", "assessment", "slide_assessment", "patching",
        "extraction",
    ):  # fmt: skip
        monkeypatch.setattr(f"crane_ray.runtime.{module}.connected", refuse)
