"""Fixtures for all tests; nothing starts before a test asks for it."""

pytest_plugins = ("tests.object_storage",)
