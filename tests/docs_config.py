"""``python -m tests.docs_config`` writes `docs/config.md`: every config field of every verb.

Rows come from the config classes (names, types, bounds, defaults, docstrings) and from the
commands themselves (which flags they take), so that the page says what the program does.
"""

import types
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from crane_ray.cli.main import VERBS, cli
from crane_ray.cli.submission import JOBS
from crane_ray.cohort.tasks import TaskSet
from crane_ray.config import Config, Flag, nested_model
from crane_ray.runtime.viewing_jobs import ViewJob

PAGE = Path(__file__).resolve().parents[1] / "docs" / "config.md"
CONFIGS: dict[str, type[Config]] = {**JOBS, "view": ViewJob}
"""Verb: the class of its config."""

INTRO = """# Configs

Made from the code by `python -m tests.docs_config`; a test keeps it so. It has every key of the
YAML that `crane-ray VERB --config FILE` takes, and the flag that is short for it. `--set
any.key=value` sets any of them; flags come on top of the file, and `--set` on top of both. An
unknown key is an error that names the nearest known one. Relative paths are those of the directory
that the command is called in. In the column *default*, **needed** is a key that has to be given,
and a dash one that stays empty where it is not.

`config.yaml` beside the results of a run has all of its keys, defaults included, and can be given
again.
"""


@dataclass(frozen=True)
class Row:
    """A key of a config, or a group of keys that is written once for several verbs."""

    path: str
    kind: str
    default: str
    flag: str
    text: str

    def cells(self) -> str:
        """The row in Markdown."""
        flag = f"`{self.flag}`" if self.flag else ""
        return f"| `{self.path}` | {self.kind} | {self.default} | {flag} | {self.text} |"


def command_of(verb: str) -> click.Command:
    """The command of a verb, also of one below another (``import coords``)."""
    command: click.Command = cli
    for name in verb.split():
        assert isinstance(command, click.Group)
        below = command.get_command(click.Context(command), name)
        assert below is not None, verb
        command = below
    return command


def commands(names: list[str] | None = None) -> Iterator[tuple[str, click.Command]]:
    """Every verb, and those below a verb, in the order of use; without those of `submit`."""
    for name in names or [verb for verb in VERBS if verb != "submit"]:
        command = command_of(name)
        if isinstance(command, click.Group):
            yield from commands([f"{name} {below}" for below in command.commands])
        else:
            yield name, command


def rows(
    model: type[BaseModel], flags: set[str], prefix: str = "", given: Any = None
) -> Iterator[Row]:
    """A row for each key of a config class, groups flattened; `given` holds a group's defaults."""
    for name, field in model.model_fields.items():
        path = prefix + name
        below = nested_model(field.annotation)
        default = (
            getattr(given, name)
            if given is not None
            else field.get_default(call_default_factory=True, validated_data={})
        )
        if below is not None and is_list(field.annotation):
            yield row(path, field, default, flags)
            yield from rows(below, flags, f"{path}[].")
        elif below is not None:
            if default is None:
                yield row(path, field, None, flags)
            yield from rows(
                below, flags, f"{path}.", default if isinstance(default, below) else None
            )
        else:
            yield row(path, field, default, flags)


def row(path: str, field: FieldInfo, default: Any, flags: set[str]) -> Row:
    """The row of one key."""
    flag = next((item.name for item in field.metadata if isinstance(item, Flag)), "")
    text = " ".join((field.description or "").split()).replace("|", "\\|")
    assert text, f"{path} has no docstring"
    kind = " ".join([kind_of(field.annotation), *bounds(field.metadata)])
    return Row(path, kind, default_words(default), flag if flag in flags else "", text)


def is_list(annotation: Any) -> bool:
    """True for tuples and lists of something."""
    return any(get_origin(part) in {tuple, list} for part in (annotation, *get_args(annotation)))


WORDS = {int: "whole number", float: "number", str: "text", bool: "true, false", Any: "any value"}


def kind_of(annotation: Any) -> str:
    """What values a key has, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind_of(inner[0])
    if origin in {Union, types.UnionType}:
        return " or ".join(kind_of(part) for part in inner if part is not types.NoneType)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is tuple and Ellipsis not in inner:
        return "list of " + ", ".join(kind_of(part) for part in inner)
    if origin in {tuple, list, frozenset}:
        return f"list of {kind_of(inner[0])}"
    if origin is dict:
        return f"{kind_of(inner[0])} to {kind_of(inner[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "keys below"
    return WORDS[annotation]


def bounds(metadata: list[Any]) -> list[str]:
    """The limits of a number, in words."""
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return [
        f"{signs[name]} {getattr(item, name)}"
        for item in metadata
        for name in signs
        if getattr(item, name, None) is not None
    ]


def default_words(value: Any) -> str:
    """A default as the YAML has it."""
    if value is PydanticUndefined:
        return "**needed**"
    if value is None:
        return "-"
    if isinstance(value, tuple | list):
        value = [item.model_dump() if isinstance(item, BaseModel) else item for item in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).strip()
    return f"`{text.removesuffix('...').strip()}`"


def flags_of(command: click.Command) -> set[str]:
    """The options of a command."""
    return {name for param in command.params for name in param.opts}


def others(command: click.Command, found: list[Row]) -> list[str]:
    """What a command takes beside its config."""
    known = {"--config", "--set", *(entry.flag for entry in found)}
    lines = []
    for param in command.params:
        if known.isdisjoint(param.opts):
            if isinstance(param, click.Option):
                lines.append(f"| `{param.opts[0]}` | {' '.join((param.help or '').split())} |")
            else:
                lines.append(f"| `{param.human_readable_name}` | an argument |")
    return lines


TABLE = ["| key | values | default | flag | |", "|---|---|---|---|---|"]


def group_of(entry: Row) -> str:
    """The outermost group of a key, or nothing."""
    name, dot, _ = entry.path.replace("[]", "").partition(".")
    return name if dot else ""


def split_groups(found: list[Row]) -> dict[str, tuple[Row, ...]]:
    """The rows of each outermost group."""
    names = dict.fromkeys(group_of(entry) for entry in found if group_of(entry))
    return {name: tuple(e for e in found if group_of(e) == name) for name in names}


def render() -> str:
    """The page."""
    by_verb = {
        name: (command, list(rows(CONFIGS[name], flags_of(command))) if name in CONFIGS else [])
        for name, command in commands()
    }
    uses = Counter(group for _, found in by_verb.values() for group in split_groups(found).items())
    shared = [(name, group) for (name, group), times in uses.items() if times > 1]
    parts = [INTRO]
    for verb, (command, found) in by_verb.items():
        parts.append(section(verb, command, found, shared))
    parts.append("## Groups\n\nThese mean the same for each verb that has them.\n")
    for name, group in shared:
        verbs = [v for v, (_, found) in by_verb.items() if split_groups(found).get(name) == group]
        title = f"### `{name}`: {', '.join(verbs)}\n"
        parts.append("\n".join([title, *TABLE, *(entry.cells() for entry in group)]) + "\n")
    tasks = [entry.cells() for entry in rows(TaskSet, set())]
    about = "## A task set\n\nThe YAML file of `--task`; see [training.md](training.md).\n"
    parts.append("\n".join([about, *TABLE, *tasks]) + "\n")
    return "\n".join(parts)


def section(
    verb: str, command: click.Command, found: list[Row], shared: list[tuple[str, tuple[Row, ...]]]
) -> str:
    """One verb: its own keys, the groups it shares, and what its command takes besides."""
    groups = split_groups(found)
    common = [name for name, group in groups.items() if (name, group) in shared]
    own = [entry.cells() for entry in found if group_of(entry) not in common]
    line = (command.help or "").strip().splitlines()[0]
    lines = [f"## {verb}", "", line, ""]
    if own:
        lines += [*TABLE, *own, ""]
    if common:
        named = ", ".join(f"`{name}`" for name in common)
        lines += [f"And the [groups](#groups) {named}.", ""]
    if extra := others(command, found):
        lines += ["| only on the command line | |", "|---|---|", *extra, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(PAGE)
