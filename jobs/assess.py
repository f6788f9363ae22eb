"""Entry point of a Ray job, the same as ``crane-ray assess``, whose flags it takes.

``ray job submit --working-dir jobs -- python assess.py --config FILE``
"""

import sys

from crane_ray.cli.main import run

if __name__ == "__main__":
    run(["assess", *sys.argv[1:]])
