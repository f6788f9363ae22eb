import subprocess
import sys


def test_results_are_shown_without_ray_torch_or_optuna() -> None:
    code = (
        "import sys, crane_ray.search.page, crane_ray.search.importance\n"
        "print({'ray', 'torch', 'optuna'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
