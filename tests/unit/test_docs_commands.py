"""The commands of all pages are ones that `crane-ray` takes, and their links lead somewhere."""

import ast
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from crane_ray.cli.main import cli
from crane_ray.cohort.tasks import TaskSet
from crane_ray.errors import ConfigError
from crane_ray.runtime.search_jobs import SEARCHABLE
from crane_ray.runtime.study_jobs import TrainJob
from crane_ray.search.space import parse_space
from tests.page_commands import (
    ROOT,
    all_flags,
    anchors,
    blocks,
    broken_links,
    calls,
    inline,
    lines,
    load,
    named_flags,
    parse,
)

PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("cluster/**/README.md")),
    ROOT / "jobs" / "README.md",
]


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_are_ones_that_crane_ray_takes(page: Path) -> None:
    for words in calls(lines(page)):
        parse(words)
    for words in calls(inline(page)):
        # A verb, or an option, may be spoken of without what it needs.
        with suppress(click.MissingParameter, click.BadOptionUsage):
            parse(words)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_whole_commands_make_a_config(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a verb needs is left out of a command that is written out."""
    monkeypatch.chdir(ROOT)
    whole = [line for line in lines(page) if "..." not in line]
    for words in calls(whole):
        parsed = parse(words)
        if parsed is None or "settings" not in parsed.params:
            continue
        config = parsed.params.get("config_file")
        if (config is None or Path(config).exists()) and not parsed.params.get("check"):
            load(parsed)


GUIDES = [page for page in PAGES if page.parent in {ROOT, ROOT / "docs"}]
OTHERS = {"--help", "--only", "--quick", "--mag"}
"""Of every command, of the benchmarks, and of TRIDENT."""


@pytest.mark.parametrize("page", GUIDES, ids=ids)
def test_flags_that_a_page_speaks_of_are_those_of_a_verb(page: Path) -> None:
    assert named_flags(page) - OTHERS <= all_flags(cli)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_yaml_blocks_are_task_sets_or_spaces(page: Path) -> None:
    for block in blocks(page, "yaml"):
        tree = yaml.safe_load(block)
        if "tasks" in tree:
            assert TaskSet.model_validate(tree).tasks
        else:
            assert parse_space(tree, TrainJob, SEARCHABLE).domains


OWN_PACKAGE = "my_lab"
"""What readers call theirs; tests/ray/test_docs_blocks.py writes and runs it."""


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_python_blocks_name_what_there_is(page: Path) -> None:
    """They compile, and each module and name that they import is there, or in a block before."""
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module != OWN_PACKAGE:
                module = import_module(str(node.module))
                assert not [name.name for name in node.names if not hasattr(module, name.name)]
            elif isinstance(node, ast.Import):
                for name in node.names:
                    import_module(name.name)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert not broken_links(page)


def test_the_index_leads_to_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


@pytest.mark.parametrize(
    "words",
    ["extract --wrok work", "splits --labels", "submit train --task cardiac-mtl --adress X"],
)
def test_a_wrong_option_would_be_found(words: str) -> None:
    with pytest.raises(click.UsageError):
        parse(words.split())


@pytest.mark.parametrize(
    "words", ["extrct --work work", "patch --work w --set tissue.tresh=1", "import masks"]
)
def test_a_wrong_verb_or_key_would_be_found(words: str) -> None:
    with pytest.raises(AssertionError, match=r"no verb|no key"):
        parse(words.split())


def test_a_command_that_lacks_something_would_be_found() -> None:
    parsed = parse(["train", "--task", "cardiac-mtl", "--labels", "labels.csv"])
    assert parsed is not None
    with pytest.raises(ConfigError, match="--splits"):
        load(parsed)


def test_commands_are_read_as_a_shell_reads_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\n"
        "crane-ray patch --slides '/a b/*.svs' \\\n    --work w   # crane-ray tune\n"
        "pip install . && crane-ray demo\n"
        "ray exec c.yaml 'crane-ray verify w/f'\n"
        "```\nAnd `crane-ray extract --work w`.\n"
    )
    assert list(calls(lines(page))) == [
        ["patch", "--slides", "/a b/*.svs", "--work", "w"],
        ["demo"],
        ["verify", "w/f"],
    ]
    assert list(calls(inline(page))) == [["extract", "--work", "w"]]


def test_a_broken_link_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One `two`, three\n[a](#one-two-three) [b](none.md) [c](page.md#four)\n")
    assert anchors(page) == {"one-two-three"}
    assert broken_links(page) == ["none.md", "page.md#four"]
