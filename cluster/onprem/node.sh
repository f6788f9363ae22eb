# shellcheck shell=bash
# What head.sh and worker.sh share; they source it. Reads the settings, puts the environment on the
# PATH, and leaves the options of `ray start` that both kinds of node take in `options`.

fail() {
  echo "${0##*/}: $*" >&2
  exit 2
}

# Values that are in the environment already stay: of systemd, or of somebody who tries another one.
read_settings() {
  local file=${CRANE_RAY_SETTINGS:-/etc/crane-ray/cluster.env} line name
  [[ -r $file ]] || fail "$file: cannot be read; copy cluster/onprem/cluster.env there, or name another file in CRANE_RAY_SETTINGS"
  while IFS= read -r line || [[ -n $line ]]; do
    [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
    [[ $line =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] || fail "$file: '$line' is no NAME=VALUE"
    name=${line%%=*}
    [[ -n ${!name+set} ]] || export "$name=${line#*=}"
  done <"$file"
  [[ -n ${CRANE_RAY_HEAD:-} ]] || fail "$file: CRANE_RAY_HEAD, the head node's address, is not set"
}

# The environment that crane-ray is installed in; where none is named, the one on the PATH.
use_environment() {
  if [[ -n ${CRANE_RAY_VENV:-} ]]; then
    [[ -x $CRANE_RAY_VENV/bin/ray ]] || fail "CRANE_RAY_VENV=$CRANE_RAY_VENV: no bin/ray there; install crane-ray into it (python3 -m venv, pip install)"
    export PATH=$CRANE_RAY_VENV/bin:$PATH
  fi
  command -v ray >/dev/null || fail "no ray on the PATH; set CRANE_RAY_VENV to the environment that crane-ray is installed in"
}

# A cluster that asks for a token needs it on each node before Ray starts.
check_token() {
  [[ ${RAY_AUTH_MODE:-} == token && -z ${RAY_AUTH_TOKEN:-} ]] || return 0
  local file=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}
  [[ -s $file ]] || fail "$file: no token there; make one with 'ray get-auth-token --generate' and copy it to every machine"
}

# The address that this machine reaches the head from: it may have several.
node_ip() {
  local route
  if [[ -n ${CRANE_RAY_NODE_IP:-} ]]; then
    echo "$CRANE_RAY_NODE_IP"
  elif ! command -v ip >/dev/null; then
    fail "ip is not installed (package iproute2); or give this machine's own address as CRANE_RAY_NODE_IP"
  elif route=$(ip -o route get "$CRANE_RAY_HEAD" 2>/dev/null) && [[ $route =~ src\ ([^ ]+) ]]; then
    echo "${BASH_REMATCH[1]}"
  else
    fail "no route to CRANE_RAY_HEAD=$CRANE_RAY_HEAD (an address is needed, no name); or give this machine's own address as CRANE_RAY_NODE_IP"
  fi
}

prepare_node() {
  read_settings
  use_environment
  check_token
  local ip
  ip=$(node_ip)
  options=(--node-ip-address "$ip" --block)
  [[ -z ${CRANE_RAY_NUM_CPUS:-} ]] || options+=(--num-cpus "$CRANE_RAY_NUM_CPUS")
  [[ -z ${CRANE_RAY_NUM_GPUS:-} ]] || options+=(--num-gpus "$CRANE_RAY_NUM_GPUS")
  [[ -z ${CRANE_RAY_OBJECT_STORE_MB:-} ]] ||
    options+=(--object-store-memory "$((CRANE_RAY_OBJECT_STORE_MB * 1024 * 1024))")
  ulimit -n "$(ulimit -Hn)" # many slides and sockets are open at once
}
