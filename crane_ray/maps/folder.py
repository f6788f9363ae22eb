"""The folder of a run's maps: where each file lies, whose maps they are, and the slides it has.

::

    maps.json                       MapsHeader: networks, heads, features, settings
    index.parquet                   MapRow: one row a slide
    scores/{slide_id}.parquet       every head's scores, see `scores`
    clam/{slide_id}/{head}.h5       CLAM's files, where asked for
    pictures/{slide_id}/{head}.jpg  (.png, .tif) and slide.jpg, the slide alone, where asked for
    regions/{slide_id}/{head}.geojson
    patches/{slide_id}/{head}/{sample}.jpg  a gallery; {sample}/ has its patches as files
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa
from pydantic import ValidationError

from crane_ray import storage
from crane_ray.config import Config
from crane_ray.errors import StoreError
from crane_ray.tables import iter_rows, only, read_arrow, write_table

FORMAT_VERSION = 1
FOLDER_NAME = "heatmaps"
"""Where a workspace has the folders of its maps, one a run: WORK/heatmaps/NAME."""
SLIDE_FOLDERS = ("clam", "pictures", "regions", "patches")
"""Folders in which each slide has one of its own."""

SCHEMA = pa.schema(
    [
        ("slide_id", pa.string()),
        ("case_id", pa.string()),
        ("uri", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("num_patches", pa.int64()),
        ("predictions", pa.string()),
        ("fingerprint", pa.string()),
        ("seconds", pa.float64()),
    ]
)


class HeadTask(Config):
    """A task of the networks, as the header names it."""

    name: str
    classes: tuple[str, ...]


class MapsHeader(Config):
    """The content of maps.json."""

    format: Literal["crane-ray maps"] = "crane-ray maps"
    version: int = FORMAT_VERSION
    model: str
    """Run or checkpoint whose networks made the maps."""
    checkpoints: dict[str, str]
    """Fingerprint of each fold's network, by fold."""
    tasks: tuple[HeadTask, ...]
    heads: tuple[str, ...]
    """Name of each map: a task, or task:class."""
    features: str
    """Store of the features that were looked at."""
    recipe_fingerprint: str
    """Of that store."""
    dense: bool = False
    """Whether patches overlap, so that their scores are not those of the diagnosis."""
    cmap: str = "coolwarm"
    """Colour map of the pictures."""


@dataclass(frozen=True, slots=True)
class MapRow:
    """One row of index.parquet: a slide and what came of its maps."""

    slide_id: str
    uri: str
    status: Literal["ok", "failed"]
    case_id: str = ""
    reason: str = ""
    num_patches: int | None = None
    predictions: str = "{}"
    """JSON: probabilities of the classes by task, uncalibrated, the mean over the networks."""
    fingerprint: str = ""
    """Of everything that decided the maps: a rerun with the same one has nothing to do."""
    seconds: float | None = None

    def probabilities(self) -> dict[str, list[float]]:
        """The predictions by task, in the order of its classes."""
        found: dict[str, list[float]] = json.loads(self.predictions or "{}")
        return found

    @classmethod
    def from_mapping(cls, row: Mapping[str, Any]) -> "MapRow":
        """A row from a table's record; columns that it does not know are left out."""
        return cls(**only(row, (field.name for field in fields(cls))))


@dataclass(frozen=True)
class MapsFolder:
    """Paths of one run's maps under a folder or URI."""

    root: str

    @property
    def header_path(self) -> str:
        """Whose maps they are."""
        return storage.join(self.root, "maps.json")

    @property
    def index_path(self) -> str:
        """The table with one row a slide."""
        return storage.join(self.root, "index.parquet")

    @property
    def manifests(self) -> str:
        """The folder of run manifests."""
        return storage.join(self.root, "manifests")

    def scores(self, slide_id: str) -> str:
        """Scores of every head."""
        return storage.join(self.root, "scores", f"{slide_id}.parquet")

    def clam_scores(self, slide_id: str, head: str) -> str:
        """Scores of a head in CLAM's format."""
        return storage.join(self.root, "clam", slide_id, f"{file_part(head)}.h5")

    def picture(self, slide_id: str, head: str, suffix: str = "jpg") -> str:
        """The map of a head over its slide; of head ``slide`` the slide alone."""
        return storage.join(self.root, "pictures", slide_id, f"{file_part(head)}.{suffix}")

    def regions(self, slide_id: str, head: str) -> str:
        """Regions of high attention, level-0 px."""
        return storage.join(self.root, "regions", slide_id, f"{file_part(head)}.geojson")

    def gallery(self, slide_id: str, head: str, sample: str) -> str:
        """Patches of a sample (top, bottom, ...) in one picture."""
        return storage.join(self.root, "patches", slide_id, file_part(head), f"{sample}.jpg")

    def patch(self, slide_id: str, head: str, sample: str, name: str) -> str:
        """One patch of a sample as a file."""
        return storage.join(self.root, "patches", slide_id, file_part(head), sample, name)

    def slide_folders(self, slide_id: str) -> list[str]:
        """The folders that hold files of one slide alone."""
        return [storage.join(self.root, kind, slide_id) for kind in SLIDE_FOLDERS]

    def clear(self) -> None:
        """Removes the maps of all slides and their table; what else lies in the folder stays.

        Raises:
            StorageError: something cannot be removed.
        """
        storage.remove_tree(self.index_path)
        for kind in ("scores", *SLIDE_FOLDERS):
            storage.remove_tree(storage.join(self.root, kind))

    def read_header(self) -> MapsHeader:
        """Whose maps they are.

        Raises:
            StoreError: there are none, or those of a newer format.
        """
        if not storage.exists(self.header_path):
            raise StoreError(
                f"maps {self.root}: none are there (no maps.json); crane-ray heatmap makes them"
            )
        try:
            tree = json.loads(storage.read_bytes(self.header_path))
            if tree.get("version", 0) > FORMAT_VERSION:
                raise StoreError(
                    f"maps {self.root}: format version {tree['version']}, this crane-ray reads up "
                    f"to {FORMAT_VERSION}; upgrade crane-ray"
                )
            return MapsHeader.model_validate(tree)
        except (ValueError, AttributeError, ValidationError) as error:
            raise StoreError(
                f"maps {self.root}: maps.json cannot be used: {error}; crane-ray heatmap "
                "--overwrite makes them anew"
            ) from error

    def write_header(self, header: MapsHeader) -> None:
        """Replaces maps.json in one piece."""
        text = header.model_dump_json(indent=2) + "\n"
        storage.put_bytes(self.header_path, text.encode(), durable=True)

    def read_index(self) -> dict[str, MapRow]:
        """The table's rows by slide_id; empty where nothing was made yet.

        Raises:
            StoreError: the table is there and cannot be read.
        """
        if not storage.exists(self.index_path):
            return {}
        hint = "move it away and run crane-ray heatmap again"
        table = read_arrow(self.index_path, what="table of maps", hint=hint)
        rows = (MapRow.from_mapping(row) for row in iter_rows(table))
        return {row.slide_id: row for row in rows}

    def write_index(self, rows: Iterable[MapRow]) -> None:
        """Replaces the table, sorted by slide_id, in one piece."""
        ordered = sorted(rows, key=lambda row: row.slide_id)
        write_table(self.index_path, ordered, SCHEMA)


def list_maps(work: str) -> list[MapsFolder]:
    """The folders of maps in a workspace, by name."""
    folders = storage.list_folders(storage.join(work, FOLDER_NAME))
    found = (MapsFolder(folder) for folder in folders)
    return [maps for maps in found if storage.exists(maps.header_path)]


def file_part(head: str) -> str:
    """A head's name as a part of a path."""
    return head.replace(":", "-").replace("/", "-")
