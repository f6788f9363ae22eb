"""The scores of a slide's patches, head by head, and the two files that hold them.

Ours is Parquet: x, y (int32, level-0 px of a patch's top-left corner), then ``raw:HEAD`` and
``percentile:HEAD`` (float32) of each head; what is the same for all rows is in the metadata of its
schema. CLAM's is HDF5: ``attention_scores`` (N, 1) float32 and ``coords`` (N, 2), a file a head.
"""

import io
import json
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from crane_ray import storage
from crane_ray.errors import StoreError
from crane_ray.tables import read_arrow, write_arrow

FORMAT = 1
METADATA_KEY = b"crane_ray_scores"
RAW, PERCENTILE = "raw:", "percentile:"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SlideScores:
    """What every head says of every patch of a slide."""

    slide_id: str
    heads: tuple[str, ...]
    """Name of each row: a task, or task:class."""
    xy: npt.NDArray[np.int32]
    """(N, 2) top-left corners in level-0 px."""
    raw_HN: Floats
    """See `attending.Attention`."""
    percentile_HN: Floats
    """Share from 0 to 1 of the slide's reference scores that lie below: the mean rank of equal
    scores, as in CLAM. References are the slide's own patches, those of the coarse map where this
    one is dense."""
    footprint_px: float
    """Width and height of a patch in level-0 px."""
    dimensions: tuple[int, int]
    """Width and height of the slide at level 0, px."""
    mpp: float | None = None
    """um/px at level 0."""

    def __len__(self) -> int:
        return len(self.xy)

    def of(self, head: str, kind: str = "percentile") -> Floats:
        """(N,) scores of one head, ``percentile`` (0 to 1) or ``raw``.

        Raises:
            StoreError: there is no such head.
        """
        if head not in self.heads:
            raise StoreError(
                f"slide {self.slide_id}: no head {head!r}; its scores have {', '.join(self.heads)}"
            )
        rows = self.percentile_HN if kind == "percentile" else self.raw_HN
        scores_N: Floats = rows[self.heads.index(head)]
        return scores_N


def write_scores(path: str, scores: SlideScores) -> None:
    """Writes our file: equal scores, equal bytes.

    Raises:
        StorageError: it cannot be written.
    """
    columns: dict[str, Any] = {"x": scores.xy[:, 0], "y": scores.xy[:, 1]}
    for row, head in enumerate(scores.heads):
        columns[RAW + head] = scores.raw_HN[row]
        columns[PERCENTILE + head] = scores.percentile_HN[row]
    facts = {
        "format": FORMAT,
        "slide_id": scores.slide_id,
        "heads": scores.heads,
        "footprint_px": scores.footprint_px,
        "dimensions": scores.dimensions,
        "mpp": scores.mpp,
    }
    table = pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(facts).encode()})
    write_arrow(path, table)


def read_scores(path: str) -> SlideScores:
    """The scores in a file of ours.

    Raises:
        StoreError: it is not there, holds something else, or a newer format.
    """
    hint = "run crane-ray heatmap again with --overwrite"
    table = read_arrow(path, what="table of scores", hint=hint)
    facts = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b"{}"))
    if facts.get("format") != FORMAT:
        raise StoreError(
            f"{path}: holds no scores of format {FORMAT} (found {facts.get('format')}); {hint}, or "
            "update crane-ray"
        )
    heads = tuple(facts["heads"])
    width, height = facts["dimensions"]

    def rows(prefix: str) -> Floats:
        found = [table[prefix + head].to_numpy() for head in heads]
        return np.stack(found).astype(np.float32, copy=False)

    return SlideScores(
        slide_id=facts["slide_id"],
        heads=heads,
        xy=np.stack([table["x"].to_numpy(), table["y"].to_numpy()], axis=1).astype(np.int32),
        raw_HN=rows(RAW),
        percentile_HN=rows(PERCENTILE),
        footprint_px=float(facts["footprint_px"]),
        dimensions=(int(width), int(height)),
        mpp=facts["mpp"],
    )


def write_clam_scores(path: str, scores: SlideScores, head: str) -> None:
    """Writes the raw scores of a head as CLAM's heatmap script does.

    Raises:
        StorageError: it cannot be written.
    """
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file.create_dataset("attention_scores", data=scores.of(head, "raw")[:, None])
        file.create_dataset("coords", data=scores.xy.astype(np.int64))
    storage.put_bytes(path, content.getvalue())
