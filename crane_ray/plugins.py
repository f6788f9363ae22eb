"""Finds a plug-in by its file's name, or by a dotted path to the user's own module."""

import difflib
import importlib
import pkgutil
from types import ModuleType

from crane_ray.errors import ConfigError


def load_plugin(package: str, name: str) -> ModuleType:
    """The module of a plug-in.

    Args:
        package: the folder of the built-in ones, e.g. ``crane_ray.features.encoders``.
        name: a file's name there (``resnet50_trunc``) or a dotted path (``my_lab.my_encoder``).

    Raises:
        ConfigError: there is none of that name; the known ones and the nearest are listed.
    """
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


def require_plugin(package: str, name: str) -> None:
    """Refuses a short name that no built-in plug-in has, without importing any of them.

    Raises:
        ConfigError: as `load_plugin`; a dotted path is let through.
    """
    if "." not in name and name not in plugin_names(package):
        load_plugin(package, name)


def plugin_names(package: str) -> list[str]:
    """The short names of the built-in plug-ins in a package."""
    folder = importlib.import_module(package)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))
