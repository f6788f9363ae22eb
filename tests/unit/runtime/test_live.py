"""What actors tell the driver for its bars: all of it, and never too often."""

from typing import Any

import pytest

from crane_ray.runtime.live import EVERY_S, MESSAGES_A_SECOND, Teller, tell_every_s


class Box:
    """A mailbox's address."""

    def __init__(self) -> None:
        self.came: list[int] = []
        self.put = self

    def remote(self, message: dict[str, Any]) -> None:
        self.came.append(message["patches"])


def test_few_actors_tell_twice_a_second_and_many_no_more_than_the_mailbox_takes() -> None:
    assert tell_every_s(1) == tell_every_s(100) == EVERY_S
    assert 8_000 / tell_every_s(8_000) <= MESSAGES_A_SECOND


def test_an_actor_tells_all_that_it_counted_but_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("crane_ray.runtime.live.time.monotonic", lambda: now)
    box = Box()
    tell = Teller(box, every_s=10.0)
    for now in (100.0, 101.0, 109.9, 110.0, 115.0):  # noqa: B007
        tell(256)
    assert box.came == [256, 3 * 256]
    tell._send._last = None  # what `flush` of a block would wait for
    tell.flush()
    assert sum(box.came) == 5 * 256
