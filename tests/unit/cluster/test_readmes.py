"""The pages: one a platform, each with its smoke command, and commands that the programs take."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from crane_ray.cli.main import VERBS
from tests.page_commands import calls, inline, lines, parse
from tests.unit.cluster.files import CLUSTER, FOLDERS, ROOT

SECTIONS = ["Prerequisites", "Commands", "Smoke command", "What to change"]
PAGES = sorted(CLUSTER.rglob("*.md"))


def ids(path: Path) -> str:
    return str(path.relative_to(CLUSTER))


def sbatch_calls(page: Path) -> Iterator[list[str]]:
    """The words that a page's sbatch hands to the verb."""
    for line in lines(page):
        words = shlex.split(line, comments=True)
        if words[0] == "sbatch":
            script = next(n for n, word in enumerate(words) if word.endswith(".sbatch"))
            yield [Path(words[script]).stem, *words[script + 1 :]]


def test_every_platform_has_a_page_and_the_index_leads_to_it() -> None:
    index = (CLUSTER / "README.md").read_text()
    assert FOLDERS == ["aws", "docker", "gcp", "kuberay", "monitoring", "onprem", "slurm"]
    for folder in FOLDERS:
        assert f"({folder}/README.md)" in index


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_page_says_what_is_needed_what_to_do_and_what_to_change(folder: str) -> None:
    page = (CLUSTER / folder / "README.md").read_text()
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == SECTIONS
    assert len(page.splitlines()) <= 80, "one page"
    smoke = page.split("## Smoke command")[1].split("## What to change")[0]
    assert "```bash" in smoke


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_a_page_has_commands_that_crane_ray_takes(page: Path) -> None:
    text = [*lines(page), *inline(page)]
    found = [words for words in calls(text) if words and words[0] in VERBS]
    for words in sbatch_calls(page):
        parse(words)
    if page.parent.name not in {"slurm", "kuberay"}:
        assert found


def test_a_wrong_flag_would_be_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["submit", "extract", "--wrok", "/shared/cohort", "--address", "http://head:8265"])


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"(?:cluster|jobs)/[\w./-]*\w", text)) - {"cluster/docker/shared"}
    linked = re.findall(r"\]\(([^)#:]+)\)", text)
    assert named
    for name in named:
        assert (ROOT / name).exists(), name
    for link in linked:
        assert (page.parent / link).exists(), link


def test_the_settings_that_the_pages_name_are_read() -> None:
    """A variable that nothing reads any more would be set in vain."""
    scripts = "".join(
        path.read_text()
        for pattern in ("*.sh", "*.sbatch", "*.env", "compose.yaml", "raycluster.yaml")
        for path in CLUSTER.rglob(pattern)
    )
    for page in PAGES:
        for name in re.findall(r"\bCRANE_RAY_[A-Z_]+\b", page.read_text()):
            assert name in scripts, f"{ids(page)}: {name}"
