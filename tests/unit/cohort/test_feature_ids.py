from pathlib import Path

import pytest

from crane_ray.cohort import feature_ids
from crane_ray.errors import ConfigError, StoreError


def test_clams_folders_and_plain_ones(tmp_path: Path) -> None:
    (tmp_path / "pt_files").mkdir()
    for name in ("b.h5", "a.pt", "pt_files/c.pt", "pt_files/b.pt", "notes.txt"):
        (tmp_path / name).touch()
    assert feature_ids.feature_slide_ids(str(tmp_path)) == ["a", "b", "c"]


def test_a_feature_store_is_known_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "store.json").write_text('{"version": 1000}')
    (tmp_path / "a.pt").touch()
    with pytest.raises(StoreError, match="upgrade"):
        feature_ids.feature_slide_ids(str(tmp_path))


def test_a_folder_without_features_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a feature store"):
        feature_ids.feature_slide_ids(str(tmp_path))
