from pathlib import Path

import pytest

from crane_ray.errors import StoreError
from crane_ray.mil.history import Epoch, read_history, write_history


def test_what_is_written_is_read_back_in_order_and_the_last_of_an_epoch_counts(
    tmp_path: Path,
) -> None:
    epochs = [Epoch(epoch, 1.0 - epoch / 9, None, {"cell": 0.5}) for epoch in (1, 0, 1)]
    last = Epoch(1, 0.25, 0.75, {})
    write_history(str(tmp_path), [one.numbers() for one in (*epochs, last)])
    assert read_history(str(tmp_path)) == (epochs[1], last)


def test_a_loss_that_is_not_finite_is_none(tmp_path: Path) -> None:
    write_history(str(tmp_path), [Epoch(0, float("inf"), float("nan"), {}).numbers()])
    assert read_history(str(tmp_path)) == (Epoch(0, None, None, {}),)


def test_of_a_fold_that_kept_none_there_is_none(tmp_path: Path) -> None:
    assert read_history(str(tmp_path)) == ()


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 9, "epochs": []}', '{"format": 1}'])
def test_another_file_of_that_name_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(StoreError, match=r"history\.json"):
        read_history(str(tmp_path))
