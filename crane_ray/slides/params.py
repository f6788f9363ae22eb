"""TissueParams: CLAM's parameters of segmentation, contour rule and pictures, with its presets."""

import csv
import io
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from crane_ray import storage
from crane_ray.config import Config, Flag, explain
from crane_ray.errors import ConfigError

_COLUMNS = (
    "seg_level", "sthresh", "mthresh", "close", "use_otsu", "a_t", "a_h", "max_n_holes",
    "line_thickness",
)  # fmt: skip
PRESETS: dict[str, dict[str, Any]] = {
    name: dict(zip(_COLUMNS, values, strict=True))
    for name, values in {
        "default": (-1, 8, 7, 4, False, 100, 16, 8, 250),
        "bwh_biopsy": (-1, 15, 11, 2, False, 1, 1, 2, 50),
        "bwh_resection": (-1, 15, 11, 4, False, 100, 16, 8, 150),
        "tcga": (-1, 8, 7, 4, False, 16, 4, 8, 100),
    }.items()
}
"""CLAM's presets; what they do not name (vis_level, padding, contour_fn, ids) is the default."""

CUSTOM = "custom"
"""What a preset read from a CSV is called afterwards: its values stand in the config."""

UNUSED = frozenset({"white_thresh", "black_thresh"})
"""Columns of CLAM's CSVs that matter only where patches are saved as images."""

ContourRule = Literal["four_pt", "four_pt_hard", "center", "basic"]


class TissueParams(Config):
    """How tissue is found and which patches belong to it; names and defaults are CLAM's."""

    preset: Annotated[str, Flag("--preset")] = "default"
    """Starting values: default, bwh_biopsy, bwh_resection, tcga, or one of CLAM's preset CSVs."""
    seg_level: int = Field(-1, ge=-1)
    """Pyramid level to segment; -1 takes the best for a downsample of 64."""
    sthresh: int = Field(8, ge=0, le=255)
    """Saturation above which a pixel is tissue (without Otsu)."""
    mthresh: int = Field(7, ge=1)
    """Width of the median blur before it, an odd number of pixels."""
    close: int = Field(4, ge=0)
    """Width of the morphological closing after it, pixels; 0 for none."""
    use_otsu: bool = False
    """Take Otsu's threshold instead of sthresh."""
    a_t: float = Field(100, ge=0)
    """Smallest tissue area, in patches of 512 level-0 px."""
    a_h: float = Field(16, ge=0)
    """Smallest hole area, in patches of 512 level-0 px."""
    max_n_holes: int = Field(8, ge=0)
    """Most holes looked at in a piece of tissue, largest first."""
    keep_ids: tuple[int, ...] = ()
    """Contours to use, by their number in the mask picture; empty uses all."""
    exclude_ids: tuple[int, ...] = ()
    """Contours to leave out, by their number in the mask picture."""
    contour_fn: Annotated[ContourRule, Flag("--contour-fn")] = "four_pt"
    """Which patches belong to a contour: any of four inner points in it (four_pt), all four
    (four_pt_hard), the centre (center), or the top-left corner (basic)."""
    use_padding: bool = True
    """Let patches reach over the slide's right and lower edge (black there)."""
    vis_level: int = Field(-1, ge=-1)
    """Pyramid level of the mask picture; -1 takes one of about 1,000 to 4,000 px."""
    line_thickness: int = Field(250, ge=1)
    """Width of the contour lines in the mask picture, level-0 px."""

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = {key: value for key, value in data.items() if key not in UNUSED}
        name = str(data.get("preset", "default"))
        values = {**_preset(name), **data}
        if name.endswith(".csv"):
            values["preset"] = CUSTOM  # the values travel to a cluster, the file does not
        return values

    @field_validator("keep_ids", "exclude_ids", mode="before")
    @classmethod
    def _ids(cls, value: Any) -> Any:
        """CLAM writes ``none`` or numbers between commas; YAML reads a lone one as a number."""
        if isinstance(value, int):
            return (value,)
        if value is None or (isinstance(value, str) and value.strip().lower() in {"", "none"}):
            return ()
        return tuple(part for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("mthresh")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("an odd number is needed (the median of a centred window)")
        return value

    def clam_row(self) -> dict[str, Any]:
        """The values under CLAM's column names, as its CSVs spell them."""
        row = self.model_dump(exclude={"preset"})
        for key in ("keep_ids", "exclude_ids"):
            row[key] = ",".join(str(number) for number in row[key]) or "none"
        for key in ("a_t", "a_h"):
            row[key] = int(row[key]) if float(row[key]).is_integer() else row[key]
        return row


def _preset(name: str) -> dict[str, Any]:
    if name == CUSTOM:
        return {}
    if name in PRESETS:
        return PRESETS[name]
    if not name.endswith(".csv"):
        raise ValueError(f"{name!r} is no preset; known: {', '.join(PRESETS)}, or a CSV file")
    if not Path(name).is_file():
        raise ValueError(f"no such preset file: {name}")
    rows = list(csv.DictReader(io.StringIO(storage.read_bytes(name).decode("utf-8-sig"))))
    if len(rows) != 1:
        raise ValueError(f"preset {name}: one row of values is expected, {len(rows)} found")
    return params_from_row(rows[0])


def params_from_row(row: dict[str, Any]) -> dict[str, Any]:
    """The parameters named in a row of a CLAM CSV; other columns and empty cells are left out."""
    known = {
        key: str(value).strip()
        for key, value in row.items()
        if key in TissueParams.model_fields and str(value).strip() not in {"", "nan"}
    }
    for key, text in known.items():
        if key not in {"a_t", "a_h"} and text.endswith(".0"):
            known[key] = text[:-2]  # pandas turns integer columns with gaps into floats
    return dict(known)


def override(base: TissueParams, row: dict[str, Any]) -> TissueParams:
    """The parameters with those of one row of a process list on top.

    Raises:
        ConfigError: a value in the row is impossible.
    """
    values = {**base.model_dump(), **params_from_row(row)}
    try:
        return TissueParams.model_validate(values)
    except ValueError as error:
        reason = explain(error, TissueParams) if isinstance(error, ValidationError) else error
        raise ConfigError(f"slide {row.get('slide_id')}: {reason}") from error
