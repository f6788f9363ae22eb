"""The gate of the readers, from the figures of `tests.benchmarks.readers`."""

from tests.benchmarks import readers
from tests.benchmarks.table import Options, Row

TIMES, OF_FLOOR = 10.0, 0.7


def measure(options: Options) -> list[Row]:
    """A row a kind of slide."""
    patches, rounds = (128, 2) if options.quick else (768, 5)
    found = readers.measure(patches=patches, rounds=rounds, core=options.core)
    rows = []
    for slide in dict.fromkeys(row.slide for row in found):
        by_way = {row.way: row for row in found if row.slide == slide}
        ours = by_way["tiff"]
        met = ours.times_one_at_a_time >= TIMES and ours.of_floor >= OF_FLOOR
        rows.append(
            Row(
                stage=f"reader, {slide}",
                ours=ours.best,
                unit="patches/CPU-s",
                gate=f">= {TIMES:g}x, >= {OF_FLOOR:.0%} of the floor",
                met=bool(met and ours.equal_pixels),
                comparator=by_way["one at a time"].best,
                floor=by_way["floor"].best,
                ratio=ours.times_one_at_a_time,
                note=f"{ours.of_floor:.0%} of the floor, which is "
                f"{by_way['floor'].times_one_at_a_time:.1f}x and decodes {ours.tiles_a_patch:.2f} "
                f"tiles a patch; median {ours.median:,.0f}; pixels "
                + ("equal" if ours.equal_pixels else "DIFFER"),
            )
        )
    return rows
