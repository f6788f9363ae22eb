"""docs/observability.md has every metric as the code has it, and the logs' events."""

import re
from pathlib import Path

from crane_ray.features.clock import Shares
from crane_ray.runtime.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "observability.md").read_text()
EVENT = re.compile(r'"event": "(\w+)"|_say\("(\w+)"\)')


def test_every_metric_is_on_the_page_as_the_code_has_it() -> None:
    rows = re.findall(
        r"^\| `(ray_crane_ray_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE
    )
    assert rows == [
        (one.exported, one.kind, ", ".join(one.tags) or "-", one.words) for one in METRICS.values()
    ]


def test_every_state_of_the_encoders_says_what_to_change() -> None:
    states = {name.removesuffix("_s") for name in Shares().rounded()}
    assert (
        set(re.findall(r"^\| `(\w+)` \| ", PAGE.split("**When it is slow**")[1], re.MULTILINE))
        >= states
    )


def test_every_event_of_the_log_is_on_the_page() -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith("| `event` |"))
    told = set(re.findall(r"`(\w+)`", row)) - {"event"}
    files = [
        ROOT / "crane_ray" / "cli" / f"{name}.py"
        for name in ("console", "records", "training_records", "main")
    ]
    used = {one or other for path in files for one, other in EVENT.findall(path.read_text())}
    assert told == used
