#!/usr/bin/env bash
# Everything that must hold before a commit lands: lint, format, types, import layers, tests.
# Arguments go to pytest; without any, tests run as three processes side by side, which take about
# as long as each other. Tests that kill processes wait for Ray to notice, so two of the three do.
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
# Of trainings and searches, which kill processes as well.
studies=(tests/ray/test_training.py tests/ray/test_training_faults.py tests/ray/test_tuning.py)
kills=(python -m pytest --durations=15 -m chaos)
{
  python -m pytest tests/unit && unit=0 || unit=1
  "${kills[@]}" "${studies[@]}" || unit=1
  exit "$unit"
} >"$logs/unit" 2>&1 &
unit=$!
{
  "${kills[@]}" tests/ray "${studies[@]/#/--ignore=}" && chaos=0 || chaos=1
  python -m pytest tests/e2e || chaos=1
  exit "$chaos"
} >"$logs/chaos" 2>&1 &
chaos=$!
failed=0
python -m pytest --durations=15 -m "not chaos" tests/ray || failed=1
wait "$unit" || failed=1
cat "$logs/unit"
wait "$chaos" || failed=1
cat "$logs/chaos"
exit "$failed"
