"""Command-line options made from config classes: a flag is a short name for one path in them."""

import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click
import yaml
from pydantic.fields import FieldInfo

from crane_ray.config import Config, Flag, nested_model, parse_setting
from crane_ray.errors import ConfigError
from crane_ray.runtime.jobs import ClusterConfig

Job = TypeVar("Job", bound=Config)


dashboard_option = click.option(
    "--address", "dashboard", metavar="URL", envvar="RAY_API_SERVER_ADDRESS",
    help="The cluster's dashboard, http://HEAD:8265 (or RAY_API_SERVER_ADDRESS).",
)  # fmt: skip
"""Where jobs are submitted to and looked for."""


def require_dashboard(verb: str, dashboard: str | None) -> str:
    """The dashboard's address.

    Raises:
        ConfigError: none was given.
    """
    if not dashboard:
        raise ConfigError(
            f"{verb}: no cluster named; give --address http://HEAD:8265 (its dashboard) or set "
            "RAY_API_SERVER_ADDRESS"
        )
    return dashboard


@dataclass(frozen=True)
class FlaggedField:
    """A config field that is an everyday option."""

    flag: Flag
    path: str
    field: FieldInfo
    has_default: bool = True
    """False beneath a group that is left out where nothing of it is given: then it has none."""

    @property
    def types(self) -> tuple[Any, ...]:
        """The types a value may have, without None."""
        annotation = self.field.annotation
        union = get_origin(annotation) in {Union, types.UnionType}
        options = get_args(annotation) if union else (annotation,)
        return tuple(option for option in options if option is not types.NoneType)

    @property
    def is_about_running(self) -> bool:
        """True for where and how a job runs, which comes last in the help."""
        about = ("cluster.", "actors.", "staging.", "workers.", "reader", "max_failures")
        return self.path.startswith(about)

    @property
    def is_switch(self) -> bool:
        """True for yes-or-no fields: ``--name`` and ``--no-name``."""
        return self.types == (bool,)

    def parse(self, text: str) -> Any:
        """A word of the command line as a value; text stays text where the field holds text."""
        if str in self.types:
            return text
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError:
            return text

    def metavar(self) -> str:
        """How the help shows what the option takes."""
        words = [
            word
            for option in self.types
            for word in (
                get_args(option) if get_origin(option) is Literal else (NAMES.get(option, "VALUE"),)
            )
        ]
        return self.flag.metavar or "|".join(words)


NAMES = {int: "N", float: "X", str: "TEXT"}


def flagged_fields(
    model: type[Config], prefix: str = "", *, have_defaults: bool = True
) -> Iterator[FlaggedField]:
    """All fields of a config class and the classes beneath it that carry a `Flag`."""
    for name, field in model.model_fields.items():
        flag = next((item for item in field.metadata if isinstance(item, Flag)), None)
        if flag is not None:
            yield FlaggedField(flag, prefix + name, field, have_defaults)
        below = nested_model(field.annotation)
        if below is not None and issubclass(below, Config):
            have = have_defaults and (field.is_required() or field.default is not None)
            yield from flagged_fields(below, f"{prefix}{name}.", have_defaults=have)


def config_options(
    model: type[Config], *, leave_out: Sequence[str] = ()
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator: adds ``--config``, ``--set`` and a config's flags to a click command.

    The command gets them in ``options``; `load_job` makes the config of them.
    """
    fields = [field for field in flagged_fields(model) if field.flag.name not in leave_out]
    fields.sort(key=lambda field: (not field.field.is_required(), field.is_about_running))

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for field in reversed(fields):
            command = _option(field)(command)
        command = click.option(
            "--set", "settings", multiple=True, metavar="PATH=VALUE",
            help="Any key of the config, e.g. tissue.sthresh=15; may be repeated.",
        )(command)  # fmt: skip
        return click.option(
            "--config", "config_file", metavar="FILE",
            help="YAML config; flags and --set come on top of it.",
        )(command)  # fmt: skip

    return decorate


def load_job(model: type[Job], options: dict[str, Any], *, runs_here: bool = True) -> Job:
    """The config of a command's file, flags and ``--set``, in this order.

    From now on this process speaks JSON if the config asks for it and the job runs here.

    Raises:
        ConfigError: see `Config.load`.
    """
    by_name = {_parameter(field): field for field in flagged_fields(model)}
    overrides = [
        (by_name[name].path, _parsed(by_name[name], value))
        for name, value in options.items()
        if name in by_name and value not in (None, ())
    ]
    overrides += [parse_setting(text) for text in options.get("settings", ())]
    job = model.load(options.get("config_file"), overrides)
    cluster = getattr(job, "cluster", None)
    if runs_here and isinstance(cluster, ClusterConfig) and cluster.log_format == "json":
        from crane_ray.cli.records import speak_json

        speak_json(cluster.log_level)
    return job


def _parsed(field: FlaggedField, value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return field.parse(value) if isinstance(value, str) else value


def _parameter(field: FlaggedField) -> str:
    return field.flag.name.lstrip("-").replace("-", "_")


def _option(field: FlaggedField) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    text = " ".join((field.field.description or "").split())
    default = field.field.default if field.has_default else None
    if (
        not field.field.is_required()
        and default is not None
        and default is not False
        and default != ()
    ):
        text = f"{text.rstrip('.')}. [default: {_default_words(default)}]"
    names = [field.flag.name, _parameter(field)]
    if field.flag.repeated:
        return click.option(*names, metavar=field.metavar(), multiple=True, help=text)
    if field.is_switch:
        positive = field.flag.name
        return click.option(f"{positive}/--no-{positive[2:]}", names[1], default=None, help=text)
    return click.option(*names, metavar=field.metavar(), default=None, help=text)


def _default_words(default: Any) -> str:
    """A default as the command line takes it."""
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    return str(default).lower() if default is True else str(default)
