"""Entry point of a Ray job, the same as ``crane-ray extract``, whose flags it takes.

``ray job submit --working-dir jobs -- python extract.py --config FILE``
"""

import sys

from crane_ray.cli.main import run

if __name__ == "__main__":
    run(["extract", *sys.argv[1:]])
