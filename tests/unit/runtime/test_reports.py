from pathlib import Path

import pytest

from crane_ray.runtime.reports import try_report


def test_a_report_that_cannot_be_made_costs_nothing_and_is_told(tmp_path: Path) -> None:
    notes: list[str] = []
    assert try_report(str(tmp_path), notes.append) == ""
    assert len(notes) == 1
    assert notes[0].startswith(f"warning: no report of {tmp_path}: run {tmp_path}: no config.yaml")
    assert notes[0].endswith(f"crane-ray report {tmp_path} tries again")


def test_our_own_mistakes_cost_nothing_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(run: str) -> str:
        raise KeyError(run)

    monkeypatch.setattr("crane_ray.report.writing.write_report", fails)
    notes: list[str] = []
    assert try_report(str(tmp_path), notes.append) == ""
    assert "no report" in notes[0]
