"""Entry point of a Ray job, the same as ``crane-ray train``, whose flags it takes.

``ray job submit --working-dir jobs -- python train.py --config FILE``
"""

import sys

from crane_ray.cli.main import run

if __name__ == "__main__":
    run(["train", *sys.argv[1:]])
