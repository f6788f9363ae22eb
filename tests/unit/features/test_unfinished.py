"""Processes that are killed while they write leave nothing among the slides."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crane_ray.features.store import FeatureStore, SlideHeader
from crane_ray.plugins import load_plugin
from tests.unit.features.small_store import files_below, make_cohort

DIE_AT_ITS_LAST_RENAME = """
import os, sys
import numpy as np
from tests.unit.features.test_unfinished import write
path, layout, last, replace = sys.argv[1], sys.argv[2], sys.argv[3], os.replace
def die_at_last(source, target, **options):
    if target.name == last:
        os._exit(9)
    replace(source, target, **options)
os.replace = die_at_last
write(path, layout)
"""


def write(slide: str, layout: str) -> None:
    """Three rows of a slide."""
    header = SlideHeader("a", num_patches=3, dim=2, dtype="float32", chunk_rows=4, facts={})
    features, xy = np.ones((3, 2), np.float32), np.zeros((3, 2), np.int32)
    load_plugin("crane_ray.features.stores", layout).FORMAT.write(slide, header, 0, features, xy)


@pytest.mark.parametrize(
    ("layout", "last"),
    [("zarr", "zarr.json"), ("zarr", "0"), ("parquet", "part-000000000.parquet")],
)
def test_a_write_that_was_cut_off_leaves_nothing_among_the_slides(
    tmp_path: Path, layout: str, last: str
) -> None:
    write(str(tmp_path / "undisturbed/slides/a"), layout)
    slide = tmp_path / "store/slides/a"
    words = [sys.executable, "-c", DIE_AT_ITS_LAST_RENAME, str(slide), layout, last]
    assert subprocess.run(words, check=False, timeout=120).returncode == 9
    assert len(files_below(tmp_path / "store/unfinished")) == 1
    assert files_below(slide).items() < files_below(tmp_path / "undisturbed/slides/a").items()
    write(str(slide), layout)
    assert files_below(slide) == files_below(tmp_path / "undisturbed/slides/a")


def test_the_next_run_clears_what_was_cut_off(tmp_path: Path) -> None:
    cohort = make_cohort(tmp_path, num_slides=1)
    left = Path(cohort.store.root, "unfinished", ".0123456789ab.0")
    left.parent.mkdir()
    left.touch()
    FeatureStore.open(cohort.store.root)  # reading is no run, and may go on beside one
    assert left.exists()
    cohort.books()
    assert not left.parent.exists()
