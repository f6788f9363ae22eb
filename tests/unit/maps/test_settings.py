"""Settings of maps: CLAM's defaults, and messages that name the way out."""

from typing import Any

import pytest

from crane_ray.cli.options import flagged_fields
from crane_ray.errors import ConfigError
from crane_ray.maps.settings import MapSettings


def test_the_defaults_are_clams() -> None:
    settings = MapSettings()
    assert (settings.cmap, settings.alpha, settings.vis_level) == ("coolwarm", 0.4, None)
    assert (settings.scale, settings.threshold, settings.formats) == ("percentile", -1, ("jpg",))
    assert [(one.name, one.mode, one.k) for one in settings.samples] == [
        ("top", "topk", 15),
        ("bottom", "reverse_topk", 15),
    ]


def test_everyday_options_are_flags() -> None:
    flags = {field.flag.name for field in flagged_fields(MapSettings)}
    assert flags == {
        "--scale", "--cmap", "--alpha", "--blur", "--binarize", "--threshold", "--blank-canvas",
        "--vis-level", "--map-mpp", "--roi", "--format", "--save-slide", "--geojson",
        "--clam-scores",
    }  # fmt: skip


@pytest.mark.parametrize("given", ["jpg,tif", ["jpg", "tif"], ["jpeg,tiff"], ["jpg", "tif", "jpg"]])
def test_formats_by_any_of_their_names(given: Any) -> None:
    assert MapSettings.load(None, [("formats", given)]).formats == ("jpg", "tif")


def test_a_region_as_text_or_numbers() -> None:
    assert MapSettings.load(None, [("roi", "1,2,30,40")]).roi == (1, 2, 30, 40)
    assert MapSettings.load(None, [("roi", [1, 2, 30, 40])]).roi == (1, 2, 30, 40)


def test_any_map_of_matplotlib() -> None:
    for name in ("jet", "viridis_r", "tab10"):
        assert MapSettings(cmap=name).cmap == name


def test_settings_come_back_from_yaml() -> None:
    settings = MapSettings.load(None, [("roi", "1,2,3,4"), ("samples", []), ("cmap", "jet")])
    assert MapSettings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cmap": "cooolwarm"}, "did you mean coolwarm or"),
        ({"cmap": "qqqq"}, "coolwarm, jet, viridis, inferno and"),
        ({"vis_level": 1, "map_mpp": 2.0}, "give one of them"),
        ({"roi": "1,2,3"}, "four numbers are needed"),
        ({"roi": "1,2,0,4"}, "width and height 1 or more"),
        ({"roi": "a,2,3,4"}, "valid integer"),
        ({"canvas_rgb": [0, 0, 256]}, "0 to 255 each"),
        ({"formats": ["bmp"]}, "'jpg', 'png' or 'tif'"),
        ({"formats": 3}, "valid tuple"),
        ({"alpha": 1.5}, "less than or equal to 1"),
        ({"samples": [{"name": "a"}, {"name": "a"}]}, "two samples are called a"),
        ({"samples": [{"name": "a/b"}]}, "match pattern"),
        ({"samples": [{"name": "a", "score_start": 0.9, "score_end": 0.1}]}, "is above score_end"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MapSettings.load(None, list(settings.items()))
