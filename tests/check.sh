#!/usr/bin/env bash
# Everything that must hold before a commit lands: lint, format, types, import layers, tests.
# Arguments go to pytest; without any, tests that start a Ray run beside those that do not.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
lint-imports
if (($#)); then
  exec python -m pytest "$@"
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
python -m pytest tests/unit >"$log" 2>&1 &
unit=$!
failed=0
python -m pytest --durations=25 tests/ray tests/e2e || failed=1
wait "$unit" || failed=1
cat "$log"
exit "$failed"
