#!/usr/bin/env bash
# Everything that must hold before a commit lands: lint, format, types, import layers, tests.
# Arguments go to pytest; without any, tests run as three processes side by side: those that kill
# processes and wait for Ray to notice, others that start a Ray, and those that start none.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
lint-imports
if (($#)); then
  exec python -m pytest "$@"
fi
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
python -m pytest tests/unit >"$logs/unit" 2>&1 &
unit=$!
python -m pytest --durations=15 -m chaos tests/ray >"$logs/chaos" 2>&1 &
chaos=$!
failed=0
python -m pytest --durations=15 -m "not chaos" tests/ray tests/e2e || failed=1
wait "$unit" || failed=1
cat "$logs/unit"
wait "$chaos" || failed=1
cat "$logs/chaos"
exit "$failed"
