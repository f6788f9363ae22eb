"""Entry point of a Ray job, the same as ``crane-ray heatmap``, whose flags it takes.

``ray job submit --working-dir jobs -- python heatmap.py --config FILE``
"""

import sys

from crane_ray.cli.main import run

if __name__ == "__main__":
    run(["heatmap", *sys.argv[1:]])
