from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import Field

from crane_ray.cli.main import call
from crane_ray.cli.options import config_options, flagged_fields, load_job
from crane_ray.config import Config, Flag
from crane_ray.errors import ConfigError
from crane_ray.runtime.jobs import ExtractJob, PatchJob, VerifyJob


class Group(Config):
    """A group."""

    size_px: Annotated[int, Flag("--patch-size")] = Field(256, ge=8)
    """Width of a patch
    in pixels."""
    scale: Annotated[float | None, Flag("--mpp")] = 0.5
    """Resolution."""
    rule: Annotated[Literal["any", "all"], Flag("--rule")] = "any"
    """Which."""


class Job(Config):
    """A job."""

    work: Annotated[str, Flag("--work", metavar="FOLDER")]
    """Where."""
    label: Annotated[str | None, Flag("--label")] = None
    """Text."""
    pictures: Annotated[bool, Flag("--pictures")] = True
    """Draw them."""
    group: Group = Group()
    """The group."""
    quiet: int = 0
    """No flag for this."""
    names: Annotated[tuple[str, ...], Flag("--name", metavar="NAME", repeated=True)] = ()
    """One of several names."""


def parsed(*words: str, leave_out: tuple[str, ...] = ()) -> Job:
    found: list[Job] = []

    @click.command()
    @config_options(Job, leave_out=leave_out)
    def command(**options: Any) -> None:
        found.append(load_job(Job, options))

    result = CliRunner().invoke(command, list(words), standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return found[0]


def help_text(model: type[Config]) -> str:
    @click.command()
    @config_options(model)
    def command(**options: Any) -> None: ...

    result = CliRunner().invoke(command, ["--help"], terminal_width=200)
    assert result.exit_code == 0
    return " ".join(result.output.split())


def test_a_flag_is_a_short_name_for_a_path() -> None:
    job = parsed("--work", "w", "--patch-size", "64", "--mpp", "0.25", "--rule", "all")
    assert job == Job(work="w", group=Group(size_px=64, scale=0.25, rule="all"))
    assert job == parsed("--set", "work=w", "--set", "group.size_px=64", "--set", "group.scale=.25",
                         "--set", "group.rule=all")  # fmt: skip


def test_what_is_not_given_stays_with_the_config() -> None:
    assert parsed("--work", "w") == Job(work="w")


@pytest.mark.parametrize("text", ["007", "1e5", "no", "null", "[1", "a=b", "a: b", "2026-01-01"])
def test_text_stays_text(text: str) -> None:
    job = parsed("--work", text, "--label", text)
    assert (job.work, job.label) == (text, text)


def test_a_switch_goes_both_ways() -> None:
    assert parsed("--work", "w", "--no-pictures").pictures is False
    assert parsed("--work", "w", "--set", "pictures=false", "--pictures").pictures is False
    assert parsed("--work", "w", "--pictures").pictures is True


def test_an_option_can_be_given_several_times(tmp_path: Path) -> None:
    assert parsed("--work", "w", "--name", "a", "--name", "no", "--name", "a").names == (
        "a",
        "no",
        "a",
    )
    assert parsed("--work", "w", "--name", "1").names == ("1",)
    path = tmp_path / "c.yaml"
    path.write_text("work: w\nnames: [x, y]\n")
    assert parsed("--config", str(path)).names == ("x", "y")
    assert parsed("--config", str(path), "--name", "z").names == ("z",)
    assert parsed("--config", str(path), "--name", "z", "--set", "names=[q]").names == ("q",)


def test_none_can_be_said() -> None:
    assert parsed("--work", "w", "--mpp", "null").group.scale is None


def test_settings_win_over_flags_and_flags_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("work: of the file\nlabel: of the file\ngroup: {size_px: 8, scale: 1}\n")
    job = parsed("--config", str(path), "--patch-size", "16", "--label", "of the flag",
                 "--set", "group.size_px=32")  # fmt: skip
    assert (job.work, job.label) == ("of the file", "of the flag")
    assert (job.group.size_px, job.group.scale) == (32, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"work: missing; give --work \(where\)"),
        (["--work", "w", "--patch-size", "many"], r"group\.size_px: 'many': .*valid integer"),
        (["--work", "w", "--patch-size", "4"], r"group\.size_px: 4: .*greater than or equal to 8"),
        (["--work", "w", "--rule", "some"], r"group\.rule: 'some': .*'any' or 'all'"),
        (["--work", "w", "--set", "group.sise_px=3"], r"did you mean group\.size_px\?"),
        (["--work", "w", "--set", "size"], r"--set size: write it as path\.to\.key=value"),
        (["--work", "w", "--config", "gone.yaml"], r"config gone\.yaml: No such file"),
    ],
)
def test_what_cannot_be_used_is_a_config_error(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(*words)


def test_a_flag_can_be_left_out() -> None:
    with pytest.raises(click.NoSuchOption, match="--mpp"):
        parsed("--work", "w", "--mpp", "1", leave_out=("--mpp",))


def test_the_help_says_what_flags_take_and_mean() -> None:
    text = help_text(Job)
    for part in (
        "--work FOLDER Where.",
        "--patch-size N Width of a patch in pixels. [default: 256]",
        "--mpp X Resolution. [default: 0.5]",
        "--rule any|all Which. [default: any]",
        "--label TEXT Text.",
        "--pictures / --no-pictures Draw them. [default: true]",
        "--name NAME One of several names. --",
        "--config FILE",
        "--set PATH=VALUE",
    ):
        assert part in text
    assert "quiet" not in text


@pytest.mark.parametrize("model", [PatchJob, ExtractJob, VerifyJob])
def test_every_flag_of_a_job_is_there_once_with_its_help(model: type[Config]) -> None:
    fields = list(flagged_fields(model))
    names = [field.flag.name for field in fields]
    assert len(set(names)) == len(names)
    text = help_text(model)
    for field in fields:
        assert field.flag.name.startswith("--")
        assert field.field.description, field.path
        assert " ".join(field.field.description.split()).rstrip(".") in text


def test_flags_of_patching_reach_their_places(tmp_path: Path) -> None:
    fields = {field.flag.name: field for field in flagged_fields(PatchJob)}
    assert fields["--patch-level"].path == "patch.level"
    assert fields["--preset"].path == "tissue.preset"
    assert fields["--slides"].path == "slides.source"
    options = {
        "work": str(tmp_path),
        "slides": "/data",
        "patch_level": "0",
        "preset": "tcga",
        "recursive": True,
        "config_file": None,
        "settings": ("tissue.keep_ids=3",),
    }
    job = load_job(PatchJob, options)
    assert (job.patch.level, job.patch.mpp) == (0, None)
    assert (job.tissue.a_t, job.tissue.keep_ids) == (16, (3,))
    assert (job.slides.source, job.slides.recursive) == ("/data", True)


def test_encoders_of_the_command_line_reach_their_places(tmp_path: Path) -> None:
    def asked(**options: Any) -> ExtractJob:
        return load_job(ExtractJob, {"work": str(tmp_path), "encoder": (), **options})

    assert asked().encoder_configs[0].name == "resnet50_trunc"
    two = asked(encoder=("uni_v1", "virchow2"), weights="random", batch_size="8")
    assert [one.name for one in two.encoder_configs] == ["uni_v1", "virchow2"]
    assert {(one.weights, one.batch_size) for one in two.encoder_configs} == {("random", 8)}
    path = tmp_path / "c.yaml"
    path.write_text("encoders: [{name: uni_v1, weights: /u.pth}]\nencoder: {seed: 3}\n")
    mixed = asked(config_file=str(path), precision="fp32").encoder_configs
    assert [(one.name, one.weights, one.seed, one.precision) for one in mixed] == [
        ("uni_v1", "/u.pth", 3, "fp32")
    ]
    assert asked(config_file=str(path), encoder=("virchow2",)).encoder_configs[0].seed == 3
    with pytest.raises(ConfigError, match=r"\(--weights\) '/u.pth' cannot fit several encoders"):
        asked(encoder=("uni_v1", "virchow2"), weights="/u.pth")
    with pytest.raises(ConfigError, match=r"\(--store\) names one store"):
        asked(encoder=("uni_v1", "virchow2"), store="/s")


@pytest.mark.parametrize("words", [["nowhere"], ["--store", "nowhere"]])
def test_verify_takes_the_store_as_a_word_or_an_option(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["verify", *words]) == 2
    assert "nowhere: no feature store there" in capsys.readouterr().out.replace("\n", "")


def test_help_in_a_message_keeps_its_capitals(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["splits", "--task", "cardiac-mtl"]) == 2
    assert "give --labels (label table (CSV or" in capsys.readouterr().out
    assert call(["train"]) == 2
    assert "give --labels (CSV or Parquet" in capsys.readouterr().out


def test_a_group_that_is_left_out_unless_something_of_it_is_given_shows_no_defaults() -> None:
    class Optional(Config):
        """A job."""

        group: Group | None = None
        """The group."""

    fields = {field.flag.name: field for field in flagged_fields(Optional)}
    assert not fields["--patch-size"].has_default
    assert all(field.has_default for field in flagged_fields(Job))
    command = click.command()(config_options(Optional)(lambda **options: 0))
    assert "[default:" not in CliRunner().invoke(command, ["--help"]).output
    assert load_job(Optional, {}).group is None
    assert load_job(Optional, {"patch_size": "64"}).group == Group(size_px=64)
