import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from crane_ray.config import (
    Config,
    Flag,
    explain,
    known_keys,
    nested_model,
    parse_setting,
    read_yaml,
    set_path,
)
from crane_ray.errors import ConfigError, CraneError


class Inner(Config):
    """A group."""

    size_px: Annotated[int, Flag("--size")] = Field(256, ge=8)
    """Width of a patch."""
    rule: str | None = None
    """Which rule."""


class Outer(Config):
    """A job."""

    work: Annotated[str, Flag("--work")]
    """Folder of the workspace."""
    scale: float = Field(0.5, gt=0)
    """Resolution."""
    patch: Inner = Inner()
    """What a patch is."""
    other: Inner | None = None
    """Another group."""
    names: tuple[str, ...] = ()
    """Names."""


OUTERS = st.builds(
    Outer,
    work=st.text(max_size=20),
    scale=st.floats(1e-9, 1e9),
    patch=st.builds(Inner, size_px=st.integers(8, 10**6), rule=st.none() | st.text(max_size=9)),
    other=st.none() | st.builds(Inner, rule=st.sampled_from(["no", "1e3", "~", "", "0x1", "1:30"])),
    names=st.lists(st.text(max_size=5), max_size=3).map(tuple),
)


def refusal(file: Path | None = None, *overrides: tuple[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Outer.load(file, overrides)
    return str(caught.value)


@settings(deadline=None, max_examples=80)
@given(OUTERS)
def test_yaml_gives_back_the_config(
    tmp_path_factory: pytest.TempPathFactory, config: Outer
) -> None:
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    read = Outer.load(path)
    assert read == config
    assert read.fingerprint() == config.fingerprint()


@settings(deadline=None, max_examples=50)
@given(OUTERS, OUTERS)
def test_fingerprints_are_equal_where_configs_are(one: Outer, other: Outer) -> None:
    assert (one == other) == (one.canonical_json() == other.canonical_json())
    assert (one == other) == (one.fingerprint() == other.fingerprint())
    assert Outer.model_validate_json(one.canonical_json()) == one


def test_canonical_json_has_sorted_keys_and_no_spaces() -> None:
    text = Outer(work="w").canonical_json()
    tree = json.loads(text)
    assert text == json.dumps(tree, sort_keys=True, separators=(",", ":"))
    assert tree["patch"] == {"rule": None, "size_px": 256}, "defaults included"


def test_a_fingerprint_is_the_same_in_every_process_and_however_the_value_was_given() -> None:
    class Value(Config):
        x: float = 1
        """X."""

    assert Value(x=1).fingerprint() == Value().fingerprint() == Value.load().fingerprint()
    code = (
        "from crane_ray.config import Config\n"
        "class Value(Config):\n    x: float = 1.0\n"
        "print(Value().fingerprint())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == Value().fingerprint()
    assert len(Value().fingerprint()) == 16


def test_a_config_is_frozen() -> None:
    config = Outer(work="w")
    with pytest.raises(ValidationError, match="frozen"):
        config.scale = 1.0  # type: ignore[misc]


def test_later_overrides_win_over_earlier_ones_and_those_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("work: a\npatch:\n  size_px: 64\n  rule: x\n")
    config = Outer.load(path, [("patch.size_px", 32), ("patch.size_px", 16), ("scale", 2)])
    assert config == Outer(work="a", scale=2, patch=Inner(size_px=16, rule="x"))


def test_an_override_makes_the_groups_on_its_way(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("work: a\npatch:\nother:\n")
    config = Outer.load(path, [("patch.size_px", 32), ("other.rule", "x")])
    assert config.patch.size_px == 32
    assert config.other == Inner(rule="x")


def test_an_empty_file_is_an_empty_config(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("# nothing\n")
    assert Outer.load(path, [("work", "w")]) == Outer(work="w")


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        ([("scal", 1)], ["scal: unknown key; did you mean scale?", "work, scale, patch"]),
        (
            [("patch.sise_px", 1)],
            ["patch.sise_px: unknown key; did you mean patch.size_px?", "Known in patch: size_px"],
        ),
        ([("size_px", 1)], ["size_px: unknown key; did you mean patch.size_px?"]),
        ([("other.rulle", 1)], ["did you mean other.rule?", "Known in other: size_px, rule"]),
        ([("zzzzzz", 1)], ["zzzzzz: unknown key; Known here: work, scale"]),
        ([("scale", 0)], ["scale: 0: input should be greater than 0"]),
        ([("patch.size_px", "x")], ["patch.size_px: 'x': input should be a valid integer"]),
        ([("patch", 3)], ["patch: 3: holds keys of its own, not one value: patch.size_px, "]),
        ([("patchh.size_px", 3)], ["did you mean patch"]),
        ([("other.sze", 3)], ["other.sze: unknown key; did you mean other.size_px?"]),
        ([("names", ["a", 1])], ["names.1: 1: input should be a valid string"]),
    ],
)
def test_each_problem_names_key_value_and_what_is_allowed(
    overrides: list[tuple[str, Any]], parts: list[str]
) -> None:
    message = refusal(None, ("work", "w"), *overrides)
    for part in parts:
        assert part in message
    assert "did you mean" in message or "did you mean" not in "".join(parts)


def test_no_key_is_suggested_where_none_is_near() -> None:
    assert "did you mean" not in refusal(None, ("work", "w"), ("zzzzzz", 1))


def test_all_problems_are_listed_at_once_with_their_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("scale: -1\npatch: {size_px: 1}\nnonsense: 3\n")
    message = refusal(path)
    assert message.startswith(f"config ({path}): ")
    assert len(message.splitlines()) == 5
    for part in ("work: missing", "scale: -1", "patch.size_px: 1", "nonsense: unknown key"):
        assert part in message


def test_a_missing_key_is_asked_for_by_its_flag() -> None:
    assert refusal() == "config: work: missing; give --work (folder of the workspace)"


def test_a_missing_group_asks_for_what_it_needs() -> None:
    class Job(Config):
        outer: Outer
        """The group."""
        plain: int
        """How many there are."""

    with pytest.raises(ConfigError) as caught:
        Job.load()
    assert "outer.work: missing; give --work (folder of the workspace)" in str(caught.value)
    assert "plain: missing; How many there are" in str(caught.value)
    with pytest.raises(ConfigError, match=r"outer\.work: missing; give --work"):
        Job.load(overrides=[("outer.scale", 1), ("plain", 1)])


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert f"config {tmp_path}/gone.yaml: No such file" in refusal(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: [1", "not valid YAML"),
        (b"a: b: c", "not valid YAML"),
        (b"\xff\xfe\xfa", "not valid YAML"),
        (b"- a\n- b", "holds a list; a config is a mapping of keys to values"),
        (b"text", "holds a str; a config is a mapping"),
        (b"a: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_what_is_no_config_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    assert reason in refusal(path)
    with pytest.raises(ConfigError, match="config "):
        read_yaml(path)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a.b=3", "a.b", 3),
        ("a= 0.5", "a", 0.5),
        ("a=", "a", None),
        ("a=null", "a", None),
        ("a=true", "a", True),
        ("a=[1, 2]", "a", [1, 2]),
        ("a={x: 1}", "a", {"x": 1}),
        ("a=b=c", "a", "b=c"),
        ("a='007'", "a", "007"),
        (" a =x", "a", "x"),
        ("a=[1", "a", "[1"),
        ("a=/data/*.svs", "a", "/data/*.svs"),
    ],
)
def test_a_setting_is_a_path_and_a_yaml_value(text: str, path: str, value: object) -> None:
    assert parse_setting(text) == (path, value)


@pytest.mark.parametrize("text", ["a.b", "", "=3", "  =3"])
def test_a_setting_without_path_or_value_shows_how_to_write_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--set .*: write it as path\.to\.key=value, e\.g\."):
        parse_setting(text)


def test_nothing_lies_beneath_a_value() -> None:
    tree: dict[str, Any] = {"a": {"b": 3}}
    with pytest.raises(ConfigError, match=r"a\.b\.c: a\.b is the value 3, it has no keys beneath"):
        set_path(tree, "a.b.c", 1)
    set_path(tree, "a.c", 1)
    assert tree == {"a": {"b": 3, "c": 1}}


def test_known_keys_reach_into_groups() -> None:
    assert known_keys(Outer) == [
        "work", "scale", "patch", "patch.size_px", "patch.rule", "other", "other.size_px",
        "other.rule", "names",
    ]  # fmt: skip


def test_groups_are_found_behind_their_annotations() -> None:
    assert nested_model(Inner) is nested_model(Inner | None) is Inner
    assert nested_model(str | None) is None
    assert nested_model(None) is None


def test_a_validation_error_of_a_whole_config_names_it() -> None:
    try:
        Outer.model_validate([1])
    except ValidationError as error:
        assert explain(error, Outer).startswith("config: [1]: ")
    else:
        pytest.fail("a list is no config")


def test_a_list_of_fixed_length_that_is_too_short_is_told_once() -> None:
    class Window(Config):
        roi: tuple[int, int, int, int]

    with pytest.raises(ConfigError, match=r"^config: roi: \[1, 2\]: 2 are too few$"):
        Window.load(overrides=[("roi", [1, 2])])


def test_errors_are_both_ours_and_the_fitting_built_in() -> None:
    with pytest.raises(CraneError):
        Outer.load()
    with pytest.raises(ValueError, match="work: missing"):
        Outer.load()


def test_docstrings_beneath_fields_are_their_descriptions() -> None:
    assert Outer.model_fields["scale"].description == "Resolution."


def test_what_is_written_is_plain_yaml() -> None:
    assert yaml.safe_load(Outer(work="ü", names=("a",)).to_yaml()) == {
        "work": "ü",
        "scale": 0.5,
        "patch": {"size_px": 256, "rule": None},
        "other": None,
        "names": ["a"],
    }
    assert "ü" in Outer(work="ü").to_yaml()


def test_a_missing_key_of_a_lists_item_is_named_with_its_place() -> None:
    class Head(Config):
        name: str
        """What it is called."""

    class Heads(Config):
        heads: tuple[Head, ...] = Field(min_length=2)
        """All of them."""

    with pytest.raises(ConfigError) as caught:
        Heads.load(overrides=[("heads", [{"name": "a"}, {"nam": "b"}])])
    message = str(caught.value)
    assert "heads.1.name: missing; What it is called" in message
    assert "heads.1.nam: unknown key; did you mean heads.name?" in message
    assert "at least 2" not in message, "what the item lacks says it all"
