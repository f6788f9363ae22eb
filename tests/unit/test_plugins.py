from pathlib import Path

import pytest

from crane_ray.errors import ConfigError
from crane_ray.plugins import file_name, load_plugin, plugin_names, require_plugin

READERS = "crane_ray.slides.readers"
SEGMENTERS = "crane_ray.slides.segmenters"
FAMILIES = {"timm"}
"""Plug-ins that take an argument."""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's own, named like no other in this process."""
    folder = tmp_path / f"lab_{tmp_path.name}"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.mark.parametrize(
    "package", [READERS, SEGMENTERS, "crane_ray.features.encoders", "crane_ray.features.stores"]
)
def test_every_file_is_a_plug_in_by_its_name(package: str) -> None:
    names = plugin_names(package)
    assert names
    assert names == sorted(names)
    for name in names:
        if name in FAMILIES:
            with pytest.raises(ConfigError, match=f"{name}: needs an argument, {name}:ARGUMENT"):
                load_plugin(package, name)
            continue
        assert load_plugin(package, name).__name__ == f"{package}.{name}"


def test_readers_and_segmenters_are_known() -> None:
    assert plugin_names(READERS) == ["image", "openslide", "tiff"]
    assert plugin_names(SEGMENTERS) == ["saturation"]


def test_a_dotted_path_is_a_module_of_ones_own(lab: Path) -> None:
    (lab / "mine.py").write_text("answer = 42")
    assert load_plugin(SEGMENTERS, f"{lab.name}.mine").answer == 42


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (
            "satration",
            r"did you mean saturation\? Known segmenters: saturation; or the dotted path",
        ),
        ("quite_other", r"quite_other: no such segmenter; Known segmenters: saturation"),
        ("", r"no such segmenter; Known"),
        ("my_lab.mine", r"my_lab\.mine: no such segmenter"),
        ("./mine.py", r"\./mine\.py: no such segmenter; .*dotted path of a module of your own"),
        ("../x/mine.py", r"no such segmenter"),
        ("x/mine.py", r"no such segmenter"),
        ("saturation.py", r"did you mean saturation\?"),
        ("crane_ray.slides.segmenters.gone", r"no such segmenter"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_those_that_are(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        load_plugin(SEGMENTERS, name)


def test_a_module_of_ones_own_that_is_not_in_its_package_is_refused(lab: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.gone: no such segmenter"):
        load_plugin(SEGMENTERS, f"{lab.name}.gone")


def test_a_package_that_a_plug_in_needs_is_named(lab: Path) -> None:
    (lab / "needy.py").write_text("import package_that_nobody_has.deep")
    with pytest.raises(
        ConfigError, match=r"needy: needs the package package_that_nobody_has, .*pip install"
    ):
        load_plugin(SEGMENTERS, f"{lab.name}.needy")


def test_an_error_inside_a_plug_in_is_not_hidden(lab: Path) -> None:
    (lab / "broken.py").write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        load_plugin(SEGMENTERS, f"{lab.name}.broken")
    (lab / "typo.py").write_text("from crane_ray.slides.slide import Slyde")
    with pytest.raises(ImportError, match="Slyde"):
        load_plugin(SEGMENTERS, f"{lab.name}.typo")


def test_a_module_may_make_its_plug_in_from_an_argument(lab: Path) -> None:
    (lab / "many.py").write_text(
        "from types import SimpleNamespace\n"
        "def plugin(argument): return SimpleNamespace(answer=argument)"
    )
    name = f"{lab.name}.many"
    assert load_plugin(SEGMENTERS, f"{name}:a:b/c.d").answer == "a:b/c.d"
    for lacking in (name, f"{name}:"):
        with pytest.raises(ConfigError, match=r"many:?: needs an argument, .*many:ARGUMENT"):
            load_plugin(SEGMENTERS, lacking)


def test_an_argument_that_is_not_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"saturation:7: saturation takes no argument; leave out"):
        load_plugin(SEGMENTERS, "saturation:7")


def test_a_short_name_is_checked_without_its_argument() -> None:
    encoders = "crane_ray.features.encoders"
    require_plugin(encoders, "timm:hf-hub:lab/net.v1")
    require_plugin(encoders, "my_lab.nets:x")
    for name in ("tim:resnet18", "tim:net.v1"):
        with pytest.raises(ConfigError, match=r"tim: no such encoder; did you mean timm\?"):
            require_plugin(encoders, name)


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("resnet50_trunc", "resnet50_trunc"),
        ("my_lab.nets", "nets"),
        ("timm:vit_small_patch16_224.dino", "timm_vit_small_patch16_224.dino"),
        ("timm:hf-hub:lab/net@abc", "timm_hf-hub_lab_net_abc"),
        ("my_lab.nets:../..", "nets_.._.."),
    ],
)
def test_a_name_as_a_folder(name: str, folder: str) -> None:
    assert file_name(name) == folder
