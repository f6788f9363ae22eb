"""Fixtures for all tests; nothing starts before a test asks for it.

Property tests draw the same examples in every run, so that a commit passes or fails for everybody
alike; `pytest --hypothesis-profile explore` draws new ones. No example has a deadline: a busy
machine is no fault.
"""

from hypothesis import settings

pytest_plugins = ("tests.object_storage",)

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile(
    "explore", derandomize=False, deadline=None, database=None, print_blob=True
)
settings.load_profile("repeatable")
