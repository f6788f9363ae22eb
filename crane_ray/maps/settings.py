"""MapSettings: how attention maps look, and which files of them are made."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from crane_ray.config import Config, Flag

Scale = Literal["percentile", "raw", "reference"]
PictureFormat = Literal["jpg", "png", "tif"]
SampleMode = Literal["topk", "reverse_topk", "range_sample"]
RGB = tuple[int, int, int]


class SampleConfig(Config):
    """Patches of a slide that are shown by themselves; the names are CLAM's."""

    name: str = Field(pattern=r"^[\w-]+$")
    """What the sample is called: a file's and a folder's name."""
    mode: SampleMode = "topk"
    """The highest scores (topk), the lowest (reverse_topk), or a draw from a range of percentiles
    (range_sample)."""
    k: int = Field(15, ge=1, le=1000)
    """Most patches of it; a slide with fewer has fewer."""
    score_start: float = Field(0, ge=0, le=1)
    """Of range_sample: percentile from which patches are drawn, 0 to 1."""
    score_end: float = Field(1, ge=0, le=1)
    """Of range_sample: percentile up to which patches are drawn, 0 to 1."""
    seed: int = Field(1, ge=0, le=2**32 - 1)
    """Of range_sample: seed of the draw."""

    @model_validator(mode="after")
    def _range(self) -> "SampleConfig":
        if self.score_start > self.score_end:
            raise ValueError(
                f"sample {self.name}: score_start {self.score_start:g} is above score_end "
                f"{self.score_end:g}; percentiles run from the lower to the higher"
            )
        return self


TOP_AND_BOTTOM = (
    SampleConfig(name="top", mode="topk"),
    SampleConfig(name="bottom", mode="reverse_topk"),
)


class MapSettings(Config):
    """How maps are drawn; the defaults are those of CLAM's block maps, larger for small slides."""

    scale: Annotated[Scale, Flag("--scale")] = "percentile"
    """What colours mean: a patch's percentile among the slide's patches (percentile), among the
    patches of the coarse map where this one is dense (reference), or its raw score between the
    slide's lowest and highest (raw)."""
    cmap: Annotated[str, Flag("--cmap", metavar="NAME")] = "coolwarm"
    """Colour map, any of matplotlib's."""
    alpha: Annotated[float, Flag("--alpha")] = Field(0.4, ge=0, le=1)
    """Weight of the colours over the slide: 0 is the slide alone, 1 the colours alone."""
    blur: Annotated[bool, Flag("--blur")] = False
    """Smooth the map with a Gaussian as wide as the distance of two patches."""
    binarize: Annotated[bool, Flag("--binarize")] = False
    """Colour only patches at or above the threshold, all alike."""
    threshold: Annotated[float, Flag("--threshold")] = Field(-1, le=1)
    """Of --binarize, on the scale of the colours (0 to 1); negative takes one over the number of
    patches, as CLAM does."""
    blank_canvas: Annotated[bool, Flag("--blank-canvas")] = False
    """Draw on an empty canvas instead of the slide."""
    canvas_rgb: RGB = (255, 255, 255)
    """Colour of the empty canvas, 0 to 255 for red, green and blue."""

    vis_level: Annotated[int | None, Flag("--vis-level")] = Field(None, ge=-1)
    """Pyramid level whose size the map has; -1 takes the best for a downsample of 32, as CLAM does.
    Where not given that one, too, but of small slides the coarsest that has 1,000 px."""
    map_mpp: Annotated[float | None, Flag("--map-mpp")] = Field(None, ge=0.05, le=1000)
    """Resolution of the map, um/px, instead of a level; the slide must have an mpp."""
    custom_downsample: int = Field(1, ge=1, le=64)
    """Shrink the finished map by this factor."""
    max_size_px: int | None = Field(None, ge=16)
    """Shrink the finished map until neither side is longer."""
    roi: Annotated[tuple[int, int, int, int] | None, Flag("--roi", metavar="X,Y,W,H")] = None
    """Only this region: x, y, width and height in level-0 px."""
    tissue_mask: bool = True
    """Colour only the tissue within the patches, where the slide's contours are known."""
    holes: bool = True
    """Leave the tissue's holes without colour, too."""

    formats: Annotated[
        tuple[PictureFormat, ...], Flag("--format", metavar="jpg,png,tif", repeated=True)
    ] = ("jpg",)
    """Files of each map: jpg, png, tif (a pyramid that QuPath and OpenSlide open with its mpp)."""
    jpeg_quality: int = Field(90, ge=1, le=100)
    """Of jpg pictures and of the tiles of tif."""
    save_slide: Annotated[bool, Flag("--save-slide")] = False
    """Save the slide alone, too, at the size of the maps."""
    geojson: Annotated[bool, Flag("--geojson")] = True
    """Write the regions of high attention as polygons, for QuPath."""
    regions_from: float = Field(0.9, ge=0, le=1)
    """Percentile from which a patch belongs to them, 0 to 1."""
    clam_scores: Annotated[bool, Flag("--clam-scores")] = False
    """Write the raw scores as CLAM's h5 files, too."""
    samples: tuple[SampleConfig, ...] = TOP_AND_BOTTOM
    """Patches that are shown by themselves, as a gallery and as files; none for an empty list."""
    patch_format: Literal["jpg", "png"] = "jpg"
    """Of the files of these patches."""

    @field_validator("cmap")
    @classmethod
    def _known_cmap(cls, name: str) -> str:
        from matplotlib import colormaps

        if name in colormaps:
            return name
        near = difflib.get_close_matches(name, list(colormaps), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(
            f"matplotlib has no colour map of this name; {hint}coolwarm, jet, viridis, inferno and "
            f"{len(colormaps) - 4} others are known"
        )

    @field_validator("canvas_rgb")
    @classmethod
    def _bytes(cls, rgb: RGB) -> RGB:
        if not all(0 <= value <= 255 for value in rgb):
            raise ValueError("red, green and blue are 0 to 255 each")
        return rgb

    @field_validator("roi", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        parts = value.split(",") if isinstance(value, str) else value
        if isinstance(parts, list | tuple) and len(parts) != 4:
            raise ValueError("four numbers are needed: x, y, width and height in level-0 px")
        return parts

    @field_validator("roi")
    @classmethod
    def _has_area(cls, roi: tuple[int, int, int, int] | None) -> tuple[int, int, int, int] | None:
        if roi is not None and (min(roi[:2]) < 0 or min(roi[2:]) < 1):
            raise ValueError("x and y are 0 or more, width and height 1 or more, level-0 px")
        return roi

    @field_validator("formats", mode="before")
    @classmethod
    def _between_commas(cls, value: Any) -> Any:
        """``jpg,tif`` in one word, and ``tiff`` and ``jpeg`` by the names that files have here."""
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            return value
        names = [name.strip() for word in words for name in word.split(",")]
        known = {"tiff": "tif", "jpeg": "jpg"}
        return tuple(dict.fromkeys(known.get(name, name) for name in names))

    @field_validator("samples")
    @classmethod
    def _distinct(cls, samples: tuple[SampleConfig, ...]) -> tuple[SampleConfig, ...]:
        names = [sample.name for sample in samples]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two samples are called {twice[0]}; give each its own name")
        return samples

    @model_validator(mode="after")
    def _one_size(self) -> "MapSettings":
        if self.map_mpp is not None and self.vis_level is not None and self.vis_level >= 0:
            raise ValueError(
                f"the size of the map is a level or a resolution; got vis_level {self.vis_level} "
                f"(--vis-level) and map_mpp {self.map_mpp:g} (--map-mpp), give one of them"
            )
        return self
