"""Entry point of a Ray job, the same as ``crane-ray tune``, whose flags it takes.

``ray job submit --working-dir jobs -- python tune.py --config FILE``
"""

import sys

from crane_ray.cli.main import run

if __name__ == "__main__":
    run(["tune", *sys.argv[1:]])
