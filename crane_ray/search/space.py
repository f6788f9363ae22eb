"""Search spaces: which settings of a config vary, and between what.

A space is a YAML mapping of settings to distributions::

    model.dropout: {uniform: [0, 0.5]}
    optim.lr: {loguniform: [1e-5, 1e-3]}     # the end of a path is enough where it is clear
    model.name: {choice: [crane, clam_sb]}

Shipped spaces are the files in ``spaces/``.
"""

import difflib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from crane_ray.config import Config, known_keys, nested_model, read_yaml, set_path
from crane_ray.errors import ConfigError
from crane_ray.search.domains import Choice, Domain, Value, parse_domain

MOST_COMBINATIONS = 512
"""Of choices that are tried on the config before a search; beyond, each value alone."""


@dataclass(frozen=True)
class Space:
    """The settings that vary, by their full paths."""

    domains: Mapping[str, Domain]

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Settings that show whether configs can have all values of the space.

        All combinations of choices, each choice alone where these are very many, and the ends of
        each span; what is not named stays as the config has it.
        """
        choices = {
            path: one.values for path, one in self.domains.items() if isinstance(one, Choice)
        }
        together = (
            dict(zip(choices, values, strict=True))
            for values in itertools.product(*choices.values())
        )
        yield from itertools.islice(together, MOST_COMBINATIONS)
        for path, domain in self.domains.items():
            yield from ({path: value} for value in domain.examples())

    def holds(self, values: Mapping[str, Value]) -> bool:
        """Whether the values of all settings are in the space."""
        return all(domain.holds(values[path]) for path, domain in self.domains.items())

    def clipped(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """The values, moved into their spans where they lie beyond."""
        return {path: self.domains[path].nearest(value) for path, value in values.items()}

    @property
    def size(self) -> int | None:
        """Number of its points; None where numbers span."""
        number = 1
        for domain in self.domains.values():
            if not isinstance(domain, Choice):
                return None
            number *= len(domain.values)
        return number


def space_names() -> list[str]:
    """The shipped spaces."""
    return sorted(
        file.name.removesuffix(".yaml")
        for file in files("crane_ray.search").joinpath("spaces").iterdir()
    )


def read_space(name: str, model: type[Config], searchable: tuple[str, ...]) -> Space:
    """A shipped space by its name, or the one in a YAML file.

    Args:
        name: of either.
        model: the config whose settings vary.
        searchable: beginnings of the paths that may.

    Raises:
        ConfigError: there is none, or a path or a distribution in it is wrong; all faults at once.
    """
    if name.endswith((".yaml", ".yml")):
        return parse_space(read_yaml(name), model, searchable)
    if name not in space_names():
        raise ConfigError(
            f"--space {name}: no such space; shipped: {', '.join(space_names())}; or give a YAML "
            "file of your own, such as\n  model.dropout: {uniform: [0, 0.5]}\n  "
            "optim.lr: {loguniform: [1e-5, 1e-3]}"
        )
    shipped = files("crane_ray.search").joinpath("spaces", f"{name}.yaml")
    return parse_space(read_yaml(Path(str(shipped))), model, searchable)


def parse_space(tree: Mapping[str, Any], model: type[Config], searchable: tuple[str, ...]) -> Space:
    """See `read_space`."""
    leaves = [
        path
        for path in known_keys(model)
        if path.startswith(searchable) and nested_model(_annotation(model, path)) is None
    ]
    domains: dict[str, Domain] = {}
    faults = []
    for written, distribution in tree.items():
        try:
            path = _resolve(str(written), leaves, known_keys(model))
            if path in domains:
                raise ConfigError(f"space {written}: {path} is there already; give it once")
            domains[path] = parse_domain(str(written), distribution)
        except ConfigError as error:
            faults.append(str(error))
    if not tree:
        faults.append("space: it is empty; give at least one setting that varies")
    if faults:
        raise ConfigError("\n".join(faults))
    return Space(domains)


def apply(tree: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """A config's tree with some of its settings replaced."""
    changed: dict[str, Any] = _copied(tree)
    for path, value in values.items():
        set_path(changed, path, value)
    return changed


def value_at(tree: Mapping[str, Any], path: str) -> Value:
    """The setting at a dotted path of a config's tree."""
    for key in path.split("."):
        tree = tree[key]
    return tree


def _copied(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _copied(value) for name, value in tree.items()}
    return tree


def _resolve(written: str, leaves: list[str], known: list[str]) -> str:
    """The full path of a setting; the end of it is enough where there is but one."""
    if written in leaves:
        return written
    found = [path for path in leaves if path.endswith(f".{written}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigError(f"space {written}: could be {' or '.join(found)}; write which")
    if written in known:
        groups = [path for path in leaves if path.startswith(f"{written}.")]
        why = f"is a group of settings: {', '.join(groups)}" if groups else "cannot be searched"
        raise ConfigError(f"space {written}: {why}; settings that can vary: {', '.join(leaves)}")
    near = difflib.get_close_matches(written, leaves, n=1, cutoff=0.4)
    if not near:
        ends = {path.rsplit(".", 1)[-1]: path for path in leaves}
        last = written.rsplit(".", 1)[-1]
        near = [ends[end] for end in difflib.get_close_matches(last, ends, n=1, cutoff=0.5)]
    if near:
        raise ConfigError(f"space {written}: no such setting; did you mean {near[0]}?")
    raise ConfigError(
        f"space {written}: no such setting; settings that can vary: {', '.join(leaves)}"
    )


def _annotation(model: type[Config], path: str) -> Any:
    current: Any = model
    for key in path.split("."):
        annotation = nested_model(current).model_fields[key].annotation  # type: ignore[union-attr]
        current = annotation
    return current
