#!/usr/bin/env bash
# A private containerd in a folder of its own, for the demonstration and the tests. It runs beside a
# containerd or Docker that the machine already has and shares nothing with it: root, state, socket,
# runc root, network namespaces, CNI configuration and addresses, bridge and cgroup parent are its own.
#
#   hack/containerd.sh start DIR     starts it, imports the images, prints what it is as KEY=VALUE
#                                    lines (also in DIR/env); what an earlier crash left is removed first
#   hack/containerd.sh resume DIR    starts the process again on the same state, after it was killed
#   hack/containerd.sh images DIR    imports the images again
#   hack/containerd.sh status DIR    prints DIR/env; exit 0 if it runs, 3 if not
#   hack/containerd.sh stop DIR      ends its containers, shims and itself, and removes all that it made
#   hack/containerd.sh gc            stops those whose owner (NODECTL_OWNER) has died
#
# Whatever lies in DIR goes with it at `stop`, mounts included: an agent's root-dir may be put there,
# and a process whose number is in DIR/NAME.pid is ended first.
#
# environment: CONTAINERD_BIN   the containerd to run; its ctr and shim are looked for beside it first
#              CNI_BIN_DIR      the CNI plugins' folder, looked at before the usual ones
#              NODECTL_OWNER    pid of the process this containerd is for; see gc
#              NODECTL_CGROUP_DRIVER  systemd, or cgroupfs (the default)
#              NODECTL_IMAGES   folder of hack/images.sh (default: target/images)
set -Eeuo pipefail
export LC_ALL=C
trap 'printf "containerd.sh: line %s failed: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
# shellcheck source=hack/containerd-machine.sh
. "$here/containerd-machine.sh"
# shellcheck source=hack/containerd-config.sh
. "$here/containerd-config.sh"

# Who runs, and what the machine looked like before the first one came.
registry=/run/nodectl-private
# What containerd, its shims and libcni make outside of the folders that they are given.
shared_folders=(/run/containerd/fifo /run/containerd/runc/k8s.io /run/containerd/runc /run/containerd/s /run/containerd /var/lib/cni/results /var/lib/cni/cache /var/lib/cni)

usage() {
    sed -n '/^#   hack/,/^# Whatever/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d' >&2
    exit 2
}

# names DIR: sets what follows from the folder's path alone.
names() {
    case $1 in
    "") usage ;;
    *[!A-Za-z0-9/._-]*) die "$1: only letters, digits and ._- may be in the path: it is written into configuration files" ;;
    esac
    dir=$(readlink -m "$1")
    id=$(printf '%s' "$dir" | sha256sum | cut -c1-8)
    socket=$dir/containerd.sock
    marker=$dir/.nodectl-containerd
    bridge=ndc-$id
    network=nodectl-$id
    cgroup_root=/nodectl-$id
    # sun_path holds 107 bytes; the longest socket of containerd here is the ttrpc one.
    [ "${#dir}" -le 84 ] || die "$dir: ${#dir} bytes are too long a path for the sockets in it (at most 84)"
}

tools() {
    containerd=${CONTAINERD_BIN:-$(find_tool containerd || true)}
    [ -x "$containerd" ] || die "containerd is missing (package containerd); run hack/deps.sh"
    PATH=$(dirname "$containerd"):$PATH:/usr/local/sbin:/usr/sbin:/sbin
    local tool
    for tool in ctr:containerd containerd-shim-runc-v2:containerd runc:runc ip:iproute2 iptables:iptables setsid:util-linux flock:util-linux; do
        command -v "${tool%%:*}" >/dev/null || die "${tool%%:*} is missing (package ${tool##*:}); run hack/deps.sh"
    done
    cni=$(cni_bin_dir) || die "the CNI plugins bridge, host-local, portmap and loopback are missing (package containernetworking-plugins); run hack/deps.sh"
}

locked() { # locked COMMAND...: alone among all private containerds of this machine
    mkdir -p "$registry"
    (
        flock 9
        "$@" 9>&-
    ) 9>"$registry/lock"
}

pid_of() { cat "$dir/containerd.pid" 2>/dev/null || true; }

# Is the recorded process still our containerd, and not another one that got its number?
alive() {
    local pid
    pid=$(pid_of)
    [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF -- "$dir/config.toml"
}

ready() {
    alive && ctr --address "$socket" --connect-timeout 1s version
}

launch() {
    setsid "$containerd" --config "$dir/config.toml" </dev/null >>"$dir/containerd.log" 2>&1 &
    printf '%s\n' $! >"$dir/containerd.pid"
    local tries
    for ((tries = 0; tries < 300; tries++)); do
        if ready >/dev/null 2>&1; then return 0; fi
        if ! kill -0 "$(pid_of)" 2>/dev/null; then break; fi
        sleep 0.1
    done
    tail -n 20 "$dir/containerd.log" >&2
    return 1
}

check_cri() {
    local state
    state=$(ctr --address "$socket" plugins ls | awk '$1 == "io.containerd.grpc.v1" && $2 == "cri" { print $NF }')
    [ "$state" = ok ] && return 0
    grep -E 'level=(error|warning)' "$dir/containerd.log" | tail -n 10 >&2 || true
    say "containerd.sh: the CRI plugin of $containerd did not start: ${state:-it has none}"
    return 1
}

import_images() {
    local images=${NODECTL_IMAGES:-$here/../target/images} archive local=()
    "$here/images.sh" "$images"
    # 2.x would import through its transfer service, which knows no other snapshotter than the default.
    case $(ctr images import --help) in *--local*) local=(--local) ;; esac
    for archive in pause busybox; do
        ctr --address "$socket" -n k8s.io images import ${local[0]+"${local[@]}"} --snapshotter "$snapshotter" "$images/$archive.tar" >/dev/null || return 1
    done
    # A pinned image is never removed by the agent's image garbage collection.
    ctr --address "$socket" -n k8s.io images label localhost/nodectl/pause:1 io.cri-containerd.pinned=pinned >/dev/null
}

start() {
    tools
    if [ -d "$dir" ] && [ ! -e "$marker" ] && [ -n "$(ls -A "$dir")" ]; then
        die "$dir is not empty and not a private containerd's folder: it would be removed at the end"
    fi
    if alive; then
        cat "$dir/env"
        return 0
    fi
    [ ! -e "$marker" ] || stop
    full_version=$("$containerd" --version | awk '{ print $3 }')
    local version=${full_version#v}
    version=${version%%.*}
    case $version in
    [1-9] | [1-9][0-9]) ;;
    *) die "$containerd --version names no version: $("$containerd" --version)" ;;
    esac
    mkdir -p "$dir"
    chmod 0711 "$dir"
    : >"$marker"
    locked register || { stop; exit 1; }
    if ! { configure "$version" && make_cgroups && launch && check_cri && import_images; }; then
        stop
        die "$containerd ($full_version) could not be started in $dir: see the lines above"
    fi
    cat "$dir/env"
}

load() {
    [ -s "$dir/env" ] || die "$dir has no private containerd; 'hack/containerd.sh start $dir' makes one"
    CONTAINERD_BIN=$(sed -n 's/^CONTAINERD_BIN=//p' "$dir/env")
    snapshotter=$(sed -n 's/^SNAPSHOTTER=//p' "$dir/env")
    tools
}

# Ends what was started beside containerd and left its number in DIR/NAME.pid, as an agent does. A
# process that does not have the folder on its command line is another one that got the number.
end_companions() {
    local file pid tries
    for file in "$dir"/*.pid; do
        if [ ! -f "$file" ] || [ "$file" = "$dir/containerd.pid" ]; then continue; fi
        pid=$(cat "$file")
        case $pid in "" | *[!0-9]*) continue ;; esac
        for ((tries = 0; tries < 50; tries++)); do
            case $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" || true) in *"$dir/"*) ;; *) break ;; esac
            [ "$tries" -ne 0 ] || kill -TERM "$pid" 2>/dev/null || true
            [ "$tries" -lt 30 ] || kill -KILL "$pid" 2>/dev/null || true
            sleep 0.1
        done
    done
}

# Ends containers by the own lists of runc and crun and shims by the socket that they were started for: that also
# works when containerd has crashed or hangs, and can only ever meet what was started from this folder.
end_processes() {
    local pid program tool container link
    if alive; then
        pid=$(pid_of)
        kill -TERM "$pid" 2>/dev/null || true
        kill -CONT "$pid" 2>/dev/null || true # one that was stopped could not end
        local tries
        for ((tries = 0; tries < 50; tries++)); do
            alive || break
            sleep 0.1
        done
        if alive; then kill -KILL "$pid" 2>/dev/null || true; fi
    fi
    for program in runc crun; do
        tool=$here/crun.sh
        if [ "$program" = runc ]; then tool=$(sed -n 's/^RUNC=//p' "$dir/env" 2>/dev/null); fi
        [ -x "$tool" ] || tool=$program
        for container in "$dir/$program"/*/*/; do
            [ -d "$container" ] || continue
            "$tool" --root "$(dirname "$container")" delete --force "$(basename "$container")" >>"$dir/containerd.log" 2>&1 || true
        done
    done
    for link in /proc/[0-9]*; do
        [ "$(cut -d '' -f1 "$link/comm" 2>/dev/null)" = containerd-shim ] || continue
        if tr '\0' '\n' <"$link/cmdline" 2>/dev/null | grep -A1 -x -- -address | grep -qxF -- "$socket"; then
            kill -KILL "${link#/proc/}" 2>/dev/null || true
        fi
    done
    # Shims listen in a folder that all containerds share; theirs are named in their own state.
    { grep -rhoE --include=address --include=bootstrap.json '/run/containerd/s/[0-9a-f]+' "$dir/state" 2>/dev/null || true; } | sort -u |
        while read -r link; do rm -f "$link"; done
}

stop() {
    [ -e "$dir" ] || { locked unregister; return 0; }
    [ -e "$marker" ] || die "$dir is not a private containerd's folder: left as it is"
    local sandbox
    end_companions
    end_processes
    remove_cgroups
    release_ports
    for sandbox in "$dir"/root/io.containerd.grpc.v1.cri/sandboxes/*/; do
        [ -d "$sandbox" ] || continue
        sandbox=$(basename "$sandbox")
        rm -f /var/lib/cni/results/*-"$sandbox"-* /var/lib/cni/cache/*-"$sandbox"-*
    done
    rm -f "/var/lib/cni/results/$network"-* "/var/lib/cni/cache/$network"-*
    unmount_all
    if ip link show "$bridge" >/dev/null 2>&1; then ip link delete "$bridge"; fi
    locked unregister
    # What was killed may write a last time.
    wait_for 10 rm -rf --one-file-system "$dir" || rm -rf --one-file-system "$dir"
}

become_root "${BASH_SOURCE[0]}" "$@"
case ${1:-} in
start) names "${2:-}" && start ;;
resume)
    names "${2:-}" && load
    alive || launch || die "containerd could not be started again in $dir: see the lines above"
    ;;
images) names "${2:-}" && load && import_images ;;
status)
    names "${2:-}"
    [ ! -s "$dir/env" ] || cat "$dir/env"
    alive || exit 3
    ;;
stop)
    names "${2:-}"
    cni=$(cni_bin_dir || true)
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    stop
    ;;
gc) stop_orphans "$registry" ;;
*) usage ;;
esac
