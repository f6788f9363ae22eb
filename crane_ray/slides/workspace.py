"""The workspace of a cohort: where each result lies, and the table of its slides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa

from crane_ray import storage
from crane_ray.tables import iter_rows, only, read_arrow, write_table

Status = Literal["ok", "no_tissue", "failed"]

SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("case_id", pa.string()),
        ("uri", pa.string()),
        ("size", pa.int64()),
        ("vendor", pa.string()),
        ("width_px", pa.int64()),
        ("height_px", pa.int64()),
        ("mpp", pa.float64()),
        ("power", pa.float64()),
        ("levels", pa.int32()),
        ("num_patches", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("seconds", pa.float64()),
        ("reader", pa.string()),
        ("spec_fingerprint", pa.string()),
        ("plan_fingerprint", pa.string()),
        ("coords_checksum", pa.string()),
    ]
)


SHARED = frozenset({"vendor", "status", "reader", "spec_fingerprint"})


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One row of slides.parquet: a slide, what it is, and what patching made of it."""

    slide_id: str
    uri: str
    status: Status
    case_id: str = ""
    reason: str = ""
    size: int | None = None
    """Bytes of the slide's (first) file."""
    vendor: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    mpp: float | None = None
    """The level-0 resolution that was used, um/px; else the file's own claim."""
    power: float | None = None
    levels: int | None = None
    num_patches: int | None = None
    """None for a first look without patches (seg-only) and for failures."""
    seconds: float | None = None
    reader: str | None = None
    spec_fingerprint: str | None = None
    plan_fingerprint: str | None = None
    """Of everything that decided the patches: a rerun with the same one has nothing to do."""
    coords_checksum: str | None = None
    """Of the patches themselves: features made from other ones do not belong to this slide."""

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any]) -> "SlideRow":
        """A row from a table's record; columns that it does not know are left out."""
        return cls(**only(row, (field.name for field in fields(cls))))


@dataclass(frozen=True)
class Workspace:
    """Paths of one cohort's results under a folder or URI."""

    root: str

    @property
    def slides_table(self) -> str:
        """The table with one row a slide."""
        return storage.join(self.root, "slides.parquet")

    @property
    def process_list(self) -> str:
        """CLAM's table of slides and parameters."""
        return storage.join(self.root, "process_list_autogen.csv")

    @property
    def manifests(self) -> str:
        """The folder of run manifests."""
        return storage.join(self.root, "manifests")

    @property
    def features(self) -> str:
        """The folder of feature stores, one an encoder."""
        return storage.join(self.root, "features")

    def config(self, verb: str) -> str:
        """The resolved config of the last run of a verb."""
        return storage.join(self.root, f"{verb}.yaml")

    def contours(self, slide_id: str) -> str:
        """Tissue polygons of a slide."""
        return storage.join(self.root, "contours", f"{slide_id}.geojson")

    def mask(self, slide_id: str) -> str:
        """Thumbnail with contours."""
        return storage.join(self.root, "masks", f"{slide_id}.jpg")

    def stitch(self, slide_id: str) -> str:
        """Patches in place."""
        return storage.join(self.root, "stitches", f"{slide_id}.jpg")

    def patches(self, slide_id: str) -> str:
        """Coordinates in CLAM's format."""
        return storage.join(self.root, "patches", f"{slide_id}.h5")

    def read_slides(self) -> dict[str, SlideRow]:
        """The table's rows by slide_id; empty where nothing was patched yet.

        Raises:
            StoreError: the table is there and cannot be read.
        """
        if not storage.exists(self.slides_table):
            return {}
        hint = "move it away and run crane-ray patch again"
        table = read_arrow(self.slides_table, what="table of slides", hint=hint)
        rows = (SlideRow.from_mapping(row) for row in iter_rows(table, shared=SHARED))
        return {row.slide_id: row for row in rows}

    def write_slides(self, rows: Iterable[SlideRow]) -> None:
        """Replaces the table, sorted by slide_id, in one piece."""
        ordered = sorted(rows, key=lambda row: row.slide_id)
        write_table(self.slides_table, ordered, SCHEMA)
