"""The table of gates: every stage beside its floor and the one-at-a-time way, in one run.

python -m tests.benchmarks [--only NAME ...] [--quick] [--json FILE]
"""

import argparse
import importlib
import json
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks.table import HEADING, Options, Row, environment, words

STAGES = {
    "reader": "reader_gate",
    "ray_reader": "ray_reader",
    "coordinates": "coordinates",
    "encoder_cpu": "encoder_cpu",
    "encoder_gpu": "encoder_gpu",
    "pipeline": "pipeline",
    "one_slide": "one_slide",
    "growth": "growth",
    "scheduling": "scheduling",
    "raylets": "raylets",
    "maps": "maps",
    "tiles": "tiles",
    "training": "training",
    "training_gpu": "training_gpu",
}
"""Modules by the names that ``--only`` takes."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="NAME",
                        help=f"some of: {', '.join(STAGES)}")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="tries the scripts; figures are rough")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, help="also write rows and environment to this file")
    given = parser.parse_args()
    options = Options(quick=given.quick, core=given.core)
    found = environment()
    for name, value in found.items():
        print(f"{name}: {value}")
    print(f"\n{HEADING}", flush=True)
    rows: list[Row] = []
    for name in given.only:
        for row in _measured(name, options):
            print(words(row), flush=True)
            rows.append(row)
    print(f"\nload at the end: {os.getloadavg()[0]:.1f}")
    if given.json:
        tree = {"environment": found, "load at the end": os.getloadavg()[0], "quick": given.quick}
        tree["rows"] = [{**asdict(row), "verdict": row.verdict} for row in rows]
        given.json.write_text(json.dumps(tree, indent=2), encoding="utf-8")
    return int(any(row.met is False for row in rows))


def _measured(name: str, options: Options) -> list[Row]:
    """A stage's rows; one that breaks must not cost the figures of the others."""
    try:
        module = importlib.import_module(f"tests.benchmarks.{STAGES[name]}")
        rows: list[Row] = module.measure(options)
    except Exception as error:
        traceback.print_exc()
        rows = [Row(name, None, "", "runs to its end", met=False, note=f"{error}".splitlines()[-1])]
    return rows


if __name__ == "__main__":
    sys.exit(main())
