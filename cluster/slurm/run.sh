#!/usr/bin/env bash
# Body of the sbatch files beside it: a Ray cluster of the job's nodes that lives as long as one
# crane-ray verb, which runs on the first of them. Words: the verb and its flags.
set -euo pipefail

fail() {
  echo "run.sh: $*" >&2
  exit 2
}

[[ -n ${SLURM_JOB_ID:-} ]] || fail "not in a Slurm job; submit it: sbatch cluster/slurm/extract.sbatch --config FILE"
(($#)) || fail "no verb given"

# The environment that crane-ray is installed in, on a filesystem that every node sees.
if [[ -n ${CRANE_RAY_VENV:-} ]]; then
  [[ -r $CRANE_RAY_VENV/bin/activate ]] || fail "CRANE_RAY_VENV=$CRANE_RAY_VENV: no virtual environment there"
  # shellcheck disable=SC1091
  source "$CRANE_RAY_VENV/bin/activate"
fi
command -v ray crane-ray >/dev/null || fail "ray and crane-ray are not on the PATH; set CRANE_RAY_VENV, or load their module before sbatch"

# This script runs on the first node of the job. Its name would do, too, but on some machines a
# node's own name leads to its loopback, which no other node reaches.
read -r address _ < <(hostname -I) || true
address=${CRANE_RAY_HEAD_IP:-${address:-}}
[[ -n $address ]] || fail "this node has no address; give one in CRANE_RAY_HEAD_IP"
# Below the ports that Linux hands out (32768), above those of Ray's workers (19999).
port=${CRANE_RAY_PORT:-$((20000 + SLURM_JOB_ID % 10000))}
cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
nodes=${SLURM_JOB_NUM_NODES:-1}

# The network is shared with other users: only this job's own processes have its token.
export RAY_AUTH_MODE=token
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN
export RAY_USAGE_STATS_ENABLED=0
# Nodes boot and load their software at different speeds; Ray's own limit is 30 s.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-600}
# The head does not come back: the other nodes end this soon after it, not after a minute.
export RAY_gcs_rpc_server_reconnect_timeout_s=${RAY_gcs_rpc_server_reconnect_timeout_s:-30}
# Another cluster's address, left in the environment, would lead the verb there.
unset RAY_ADDRESS

# The verb's own status: symmetric-run ends with 0 where Ray could not be started, and may end with
# another than the verb's while it stops Ray.
result=$(mktemp)
trap 'rm -f "$result"' EXIT

read -ra start_options <<<"${CRANE_RAY_START_OPTIONS:-}"
# "4" or "a100:4"; where Slurm does not say, Ray looks for itself.
gpus=${SLURM_GPUS_ON_NODE:-${SLURM_GPUS_PER_NODE:-}}
[[ -z $gpus ]] || start_options+=("--num-gpus=${gpus##*:}")
status=0
# shellcheck disable=SC2016 # the inner bash expands them
srun --nodes="$nodes" --ntasks="$nodes" --ntasks-per-node=1 --cpus-per-task="$cpus" \
  ray symmetric-run --address "$address:$port" --min-nodes "$nodes" \
  --num-cpus="$cpus" "${start_options[@]}" -- \
  bash -c '"${@:2}"; status=$?; echo "$status" >"$1"; exit "$status"' verb "$result" \
  crane-ray "$@" --address "$address:$port" || status=$?

if [[ -s $result ]]; then
  status=$(<"$result")
else
  echo "run.sh: crane-ray $1 did not run to its end; see above for what Ray and Slurm say" >&2
  ((status)) || status=1
fi
exit "$status"
