"""The commands in Markdown pages, and whether `crane-ray` takes them; nothing of them is run."""

import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import click

from crane_ray.cli.main import VERBS, cli
from crane_ray.cli.options import load_job
from crane_ray.config import Config, nested_model, parse_setting
from tests.docs_config import CONFIGS

ROOT = Path(__file__).resolve().parents[1]
CONTINUES = frozenset({"&&", "|", ";", "&", ">"})
ARGUMENTS = {"verify": "store", "view": "work", "report": "run"}
"""Verbs with an argument that is a key of their config."""


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def lines(page: Path) -> list[str]:
    """The command lines of a page's bash blocks, continued ones put together."""
    joined = [re.sub(r"\\\n\s*", "", block) for block in blocks(page, "bash")]
    return [line for block in joined for line in block.splitlines() if line.strip()]


def inline(page: Path) -> list[str]:
    """The commands in a page's running text: `crane-ray VERB ...` between backticks."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`(crane-ray [^`]+)`", text)


def calls(text: list[str]) -> Iterator[list[str]]:
    """The words of each `crane-ray` that lines call, by themselves or in another program's hands.

    Other programs have arguments of that name, too (a namespace, an instance): there it is a
    call where a verb follows.
    """
    for line in text:
        words = shlex.split(line.rstrip("&"), comments=True)
        quoted = [word for word in words if word.startswith("crane-ray ")]
        for one in [words, *map(shlex.split, quoted)]:
            for at in (n for n, word in enumerate(one) if word == "crane-ray"):
                rest = list(takewhile(lambda word: word not in CONTINUES, one[at + 1 :]))
                if at == 0 or one[at - 1] in CONTINUES | {"--"} or VERBS.keys() & rest[:1]:
                    yield rest


def parse(words: list[str]) -> click.Context | None:
    """The words as their verb takes them, or nothing where a verb is spoken of, not called.

    ``...`` stands for what a page leaves out: an option's value, or any number of options.

    Raises:
        click.UsageError: the verb does not take these words.
        AssertionError: there is no such verb, or no such key of its config.
    """
    command: Any = cli
    context = click.Context(cli, info_name="crane-ray")
    verb: list[str] = []
    while isinstance(command, click.Group) and words:
        name, *words = words
        if name == "..." or name.isupper() or name in {"--help", "-h", "--version"}:
            return None
        verb.append(name)
        command = command.get_command(context, name)
        assert command is not None, f"no verb {' '.join(verb)}"
    if isinstance(command, click.Group) or {"--help", "-h"} & set(words):
        return None
    words = without_elisions(words, command)
    parsed: click.Context = command.make_context(" ".join(verb), words, parent=context)
    for text in parsed.params.get("settings") or ():
        path, _ = parse_setting(text)
        assert has_key(config_of(parsed), path), f"{' '.join(verb)}: no key {path}"
    return parsed


def without_elisions(words: list[str], command: click.Command) -> list[str]:
    """The words without each ``...`` that is not the value of an option."""
    valued = {
        name
        for param in command.params
        if isinstance(param, click.Option) and not param.is_flag
        for name in param.opts
    }
    before = ["", *words]
    return [
        word for last, word in zip(before, words, strict=False) if word != "..." or last in valued
    ]


def config_of(parsed: click.Context) -> type[Config]:
    """The config class of a parsed command."""
    return CONFIGS[str(parsed.info_name).removeprefix("submit ")]


def has_key(model: type[Any], path: str) -> bool:
    """Whether a config has a key; the keys of a mapping are anybody's."""
    name, dot, rest = path.partition(".")
    field = model.model_fields.get(name)
    if field is None:
        return False
    below = nested_model(field.annotation)
    if not dot:
        return True
    return has_key(below, rest) if below is not None else "dict" in str(field.annotation)


def load(parsed: click.Context) -> Config:
    """The config that a whole command (without elisions) makes.

    Raises:
        ConfigError: something that it needs is missing, or a value is impossible.
    """
    options = dict(parsed.params)
    for param in parsed.command.params:
        if isinstance(param, click.Argument) and options[str(param.name)]:
            options[ARGUMENTS[str(parsed.info_name)]] = options[str(param.name)]
    return load_job(config_of(parsed), options, runs_here=False)


def named_flags(page: Path) -> set[str]:
    """The flags in a page's running text, without those of other tools.

    Theirs are in the first column of a table, or have underscores.
    """
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    ours = re.sub(r"^\|[^|]*\|", "", text, flags=re.MULTILINE)
    spans = " ".join(re.findall(r"`([^`]+)`", ours))
    return {flag for flag in re.findall(r"(?<!\S)--[a-z][\w-]*", spans) if "_" not in flag}


def all_flags(command: click.Command) -> set[str]:
    """The flags of a command and of all below it."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        names = command.list_commands(context)
        below = [found for name in names if (found := command.get_command(context, name))]
        return set().union(*map(all_flags, below))
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts)}


def broken_links(page: Path) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of it."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    broken = []
    for link in found:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub names them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
