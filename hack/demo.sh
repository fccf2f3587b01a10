#!/usr/bin/env bash
# The demonstration: from a fresh Debian or Ubuntu with git and Rust to a pod from a manifest file that
# runs under a real containerd, in one command. It stays up to be looked at; `make demo-stop` removes
# it. A failure on the way removes what was made and says why.
#
# Everything runs from one folder, /run/nodectl-demo (short, for the sockets in it): a containerd of its
# own and an agent of its own. The machine's containerd, Docker or kubelet are not touched.
#
# usage: hack/demo.sh start|stop
set -Eeuo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
cd "$here/.."

dir=/run/nodectl-demo
binary=$(readlink -m "${CARGO_TARGET_DIR:-target}/release/nodectl")
node=demo
pod=hello-$node

stop() {
    if [ -e "$dir/.nodectl-containerd" ]; then
        as_root hack/containerd.sh stop "$dir"
        say "demo: stopped, and all that it made is removed"
    else
        say "demo: nothing runs"
    fi
}

free_port() { # free_port FIRST: the first port from there on that nobody listens on
    local port
    for ((port = $1; port < $1 + 200; port++)); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s\n' "$port"
            return 0
        fi
    done
    die "no free port between $1 and $port"
}

failed() {
    local code=$?
    trap - EXIT
    [ "$code" -ne 0 ] || return 0
    say "" "demo: FAILED while ${doing:-starting}"
    if [ -n "${made:-}" ]; then
        if as_root test -s "$dir/agent.log"; then
            say "---- the end of the agent's log ----"
            as_root tail -n 20 "$dir/agent.log" >&2
        fi
        if as_root grep -qE 'level=(warn|error|fatal)' "$dir/containerd.log" 2>/dev/null; then
            say "---- containerd's last warnings ----"
            as_root grep -E 'level=(warn|error|fatal)' "$dir/containerd.log" | tail -n 8 >&2
        fi
        as_root hack/containerd.sh stop "$dir" || say "demo: $dir could not be removed; try 'make demo-stop'"
    fi
    exit "$code"
}

pods() { as_root "$binary" pods --socket "$dir/nodectl.sock" "$@"; }

# Running, and both containers ready: the phase alone is Running as soon as one is.
pod_runs() {
    pods -o json | tr -d ' \n' | grep -qE '"phase":"Running"' || return 1
    pods -o json | tr -d ' \n' | grep -qE '"type":"Ready"[^}]*"status":"True"|"status":"True"[^}]*"type":"Ready"'
}

log_file() { as_root find "$dir/pod-logs" -path "*_${pod}_*/$1/0.log" -print -quit; }

agent_alive() { as_root sh -c "kill -0 \"\$(cat '$dir/agent.pid')\"" 2>/dev/null; }

start() {
    local health port tries log
    doing="looking for a Rust toolchain"
    command -v cargo >/dev/null || die "cargo is missing: install a Rust toolchain (https://rustup.rs)"
    doing="installing what is missing"
    hack/deps.sh demo
    if [ -e "$dir/.nodectl-containerd" ]; then
        say "demo: one is up already; it is replaced"
        stop
    fi
    doing="building nodectl"
    say "demo: building (some minutes the first time)"
    cargo build --release --locked
    doing="making the images"
    hack/images.sh
    doing="starting a private containerd in $dir"
    say "demo: starting a private containerd in $dir"
    made=yes
    as_root env "PATH=$PATH" ${CONTAINERD_BIN:+"CONTAINERD_BIN=$CONTAINERD_BIN"} hack/containerd.sh start "$dir" >/dev/null

    doing="starting the agent"
    health=$(free_port 10248)
    port=$(free_port 10250)
    [ "$health" != "$port" ] || port=$(free_port $((port + 1)))
    as_root mkdir -p "$dir/kubelet" "$dir/pod-logs" "$dir/container-logs" "$dir/manifests"
    as_root cp examples/manifests/*.yaml "$dir/manifests/"
    as_root tee "$dir/config.yaml" >/dev/null <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: $dir/manifests
podLogsDir: $dir/pod-logs
containerRuntimeEndpoint: unix://$dir/containerd.sock
cgroupRoot: /nodectl-$(printf '%s' "$dir" | sha256sum | cut -c1-8)
cgroupDriver: cgroupfs
healthzBindAddress: 127.0.0.1
healthzPort: $health
port: $port
readOnlyPort: 0
CONFIG
    # Detached from this terminal, so that closing it ends nothing.
    # shellcheck disable=SC2016 # expanded by the inner shell
    as_root sh -c 'dir=$1; shift; setsid "$@" </dev/null >>"$dir/agent.log" 2>&1 & echo $! >"$dir/agent.pid"' sh "$dir" \
        "$binary" run --config "$dir/config.yaml" --root-dir "$dir/kubelet" --hostname-override "$node" \
        --operator-socket "$dir/nodectl.sock" --container-log-dir "$dir/container-logs"

    doing="waiting for the pod"
    for ((tries = 0; tries < 600; tries++)); do
        if pod_runs 2>/dev/null; then break; fi
        agent_alive || die "the agent has ended"
        sleep 0.1
    done
    if [ "$tries" -ge 600 ]; then
        pods >&2 || true
        as_root "$binary" explain --socket "$dir/nodectl.sock" "$pod" >&2 || true
        die "the pod does not run after a minute"
    fi
    doing="reading the pod's log"
    for ((tries = 0; tries < 100; tries++)); do
        log=$(log_file reader)
        if [ -n "$log" ] && as_root grep -q 'hello from' "$log"; then break; fi
        sleep 0.1
    done
    [ "$tries" -lt 100 ] || die "the container 'reader' has logged nothing"

    say ""
    say "\$ nodectl pods -o wide"
    pods -o wide
    say ""
    say "\$ tail $log"
    as_root tail -n 3 "$log"
    say ""
    local root=
    [ "$(id -u)" -eq 0 ] || root='sudo '
    cat >&2 <<NEXT
A pod from $dir/manifests/hello.yaml runs. It stays until you stop it. To look further:
  ${root}$binary pods -o yaml --socket $dir/nodectl.sock
  ${root}$binary explain $pod --socket $dir/nodectl.sock
  curl http://127.0.0.1:$health/healthz?verbose
  ${root}tail -f $dir/agent.log
Edit, add or remove manifests in $dir/manifests and see what happens.
To stop it and remove all that it made:
  make demo-stop
NEXT
}

case ${1:-} in
start)
    trap failed EXIT
    trap 'exit 130' INT TERM
    start
    ;;
stop) stop ;;
*)
    say "usage: hack/demo.sh start|stop"
    exit 2
    ;;
esac
