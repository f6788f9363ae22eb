"""What torch does not load is told in words that a user can act on."""

import argparse
import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from crane_ray.features.torch_files import load_tensors


def saved(value: Any) -> bytes:
    sink = io.BytesIO()
    torch.save(value, sink)
    return sink.getvalue()


def test_tensors_are_loaded_also_mapped(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(saved({"a": torch.ones(3)}))
    for found in (load_tensors(str(file)), load_tensors(str(file), mapped=True)):
        assert torch.equal(found["a"], torch.ones(3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty or cut short"),
        (b"garbage" * 100, "or no file of torch.save"),
        (saved(torch.ones(99))[:-40], "cut short or damaged"),
        (saved(argparse.Namespace()), r"pickled objects.*\(argparse.Namespace\).*tensors alone"),
        (pickle.dumps(argparse.Namespace(), protocol=4), "pickled objects.*tensors alone"),
    ],
)
def test_what_cannot_be_loaded_says_why_in_a_line(data: bytes, message: str) -> None:
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message) as caught:
        warnings.simplefilter("error")
        load_tensors(io.BytesIO(data))
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice would execute the file
