import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import crane_ray
from crane_ray import slides

HEAVY = ("ray", "torch", "torchvision")


def loaded_after(code: str) -> list[str]:
    """Which heavy packages a fresh interpreter has loaded after some code."""
    report = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = done.stdout.strip().strip("[]").replace("'", "")
    return [name for name in found.split(", ") if name]


def modules_below(package: ModuleType) -> list[str]:
    path, prefix = package.__path__, f"{package.__name__}."
    return [module.name for module in pkgutil.walk_packages(path, prefix)]


def test_the_check_sees_what_is_loaded() -> None:
    assert loaded_after("import types, sys; sys.modules['ray'] = types") == ["ray"]


def test_the_package_itself_loads_next_to_nothing() -> None:
    heavier = "assert not {'cv2', 'pandas', 'pyarrow', 'openslide'} & set(sys.modules)"
    assert loaded_after(f"import crane_ray, sys; {heavier}") == []


def test_slides_configs_and_the_command_lines_options_load_neither_ray_nor_torch() -> None:
    names = [
        *modules_below(slides),
        *(f"crane_ray.{name}" for name in ("config", "errors", "manifest", "plugins", "storage")),
        "crane_ray.cli.options",
        "crane_ray.mil.configs",
        "crane_ray.runtime.evaluation_jobs",
        "crane_ray.runtime.jobs",
        "crane_ray.runtime.study_jobs",
    ]
    assert "crane_ray.slides.readers.openslide" in names
    assert "crane_ray.slides.planning" in names
    assert loaded_after("\n".join(f"import {name}" for name in names)) == []


def test_public_names_of_slides_load_neither_ray_nor_torch() -> None:
    names = "Slide, SlideInfo, PatchGrid, PatchSpec, TissueContours, open_slide, plan_patches"
    assert loaded_after(f"from crane_ray import {names}, CraneError, __version__") == []


@pytest.mark.parametrize("name", sorted(set(crane_ray.__all__) - {"__version__"}))
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(crane_ray, name)
    assert value.__name__ == name
    assert value.__module__.startswith("crane_ray.")
    assert name in dir(crane_ray)


def test_names_that_are_not_there_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'PatchSpecs'"):
        _ = crane_ray.PatchSpecs
