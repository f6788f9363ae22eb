#!/usr/bin/env bash
# Everything that must hold before a commit lands: lint, format, types, import layers, tests.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
lint-imports
python -m pytest -n 2 --dist loadgroup "$@"  # Ray in one process, the rest in the other
