"""Finds a plug-in by its file's name, or by a dotted path to the user's own module.

A name may carry an argument after a colon (``timm:resnet18``, ``my_lab.nets:large``): the module
then makes the plug-in in its function ``plugin(argument)``.
"""

import difflib
import importlib
import pkgutil
import re
from typing import Any, Protocol

from crane_ray.errors import ConfigError


class Plugin(Protocol):
    """A module, or what a module's ``plugin(argument)`` returned; its package says what it has."""

    def __getattr__(self, name: str) -> Any: ...


def load_plugin(package: str, name: str) -> Plugin:
    """The plug-in of a name.

    Args:
        package: the folder of the built-in ones, e.g. ``crane_ray.features.encoders``.
        name: a file's name there (``resnet50_trunc``) or a dotted path (``my_lab.my_encoder``),
            and after a colon the argument, for those that take one.

    Raises:
        ConfigError: there is none of that name (the known ones and the nearest are listed), or
            an argument is missing or not taken.
    """
    base, colon, argument = name.partition(":")
    module = _load_module(package, base)
    makes_plugins = hasattr(module, "plugin")
    if makes_plugins and not argument:
        hint = (module.__doc__ or "").strip().splitlines()
        raise ConfigError(f"{name}: needs an argument, {base}:ARGUMENT; {' '.join(hint[:1])}")
    if colon and not makes_plugins:
        raise ConfigError(f"{name}: {base} takes no argument; leave out :{argument}")
    made: Plugin = module.plugin(argument) if makes_plugins else module
    return made


def require_plugin(package: str, name: str) -> None:
    """Refuses a short name that no built-in plug-in has, without importing any of them.

    Raises:
        ConfigError: as `load_plugin`; a dotted path is let through.
    """
    base = name.partition(":")[0]
    if "." not in base and base not in plugin_names(package):
        load_plugin(package, name)


def plugin_names(package: str) -> list[str]:
    """The short names of the built-in plug-ins in a package."""
    folder = importlib.import_module(package)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def file_name(name: str) -> str:
    """A plug-in's name for folders: ``my_lab.nets:vit/16`` as ``nets_vit_16``."""
    base, _, argument = name.partition(":")
    short = base.rsplit(".", 1)[-1]
    return "_".join([short, *re.findall(r"[\w.-]+", argument)])


def _load_module(package: str, name: str) -> Plugin:
    dotted = name if "." in name else f"{package}.{name}"
    try:
        if name.startswith("."):  # a relative import to Python, a file's path to the user
            raise ModuleNotFoundError(name=dotted)
        return importlib.import_module(dotted)
    except ModuleNotFoundError as error:
        if error.name is None or not (dotted == error.name or dotted.startswith(error.name + ".")):
            raise ConfigError(
                f"{name}: needs the package {error.name}, which is not installed here; "
                "pip install 'crane-ray[encoders]' or that package on every node"
            ) from error
        kind = package.rsplit(".", 1)[-1]
        known = plugin_names(package)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"{name}: no such {kind.rstrip('s')}; {hint}Known {kind}: {', '.join(known)}; "
            "or the dotted path of a module of your own that can be imported on every node"
        ) from None
