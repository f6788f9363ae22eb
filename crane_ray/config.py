"""The frozen base of every config: YAML and `--set` in, canonical JSON and a fingerprint out."""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from crane_ray.errors import ConfigError

UNICODE_BREAKS = frozenset("\x85\u2028\u2029")
"""What YAML takes for a line's end although text editors do not."""


class Flag:
    """Marks a config field as an everyday option of the command line.

    ``Annotated[int, Flag("--patch-size")]`` makes ``--patch-size N`` a short name for
    ``--set path.to.field=N``; the help text is the field's own docstring.
    """

    def __init__(self, name: str, *, metavar: str | None = None, repeated: bool = False) -> None:
        self.name = name
        self.metavar = metavar
        self.repeated = repeated
        """True where the option may be given several times, for a field that is a tuple."""


class Config(BaseModel):
    """A frozen value whose unknown keys are errors; subclasses document each field beneath it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )

    def canonical_json(self) -> str:
        """The value as JSON with sorted keys and no spaces: equal values, equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))

    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    def to_yaml(self) -> str:
        """The whole value, defaults included, as YAML in the order of its fields."""
        tree = self.model_dump(mode="json")
        text: str = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        if UNICODE_BREAKS.isdisjoint(text):
            return text
        return str(yaml.safe_dump(tree, sort_keys=False))  # as escapes: a reader would fold them

    @classmethod
    def load(
        cls,
        file: str | Path | None = None,
        overrides: Iterable[tuple[str, Any]] = (),
    ) -> Self:
        """A validated config from a YAML file and dotted overrides, later ones winning.

        Raises:
            ConfigError: the file is missing or no YAML mapping, a key is unknown (the nearest
                known one is named), or a value is impossible; all problems are listed at once.
        """
        tree = read_yaml(file) if file is not None else {}
        for path, value in overrides:
            set_path(tree, path, value)
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            where = f" ({file})" if file is not None else ""
            raise ConfigError(explain(error, cls, where)) from None


def read_yaml(file: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file (an empty file is an empty mapping)."""
    try:
        tree = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {file}: {error.strerror or error}; check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {file}: not valid YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(
            f"config {file}: holds a {type(tree).__name__}; a config is a mapping of keys to values"
        )
    return tree


def parse_setting(text: str) -> tuple[str, Any]:
    """``a.b=c`` as the path ``a.b`` and the value of ``c`` read as YAML."""
    path, equals, raw = text.partition("=")
    if not equals or not path.strip():
        raise ConfigError(f"--set {text}: write it as path.to.key=value, e.g. patch.size_px=512")
    try:
        return path.strip(), yaml.safe_load(raw)
    except yaml.YAMLError:
        return path.strip(), raw


def set_path(tree: dict[str, Any], path: str, value: Any) -> None:
    """Puts a value at a dotted path of nested mappings, making the mappings on the way."""
    *parents, last = path.split(".")
    for depth, key in enumerate(parents):
        below = tree.get(key)
        if below is None:
            below = tree[key] = {}
        elif not isinstance(below, dict):
            taken = ".".join(parents[: depth + 1])
            raise ConfigError(f"{path}: {taken} is the value {below!r}, it has no keys beneath it")
        tree = below
    tree[last] = value


def explain(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """A validation error in words: key, value, what is allowed, and the nearest known key."""
    lines = []
    faults = error.errors()
    if any(item["type"] == "missing" for item in faults):
        # A list whose items lack something counts as too short; what they lack says it all.
        faults = [item for item in faults if item["type"] != "too_short"]
    for item in _one_of_each_short_list(faults):
        keys = [str(part) for part in item["loc"]]
        if item["type"] == "extra_forbidden":
            lines.append(_unknown_key(keys, model))
        elif item["type"] == "missing":
            lines += [f"{path}: missing; {text}" for path, text in _missing(keys, model)]
        else:
            reason = item["msg"].removeprefix("Value error, ")
            if item["type"] == "model_type":
                reason = f"holds keys of its own, not one value: {_keys_beneath(keys, model)}"
            value = item["input"]
            shown = "" if isinstance(value, Mapping) else f"{value!r}: "
            name = f"{'.'.join(keys)}: " if keys else ""
            lines.append(f"{name}{shown}{reason[0].lower()}{reason[1:]}")
    return f"config{where}: " + "\n  ".join(["", *lines] if len(lines) > 1 else lines)


def _one_of_each_short_list(faults: list[ErrorDetails]) -> Iterator[ErrorDetails]:
    """The faults; a list of fixed length that is too short has one, not one for each gap."""
    seen = set()
    for item in faults:
        place = item["loc"]
        if item["type"] != "missing" or not isinstance(place[-1], int):
            yield item
        elif place[:-1] not in seen:
            seen.add(place[:-1])
            few = f"{len(item['input'])} are too few"
            yield {**item, "type": "too_short", "loc": place[:-1], "msg": few}


def known_keys(model: type[BaseModel]) -> list[str]:
    """Every dotted path that a config class accepts, groups included."""
    paths = []
    for name, field in model.model_fields.items():
        paths.append(name)
        below = nested_model(field.annotation)
        if below is not None:
            paths += [f"{name}.{path}" for path in known_keys(below)]
    return paths


def nested_model(annotation: Any) -> type[BaseModel] | None:
    """The config class behind a field's annotation (also ``X | None``), if it is one."""
    for candidate in (annotation, *get_args(annotation)):
        if (
            isinstance(candidate, type)
            and candidate is not NoneType
            and issubclass(candidate, BaseModel)
        ):
            return candidate
    return None


def _unknown_key(place: list[str], model: type[BaseModel]) -> str:
    path, known = ".".join(place), known_keys(model)
    keys = [key for key in place if not key.isdigit()]  # a list's items have the same keys
    above = {".".join(keys[:depth]) for depth in range(len(keys))}
    likely = [candidate for candidate in known if candidate not in above]
    near = difflib.get_close_matches(".".join(keys), likely, n=1, cutoff=0.5)
    if not near:
        by_leaf = {candidate.rsplit(".", 1)[-1]: candidate for candidate in known}
        near = [
            by_leaf[leaf] for leaf in difflib.get_close_matches(keys[-1], by_leaf, n=1, cutoff=0.5)
        ]
    hint = f"did you mean {near[0]}? " if near else ""
    parent = ".".join(keys[:-1])
    prefix = f"{parent}." if parent else ""
    siblings = [
        key[len(prefix) :]
        for key in known
        if key.startswith(prefix) and "." not in key[len(prefix) :]
    ]
    return f"{path}: unknown key; {hint}Known {'in ' + parent if parent else 'here'}: " + ", ".join(
        siblings
    )


def _keys_beneath(keys: list[str], model: type[BaseModel]) -> str:
    """The dotted keys of the group at a place, for somebody who gave it one value."""
    path = ".".join(key for key in keys if not key.isdigit())
    return ", ".join(key for key in known_keys(model) if key.rpartition(".")[0] == path)


def _missing(keys: list[str], model: type[BaseModel]) -> list[tuple[str, str]]:
    """Path and help of a missing key, or of each that is required beneath it."""
    for key in keys[:-1]:
        field = model.model_fields.get(key)  # a list's index is no field
        below = nested_model(field.annotation) if field else None
        model = below or model
    field = model.model_fields[keys[-1]]
    flag = next((item for item in field.metadata if isinstance(item, Flag)), None)
    below = nested_model(field.annotation)
    if flag is None and below is not None:
        required = [name for name, inner in below.model_fields.items() if inner.is_required()]
        deeper = [_missing([name], below) for name in required]
        return [(f"{'.'.join(keys)}.{path}", text) for found in deeper for path, text in found]
    text = " ".join((field.description or "give it in the config").split()).rstrip(".")
    if flag is None:
        return [(".".join(keys), text)]
    if not text[:2].isupper():  # CSV keeps its capitals
        text = text[0].lower() + text[1:]
    return [(".".join(keys), f"give {flag.name} ({text})")]
