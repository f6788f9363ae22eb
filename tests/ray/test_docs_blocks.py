"""Every block of every page is really run, in a small study of the names that the page uses."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page_blocks import PAGES, Block, Call, blocks_of, calls_of, is_named, name_of
from tests.ray.docs_sandbox import (
    EXCUSED,
    FROM_NOTHING,
    LANGUAGES,
    NAMES,
    Sandbox,
    excuse,
    in_small,
    words_of,
)
from tests.ray.docs_study import make_study
from tests.ray.helpers import LONG

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1800)]

CALLS_OF = {
    page: [one for block in blocks_of(page) if block.language == "bash" for one in calls_of(block)]
    for page in PAGES
}
CALLS = [one for calls in CALLS_OF.values() for one in calls]
RUN = [
    page
    for page in PAGES
    if any(
        block.language in {"python", "yaml"}
        or (block.language == "bash" and any(excuse(one) is None for one in calls_of(block)))
        for block in blocks_of(page)
    )
]


@pytest.fixture
def own_environment() -> Iterator[None]:
    """What a page exports, and the directory it is in, end with it."""
    before, here = dict(os.environ), Path.cwd()
    yield
    os.chdir(here)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """What a reader of the later pages has done before."""
    root = tmp_path_factory.mktemp("study")
    sandbox, here = Sandbox(root), Path.cwd()
    block = Block("tests/ray/docs_study.py", 0, "bash", "")
    os.chdir(root)
    try:
        make_study(root, lambda line: sandbox.run_call(Call(block, words_of(line))))
    finally:
        os.chdir(here)
    return root


@LONG
@pytest.mark.parametrize("page", RUN, ids=name_of)
@pytest.mark.usefixtures("own_environment")
def test_the_blocks_of_a_page_do_what_it_says(
    page: Path, study: Path, lab: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    root = tmp_path / "reader"
    shutil.copytree(study, root, symlinks=True)
    for made in FROM_NOTHING.get(name_of(page), ()):
        found = root / made
        shutil.rmtree(found) if found.is_dir() else found.unlink()
    for config in (root / "jobs" / "configs").glob("*.yaml"):
        config.write_text(in_small(config.read_text(), root))
    (root / "my_lab").symlink_to(lab)
    blocks = blocks_of(page)
    said = [" ".join((*one.environment, *one.words)) for one in CALLS_OF[page] if not excuse(one)]
    submits = any("8265" in line for line in said)
    dashboard = request.getfixturevalue("dashboard") if submits else ""
    os.chdir(root)
    sandbox = Sandbox(root, dashboard)
    for block in blocks:
        sandbox.run(block)
    assert len(sandbox.ran) == sum(excuse(one) is None for one in CALLS_OF[page])


def test_every_block_is_run_or_excused() -> None:
    for page in PAGES:
        for block in blocks_of(page):
            assert block.language in {"bash", "python", "yaml", *LANGUAGES}, block.name


@pytest.mark.parametrize("entry", EXCUSED)
def test_no_excuse_is_stale(entry: str) -> None:
    assert entry in {excuse(one) for one in CALLS}


@pytest.mark.parametrize("name", NAMES)
def test_no_substitution_is_stale(name: str) -> None:
    words = [word for one in CALLS for word in (*one.words, *one.environment)]
    assert any(is_named(word, name) for word in words)


def test_every_page_that_makes_something_is_there() -> None:
    assert FROM_NOTHING.keys() <= {name_of(page) for page in RUN}
