"""``python -m crane_ray``: the same as the ``crane-ray`` command."""

from crane_ray.cli.main import run

if __name__ == "__main__":
    run()
