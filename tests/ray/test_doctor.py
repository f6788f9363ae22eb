"""doctor on a real Ray: the probe runs on its nodes, and leaves nothing behind."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from crane_ray.cli.main import cli
from crane_ray.preflight.rates import read_rates

pytestmark = pytest.mark.ray


@pytest.mark.usefixtures("local_ray")
def test_a_node_that_lacks_weights_is_told_and_measured_all_the_same(tmp_path: Path) -> None:
    work, rates = tmp_path / "new" / "work", tmp_path / "rates.json"
    words = ["doctor", "--work", str(work), "--encoder", "resnet50_trunc"]
    measured = [*words, "--weights", "random", "--rates-out", str(rates)]
    sound = CliRunner().invoke(cli, measured, standalone_mode=False)
    assert sound.return_value == 0, sound.output
    assert "fit: nothing on 1 node will break a run" in sound.output
    (node,) = read_rates(str(rates)).nodes
    assert (node.cpus, node.on_gpu) == (2, False)
    assert node.decode > node.encode > 0
    missing = [*words, "--weights", str(tmp_path / "none.pth"), "--no-measure"]
    bad = CliRunner().invoke(cli, missing, standalone_mode=False)
    assert bad.return_value == 1, bad.output
    assert "none.pth" in bad.output
    assert [path.name for path in tmp_path.iterdir()] == ["rates.json"]
