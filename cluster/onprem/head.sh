#!/usr/bin/env bash
# The head node of a crane-ray cluster, in the foreground; interrupt it (or stop its systemd unit)
# to end it. Settings: cluster.env. Options are handed to `ray start`.
set -euo pipefail
# shellcheck source=cluster/onprem/node.sh
source "$(dirname "$(readlink -f "$0")")/node.sh"

prepare_node
# Whoever reaches the dashboard can run jobs: without a token only from this machine.
dashboard=127.0.0.1
[[ ${RAY_AUTH_MODE:-} != token ]] || dashboard=0.0.0.0
exec ray start --head --port "${CRANE_RAY_PORT:-6379}" --dashboard-host "$dashboard" \
  --dashboard-port "${CRANE_RAY_DASHBOARD_PORT:-8265}" "${options[@]}" "$@"
