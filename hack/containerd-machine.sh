# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables are set by names() and tools() of hack/containerd.sh
# What a private containerd takes of the machine and gives back: addresses and a bridge, port rules,
# cgroups, mounts. Sourced by hack/containerd.sh.

# ---- network --------------------------------------------------------------------------------------

# The bridge is made here and not by the CNI plugin, for two reasons: an address range counts as taken
# as soon as it is there, and a plugin that is no gateway does not switch on the machine's IP forwarding.
claim_network() {
    local n try
    if ip link show "$bridge" >/dev/null 2>&1; then ip link delete "$bridge"; fi
    n=$((16#${id:0:6} % 1024))
    for ((try = 0; try < 1024; try++, n = (n + 1) % 1024)); do
        net=10.$((208 + n / 64)).$((n % 64 * 4))
        if [ -z "$(ip -4 route show table all root "$net.0/22"; ip -4 route show table all match "$net.0/22" | grep -vE '^(default|0\.0\.0\.0/0)')" ]; then
            ip link add "$bridge" type bridge || die "the bridge $bridge cannot be made: this kernel or container does not allow it"
            ip addr add "$net.1/22" dev "$bridge"
            ip link set "$bridge" up
            printf '%s\n' "$net" >"$dir/net"
            return 0
        fi
    done
    die "no free address range is left in 10.208.0.0/12"
}

hostport_chains() { { "$1" -w -t nat -S 2>/dev/null || true; } | sed -n 's/^-N \(CNI-HOSTPORT-[A-Z]*\)$/\1/p'; }

register() {
    local folder command
    if [ -z "$(find "$registry" -mindepth 1 -maxdepth 1 -type d -print -quit)" ]; then
        # The first one: note what is there already, so that the last one knows what was ours.
        for folder in "${shared_folders[@]}"; do if [ -d "$folder" ]; then printf '%s\n' "$folder"; fi; done >"$registry/before"
        for command in iptables ip6tables; do hostport_chains "$command"; done | sort -u >>"$registry/before"
        cgroup_mounts | while read -r folder; do if [ -d "$folder/k8s.io" ]; then echo cgroup; fi; done | sort -u >>"$registry/before"
    fi
    mkdir -p "$registry/$id"
    printf '%s\n' "$dir" >"$registry/$id/dir"
    [ -z "${NODECTL_OWNER:-}" ] || printf '%s %s\n' "$NODECTL_OWNER" "$(born "$NODECTL_OWNER")" >"$registry/$id/owner"
    claim_network
}

unregister() {
    local folder command chain rule
    rm -rf "${registry:?}/$id"
    [ -f "$registry/before" ] || return 0
    [ -z "$(find "$registry" -mindepth 1 -maxdepth 1 -type d -print -quit)" ] || return 0
    # The last one: what was not there before the first one goes, if nothing of others is in it.
    for folder in "${shared_folders[@]}"; do
        grep -qxF "$folder" "$registry/before" || rmdir "$folder" 2>/dev/null || true
    done
    for command in iptables ip6tables; do
        find_tool "$command" >/dev/null || continue
        case $("$command" -w -t nat -S 2>/dev/null || true) in *'-j CNI-DN-'*) continue ;; esac
        hostport_chains "$command" | while read -r chain; do
            if grep -qxF "$chain" "$registry/before"; then continue; fi
            "$command" -w -t nat -S | sed -nE "/^-A (PREROUTING|OUTPUT|POSTROUTING) .*-j $chain\$/s/^-A/-D/p" |
                while read -r rule; do printf '%s\n' "$rule" | xargs "$command" -w -t nat || true; done
            "$command" -w -t nat -F "$chain" || true
        done
        hostport_chains "$command" | while read -r chain; do
            grep -qxF "$chain" "$registry/before" || "$command" -w -t nat -X "$chain" 2>/dev/null || true
        done
    done
    if ! grep -qx cgroup "$registry/before"; then
        cgroup_mounts | while read -r folder; do rmdir "$folder/k8s.io" 2>/dev/null || true; done
    fi
    rm -f "$registry/before"
}

# Port mappings of pods that were not stopped in order: the plugin itself takes them back. It looks at
# the container's identifier only, but does nothing unless it is told of at least one mapping.
release_ports() {
    local container
    { iptables -w -t nat -S 2>/dev/null || true; } | sed -n "s/.*name: .*$network.* id: [^0-9a-zA-Z]*\([0-9a-zA-Z]*\).*/\1/p" | sort -u |
        while read -r container; do
            printf '{"cniVersion":"0.4.0","name":"%s","type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"protocol":"tcp"}]}}' "$network" |
                CNI_COMMAND=DEL CNI_CONTAINERID=$container CNI_NETNS='' CNI_IFNAME=eth0 CNI_PATH=$cni "$cni/portmap" >/dev/null ||
                say "containerd.sh: the port mappings of $container could not be removed"
        done
}

# ---- cgroups and mounts ---------------------------------------------------------------------------

# The cgroup that an agent is given as its root must be there before it. cpuset of v1 starts empty, and
# an empty one takes no process.
make_cgroups() {
    local mount file
    cgroup_mounts | while read -r mount; do
        mkdir -p "$mount$cgroup_root"
        for file in cpuset.cpus cpuset.mems; do
            if [ -f "$mount$cgroup_root/$file" ] && [ ! -e "$mount/cgroup.controllers" ]; then cat "$mount/$file" >"$mount$cgroup_root/$file"; fi
        done
    done
}

remove_cgroups() {
    local mount pid try
    cgroup_mounts | while read -r mount; do
        [ -d "$mount$cgroup_root" ] || continue
        for try in 1 2 3 4 5 6 7 8 9 10; do
            find "$mount$cgroup_root" -name cgroup.procs -exec cat {} + 2>/dev/null |
                while read -r pid; do kill -KILL "$pid" 2>/dev/null || true; done
            find "$mount$cgroup_root" -depth -type d -exec rmdir {} + 2>/dev/null && break
            [ "$try" -lt 10 ] || say "containerd.sh: $mount$cgroup_root could not be removed"
            sleep 0.1
        done
    done
}

mounts_below() { # mounts_below FOLDER: innermost last mounted first
    awk -v folder="$1/" 'index($5, folder) == 1 { print $5 }' /proc/self/mountinfo | tac
}

unmount_all() {
    local point try
    for try in 1 2 3; do
        mounts_below "$dir" | while read -r point; do
            point=$(printf '%b' "$point")
            umount "$point" 2>/dev/null || umount -l "$point" 2>/dev/null || true
        done
        [ -n "$(mounts_below "$dir")" ] || return 0
        [ "$try" -lt 3 ] || die "still mounted: $(mounts_below "$dir" | tr '\n' ' ')"
    done
}
