"""``python -m tests.docs_verbs`` writes `docs/verbs.md`: the help of every verb, as it is printed.

A test keeps it true, and holds the examples in it to what the verbs take.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from crane_ray.cli.main import VERBS, cli
from tests.docs_config import command_of, commands

PAGE = Path(__file__).resolve().parents[1] / "docs" / "verbs.md"
WIDTH = 100
INTRO = """# Verbs

Made from the command line by `python -m tests.docs_verbs`; a test keeps it so. It has what
`crane-ray VERB --help` prints; [config.md](config.md) has every key behind the flags.

| exit status | means |
|---|---|
| 0 | nothing failed |
| 1 | slides, folds or trials failed, more than `--max-failures` allows; a check found something |
| 2 | it could not be done: the message says why, and what to do |
| 130 | stopped; what is committed stays, and the same command goes on |
"""


def verbs() -> Iterator[tuple[str, click.Command]]:
    """Every verb in the order of use, groups before what is below them; `submit` once for all."""
    for verb in VERBS:
        command = command_of(verb)
        yield verb, command
        if isinstance(command, click.Group) and verb != "submit":
            yield from commands([verb])


def help_of(verb: str, command: click.Command) -> str:
    """What ``crane-ray VERB --help`` prints on a terminal of `WIDTH` columns."""
    context = click.Context(cli, info_name="crane-ray", **cli.context_settings)
    for name in verb.split()[:-1]:
        context = click.Context(command_of(name), info_name=name, parent=context)
    last = verb.rsplit(maxsplit=1)[-1]
    below = click.Context(command, info_name=last, parent=context, terminal_width=WIDTH)
    text = command.get_help(below)
    lines = (
        line.rstrip() for line in text.splitlines() if "Show this message and exit" not in line
    )
    return "\n".join(lines)


def examples(text: str) -> list[str]:
    """The commands that a help gives as examples, continued lines put together."""
    section = re.search(r"Examples:.*\n((?:.*\S.*(?:\n|\Z))*)", text)
    joined = re.sub(r"\\\n\s*", "", section[1]) if section else ""
    told = (re.split(r"\s{3,}", line.strip())[0] for line in joined.splitlines())
    return [line for line in told if line.startswith("crane-ray ")]


def render() -> str:
    """The page."""
    parts = [INTRO]
    parts += [f"## {verb}\n\n```text\n{help_of(verb, command)}\n```\n" for verb, command in verbs()]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(PAGE)
