#!/usr/bin/env bash
# A worker node of a crane-ray cluster, in the foreground; interrupt it (or stop its systemd unit)
# to end it. Waits for the head, which may be started later. Settings: cluster.env. Options are
# handed to `ray start`.
set -euo pipefail
# shellcheck source=cluster/onprem/node.sh
source "$(dirname "$(readlink -f "$0")")/node.sh"

prepare_node
port=${CRANE_RAY_PORT:-6379}
wait_s=${CRANE_RAY_HEAD_WAIT_S:-300}
deadline=$((SECONDS + wait_s))
until timeout 5 bash -c ": </dev/tcp/$CRANE_RAY_HEAD/$port" 2>/dev/null; do
  ((SECONDS < deadline)) || fail "no head answers at $CRANE_RAY_HEAD:$port for $wait_s s; start head.sh there, and open the port in its firewall"
  sleep 1
done
exec ray start --address "$CRANE_RAY_HEAD:$port" "${options[@]}" "$@"
