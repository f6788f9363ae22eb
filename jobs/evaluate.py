"""Entry point of a Ray job, the same as ``crane-ray evaluate``, whose flags it takes.

``ray job submit --working-dir jobs -- python evaluate.py --config FILE``
"""

import sys

from crane_ray.cli.main import run

if __name__ == "__main__":
    run(["evaluate", *sys.argv[1:]])
