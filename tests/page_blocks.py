"""The fenced blocks of Markdown pages, in order, and what each asks a reader to do."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tests.page_commands import ROOT

PAGES = (
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "jobs" / "README.md",
    *sorted(ROOT.glob("cluster/**/README.md")),
)
RUNNABLE = ("bash", "python", "yaml")
ASSIGNMENT = re.compile(r"^[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    """Path of the page below the repository."""
    number: int
    """Place among the page's blocks, from 1."""
    language: str
    text: str

    @property
    def name(self) -> str:
        """What a test says of it."""
        return f"{self.page}, block {self.number}"


@dataclass(frozen=True)
class Call:
    """A command of a bash block."""

    block: Block
    words: tuple[str, ...]
    environment: tuple[str, ...] = ()
    """Assignments before it, or all of an ``export``."""

    @property
    def line(self) -> str:
        """As it can be read."""
        return shlex.join(self.words)


def name_of(page: Path) -> str:
    """A page's path below the repository."""
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    return [Block(name_of(page), n, *parts) for n, parts in enumerate(found, start=1)]


def calls_of(block: Block) -> Iterator[Call]:
    """The commands of a bash block, one after the other; ``&&`` parts two of them."""
    text = re.sub(r"\\\n\s*", "", block.text)
    for line in text.splitlines():
        words = shlex.split(re.sub(r"&\s*(#.*)?$", "", line), comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield _call(block, words[:end])
            words = words[end + 1 :]


def _call(block: Block, words: list[str]) -> Call:
    if words[0] == "export":
        return Call(block, ("export",), tuple(words[1:]))
    before = 0
    while ASSIGNMENT.match(words[before]):
        before += 1
    return Call(block, tuple(words[before:]), tuple(words[:before]))


def file_of(block: Block) -> str | None:
    """The file that a block is the content of; nothing where it is to be run.

    A Python block says so in its first line, a YAML block by its ``name``.
    """
    if block.language == "python":
        found = re.match(r"# (\S+\.py)\n", block.text)
        return found[1] if found else None
    found = re.search(r"^name: (\S+)$", block.text, re.MULTILINE)
    return f"{found[1]}.yaml" if found else "space.yaml"


def substituted(call: Call, table: dict[str, str]) -> Call:
    """A call with the names that a page only illustrates replaced by those of a sandbox."""
    words, environment = (
        tuple(_substituted(word, table) for word in part) for part in (call.words, call.environment)
    )
    return replace(call, words=words, environment=environment)


def _substituted(word: str, table: dict[str, str]) -> str:
    for name, real in table.items():
        if is_named(word, name):
            word = word.replace(name, real, 1)
    return word


def is_named(word: str, name: str) -> bool:
    """Whether a word is a name, or a path in a folder of that name, or an assignment of either."""
    value = word.rpartition("=")[2]
    return value == name or (name.endswith("/") and value.startswith(name))
