"""Fixtures for all tests; nothing starts before a test asks for it."""

from pathlib import Path

import pytest

pytest_plugins = ("tests.object_storage",)

RAY_FOLDERS = {"ray", "e2e"}


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that start a Ray run one after the other in one process, whatever runs beside them."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    here = Path(__file__).parent
    for item in items:
        if item.path.relative_to(here).parts[0] in RAY_FOLDERS:
            item.add_marker(pytest.mark.xdist_group("ray"))
