"""Fixtures for all tests; nothing starts before a test asks for it.

Property tests draw the same examples in every run, so that a commit passes or fails for everybody
alike; `pytest --hypothesis-profile explore` draws new ones. No example has a deadline: a busy
machine is no fault.
"""

import signal

import pytest
from hypothesis import settings

pytest_plugins = ("tests.object_storage",)

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile(
    "explore", derandomize=False, deadline=None, database=None, print_blob=True
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> None:
    """Commands that tests start can be interrupted, also where a shell runs tests behind."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
