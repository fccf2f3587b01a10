#!/usr/bin/env bash
# A node of its own, for the tests of what changes a whole machine: systemd as the first process of a container
# (systemd-nspawn) on an overlay of this machine's root, and in it Debian's Docker, containerd and a real kubelet
# 1.20 as kubeadm sets it up, with a static pod `web`. What is changed in it stays in it. It shares the kernel with
# this machine and nothing else: its root, processes, network and cgroups are its own.
#
#   hack/machine.sh start DIR [OPTION...]  makes and boots one, waits until its pod serves, and prints what it is
#                                          as KEY=VALUE lines (also in DIR/env)
#       --containerd 1|2                   this machine's containerd, or the one of hack/containerd2.sh
#       --config docker|debian|none        whose /etc/containerd/config.toml it has (default: docker)
#       --program FILE                     is /usr/local/bin/nodectl there
#       --cluster yes|no                   whether it is a node of a cluster, with an API server on itself
#       --kubelet 1.20|1.N                 its kubelet's version: 1.20 is the real one with its dockershim; a later one
#                                          is a stand-in (see machine-kubelet.sh), on a stand-in of cri-dockerd
#   hack/machine.sh run DIR COMMAND...     runs a command in it, with its exit code
#   hack/machine.sh crash DIR              cuts its power: no process of it gets to do anything more
#   hack/machine.sh boot DIR               boots it again on the disk that it had, and waits for systemd alone
#   hack/machine.sh wait DIR               waits until its pod serves, and in a cluster the node is Ready
#   hack/machine.sh containerd DIR 1|2     puts the programs of that containerd in the place of those it has, as an
#                                          upgrade of the package does; what runs goes on
#   hack/machine.sh status DIR             prints DIR/env; exit 0 if it runs, 3 if not
#   hack/machine.sh stop DIR               cuts its power and removes all that it was
#   hack/machine.sh gc                     stops those whose owner (NODECTL_OWNER) has died
#
# Its disk is in memory (at most 1.8 GB), and so outlives its power, but not this machine's.
#
# environment: NODECTL_OWNER   pid of the process that it is for; see gc
#              NODECTL_IMAGES  folder of hack/images.sh (default: target/images)
set -Eeuo pipefail
export LC_ALL=C
trap 'printf "machine.sh: line %s failed: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
# shellcheck source=hack/machine-disk.sh
. "$here/machine-disk.sh"
# shellcheck source=hack/pki.sh
. "$here/pki.sh"
# shellcheck source=hack/machine-cluster.sh
. "$here/machine-cluster.sh"
# shellcheck source=hack/machine-kubelet.sh
. "$here/machine-kubelet.sh"

# Who runs.
registry=/run/nodectl-machines
# How long a machine may take to boot, and its pod to serve, in seconds.
patience=120

usage() {
    sed -n '/^#   hack/,/^# Its disk/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" | sed '$d' >&2
    exit 2
}

# names DIR: sets what follows from the folder's path alone.
names() {
    case $1 in
    "") usage ;;
    *[!A-Za-z0-9/._-]*) die "$1: only letters, digits and ._- may be in the path" ;;
    esac
    dir=$(readlink -m "$1")
    machine_id=$(printf '%s' "$dir" | sha256sum | cut -c1-32)
    name=nodectl-${machine_id:0:8}
    disk=$dir/disk
    root=$dir/root
    marker=$dir/.nodectl-machine
    cgroup=/$name
}

tools() {
    local tool
    for tool in systemd-nspawn:systemd-container nsenter:util-linux ip:iproute2 iptables:iptables jq:jq openssl:openssl setsid:util-linux containerd:containerd ctr:containerd containerd-shim-runc-v2:containerd runc:runc; do
        find_tool "${tool%%:*}" >/dev/null || die "${tool%%:*} is missing (package ${tool##*:}); run hack/deps.sh"
    done
    [ -x /lib/systemd/systemd ] || die "/lib/systemd/systemd is missing (package systemd); run hack/deps.sh"
    cni=$(cni_bin_dir) || die "the CNI plugins bridge, host-local, portmap and loopback are missing (package containernetworking-plugins); run hack/deps.sh"
    images=${NODECTL_IMAGES:-$here/../target/images}
    "$here/images.sh" "$images"
    kubernetes=$("$here/kubernetes120.sh")
    docker=$("$here/docker.sh")
    containerd2=$("$here/containerd2.sh")
}

# ---- processes ------------------------------------------------------------------------------------

# Processes of the machine, and systemd-nspawn and those of `run`, which wait for them.
pids() {
    local hierarchy
    cgroup_mounts | while read -r hierarchy; do
        [ ! -d "$hierarchy$cgroup" ] || find "$hierarchy$cgroup" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done | sort -un
}

# leader: the machine's first process: the only one that is the first in the first namespace below ours.
leader() {
    local pid
    for pid in $(pids); do
        if grep -qE '^NSpid:[[:space:]]+[0-9]+[[:space:]]+1$' "/proc/$pid/status" 2>/dev/null; then
            printf '%s\n' "$pid"
            return 0
        fi
    done
    return 1
}

# make_cgroup FOLDER: cpuset of v1 starts empty, and an empty one takes no process.
make_cgroup() {
    local file
    mkdir -p "$1"
    for file in cpuset.cpus cpuset.mems; do
        if [ -f "$1/$file" ] && [ ! -e "$1/cgroup.controllers" ]; then cat "$(dirname "$1")/$file" >"$1/$file"; fi
    done
}

# join [NAME]: this process goes into the machine's cgroup, or into one of this name in it, in all hierarchies.
# systemd-nspawn gives the machine a part of it in those that systemd knows processes by.
join() {
    local hierarchy folder
    while read -r hierarchy; do
        folder=$hierarchy$cgroup
        [ -d "$folder" ] || make_cgroup "$folder"
        if [ -n "${1:-}" ]; then
            [ ! -d "$folder/payload" ] || folder=$folder/payload
            folder=$folder/$1
            [ -d "$folder" ] || make_cgroup "$folder"
        fi
        printf '%s\n' "$BASHPID" >"$folder/cgroup.procs"
    done < <(cgroup_mounts)
}

# A process that is ended is in its cgroup for a moment longer than it is listed there.
remove_cgroups() {
    local hierarchy try
    cgroup_mounts | while read -r hierarchy; do
        for ((try = 1; try <= 100; try++)); do
            [ -d "$hierarchy$cgroup" ] || break
            if find "$hierarchy$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null; then break; fi
            [ "$try" -lt 100 ] || die "$hierarchy$cgroup cannot be removed"
            sleep 0.1
        done
    done
}

enter() { # enter COMMAND...: in the machine, instead of this process
    local pid
    pid=$(leader) || die "$dir: the machine does not run; 'hack/machine.sh boot $dir' boots it"
    join nodectl-run
    exec nsenter -t "$pid" -a -- /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LANG=C.UTF-8 USER=root LOGNAME=root "$@"
}
inside() { (enter "$@" </dev/null); }

# ---- boot -----------------------------------------------------------------------------------------

booted() {
    case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) ;; *) return 1 ;; esac
}

boot() {
    local program end=$((SECONDS + patience)) binds=()
    if leader >/dev/null; then return 0; fi
    if [ "$(sed -n 's/^PROGRAM=//p' "$dir/env")" != '' ]; then
        program=$(sed -n 's/^PROGRAM=//p' "$dir/env")
        binds+=("--bind-ro=$program:/usr/local/bin/nodectl")
    fi
    if [ "$cluster" = yes ]; then
        for program in etcd kube-apiserver kubectl; do binds+=("--bind-ro=$kubernetes/$program:/usr/local/bin/$program"); done
    fi
    if [ "$kubelet" = 1.20 ]; then
        binds+=("--bind-ro=$kubernetes/kubelet:/usr/bin/kubelet")
    else
        binds+=("--bind-ro=$kubernetes/kubelet:$kubelet120")
    fi
    # The runc of containerd 2.x looks for its C library there.
    if [ -d "$containerd2/../lib" ]; then binds+=("--bind-ro=$(readlink -f "$containerd2/../..")"); fi
    (
        join
        # Without a cgroup driver of its own the machine's would be ours, and so would its units' names.
        exec setsid systemd-nspawn --quiet --directory="$root" --machine="$name" --uuid="$machine_id" --hostname=node1 \
            --register=no --keep-unit --private-network --capability=all --system-call-filter='@keyring bpf' \
            --resolv-conf=off --timezone=off --link-journal=no --console=pipe --kill-signal=SIGRTMIN+3 \
            --bind="$disk/docker:/var/lib/docker" --bind="$disk/containerd:/var/lib/containerd" --bind="$disk/kubelet:/var/lib/kubelet" \
            --bind-ro="$docker/usr/sbin/dockerd:/usr/sbin/dockerd" --bind-ro="$docker/usr/sbin/docker-proxy:/usr/sbin/docker-proxy" \
            --bind-ro="$docker/usr/bin/docker:/usr/bin/docker" --bind-ro="$cni:/opt/cni/bin" \
            --bind-ro="$here/machine-init.sh:/run/nodectl-machine/init" --bind-ro="$disk/images:/run/nodectl-machine/images" \
            ${binds[0]+"${binds[@]}"} /bin/sh /run/nodectl-machine/init
    ) </dev/null >>"$dir/console.log" 2>&1 &
    while [ "$SECONDS" -lt "$end" ]; do
        if booted; then return 0; fi
        if ! kill -0 $! 2>/dev/null; then break; fi
        sleep 0.1
    done
    complain "the machine did not boot within $patience s"
}

# serves: its pod answers. The address is the node's own: a port that a pod has there.
serves() { [ "$(inside busybox timeout 2 busybox wget -q -O - http://192.168.77.10:8080/ 2>/dev/null || true)" = web-node1 ]; }

complain() {
    {
        tail -n 20 "$dir/console.log"
        inside systemctl --no-pager --failed || true
        inside journalctl --no-pager -n 30 -o cat -u docker -u cri-docker -u containerd -u kubelet -u kube-apiserver -u etcd || true
    } >&2
    say "machine.sh: $dir: $1"
    return 1
}

wait_pod() {
    local end=$((SECONDS + patience))
    until serves && { [ "$cluster" = no ] || ready; }; do
        if [ "$SECONDS" -ge "$end" ]; then
            complain "its pod did not serve, or the node was not Ready, within $patience s"
            return 1
        fi
        sleep 0.1
    done
}

# ---- the whole machine ----------------------------------------------------------------------------

start() {
    if leader >/dev/null; then
        cat "$dir/env"
        return 0
    fi
    if [ -d "$dir" ] && [ ! -e "$marker" ] && [ -n "$(ls -A "$dir")" ]; then
        die "$dir is not empty and not a machine's folder: it would be removed at the end"
    fi
    [ ! -e "$marker" ] || stop
    tools
    mkdir -p "$dir" "$registry/$name"
    chmod 0711 "$dir"
    : >"$marker"
    printf '%s\n' "$dir" >"$registry/$name/dir"
    [ -z "${NODECTL_OWNER:-}" ] || printf '%s %s\n' "$NODECTL_OWNER" "$(born "$NODECTL_OWNER")" >"$registry/$name/owner"
    if ! { mount_disk && make_disk && describe && boot && wait_pod; }; then
        stop
        die "the machine could not be started in $dir: see the lines above"
    fi
    cat "$dir/env"
}

mount_disk() {
    mkdir -p "$disk" "$root"
    mount -t tmpfs -o size=1800m,mode=0711 "$name" "$disk"
    mkdir "$disk"/{upper,work,docker,containerd,kubelet,images}
    chmod 0755 "$disk"/{upper,images}
    mount -t overlay -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$name" "$root"
}

describe() {
    cat >"$dir/env" <<ENV
DIR=$dir
NAME=$name
ROOT=$root
CGROUP=$cgroup
CONTAINERD=$release
CONTAINERD_CONFIG=$config
PROGRAM=$program
CLUSTER=$cluster
KUBELET=$kubelet
CONSOLE=$dir/console.log
ENV
}

# The first process goes first: with it the kernel ends all others of the machine.
crash() {
    local pid try lock
    lock=/run/systemd/nspawn/locks/inode-$(stat -c %d:%i "$root" 2>/dev/null || true)
    if pid=$(leader); then kill -KILL "$pid" 2>/dev/null || true; fi
    for ((try = 0; try < 600; try++)); do
        if [ -z "$(pids)" ]; then break; fi
        pids | while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done
        sleep 0.1
    done
    [ -z "$(pids)" ] || die "$dir: processes of the machine do not end: $(pids | tr '\n' ' ')"
    remove_cgroups
    rmdir "/run/systemd/nspawn/propagate/$name" 2>/dev/null || true
    rm -f "$lock"
}

stop() {
    [ -e "$dir" ] || { rm -rf "${registry:?}/$name"; return 0; }
    [ -e "$marker" ] || die "$dir is not a machine's folder: left as it is"
    local point
    crash
    for point in "$root" "$disk"; do
        ! mountpoint -q "$point" || umount "$point" || umount -l "$point"
    done
    rm -rf "${registry:?}/$name"
    rmdir "$registry" 2>/dev/null || true
    rm -rf --one-file-system "$dir"
}

# existing DIR: one that `start` has made
existing() {
    names "$1"
    [ -s "$dir/env" ] || die "$dir has no machine; 'hack/machine.sh start $dir' makes one"
    release=$(sed -n 's/^CONTAINERD=//p' "$dir/env")
    config=$(sed -n 's/^CONTAINERD_CONFIG=//p' "$dir/env")
    program=$(sed -n 's/^PROGRAM=//p' "$dir/env")
    cluster=$(sed -n 's/^CLUSTER=//p' "$dir/env")
    kubelet=$(sed -n 's/^KUBELET=//p' "$dir/env")
}

become_root "${BASH_SOURCE[0]}" "$@"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
verb=${1:-}
[ "$#" -eq 0 ] || shift
case $verb in
start)
    names "${1:-}"
    shift
    release=1 config=docker program='' cluster=no kubelet=1.20
    while [ "$#" -gt 0 ]; do
        case $1:${2:-} in
        --containerd:1 | --containerd:2) release=$2 ;;
        --config:docker | --config:debian | --config:none) config=$2 ;;
        --program:/*) program=$2 ;;
        --cluster:yes | --cluster:no) cluster=$2 ;;
        --kubelet:1.20 | --kubelet:1.2[4-9] | --kubelet:1.3[0-9]) kubelet=$2 ;;
        *) usage ;;
        esac
        shift 2
    done
    if [ "$kubelet" != 1.20 ] && { [ -z "$program" ] || [ "$cluster" = yes ]; }; then
        die "a kubelet $kubelet is a stand-in: it needs --program, and is in no cluster"
    fi
    start
    ;;
run)
    names "${1:-}"
    shift
    [ "$#" -gt 0 ] || usage
    enter "$@"
    ;;
crash) existing "${1:-}" && crash ;;
boot)
    existing "${1:-}"
    tools
    boot
    ;;
wait) existing "${1:-}" && wait_pod ;;
containerd)
    existing "${1:-}"
    case ${2:-} in 1 | 2) ;; *) usage ;; esac
    tools
    install_containerd "$2"
    ;;
status)
    names "${1:-}"
    [ ! -s "$dir/env" ] || cat "$dir/env"
    leader >/dev/null || exit 3
    ;;
stop) names "${1:-}" && stop ;;
gc) stop_orphans "$registry" ;;
*) usage ;;
esac
