# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables are set by names() and tools() of hack/containerd.sh
# The configuration of a private containerd and of its network. Sourced by hack/containerd.sh.

# Overlay on overlay (a container, say) does not work everywhere; copying always does.
pick_snapshotter() {
    local probe=$dir/probe answer=native
    mkdir -p "$probe"/{lower,upper,work,merged}
    if mount -t overlay overlay -o "lowerdir=$probe/lower,upperdir=$probe/upper,workdir=$probe/work" "$probe/merged" 2>/dev/null; then
        umount "$probe/merged"
        answer=overlayfs
    fi
    rm -rf "$probe"
    printf '%s\n' "$answer"
}

# crun_handler PLUGIN: the handler "crun": the shim of runc with another program.
crun_handler() {
    cat <<CRUN
[plugins."$1".containerd.runtimes.crun]
  runtime_type = "io.containerd.runc.v2"
[plugins."$1".containerd.runtimes.crun.options]
  BinaryName = "$here/crun.sh"
  Root = "$dir/crun"
  SystemdCgroup = $systemd
CRUN
}

configure() {
    local version=$1 restrict=false systemd=false defaults bins net crun runc
    # A newer runc beside a newer containerd (hack/containerd2.sh), else the machine's.
    runc=$(dirname "$containerd")/../sbin/runc
    [ -x "$runc" ] || runc=$(command -v runc) || true
    net=$(cat "$dir/net")
    if lacks_sys_resource; then restrict=true; fi
    if [ "${NODECTL_CGROUP_DRIVER:-cgroupfs}" = systemd ]; then systemd=true; fi
    snapshotter=$(pick_snapshotter)
    mkdir -p "$dir/cni/net.d" "$dir/cni/ipam" "$dir/root" "$dir/state" "$dir/runc"
    # A second handler, where there is one: what a runtime class names.
    crun=$(find_tool crun || true)
    [ -z "$crun" ] || mkdir -p "$dir/crun"
    cat >"$dir/cni/net.d/10-nodectl.conflist" <<CNI
{
  "cniVersion": "0.4.0",
  "name": "$network",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "$bridge",
      "isGateway": false,
      "ipMasq": false,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "dataDir": "$dir/cni/ipam",
        "ranges": [[{ "subnet": "$net.0/22", "gateway": "$net.1" }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }
  ]
}
CNI
    {
        if [ "$version" -ge 2 ]; then echo 'version = 3'; else echo 'version = 2'; fi
        cat <<COMMON
root = "$dir/root"
state = "$dir/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.differ.v1.erofs", "io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "$socket"

[plugins."io.containerd.internal.v1.opt"]
  path = "$dir/root/opt"

[plugins."io.containerd.nri.v1.nri"]
  disable = true

COMMON
        if [ "$version" -ge 2 ]; then
            defaults=$("$containerd" config default)
            bins="bin_dir = \"$cni\""
            case $defaults in *bin_dirs*) bins="bin_dirs = [\"$cni\"]" ;; esac
            cat <<TWO
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "$snapshotter"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/nodectl/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = $restrict
  netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
  $bins
  conf_dir = "$dir/cni/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  BinaryName = "$runc"
  Root = "$dir/runc"
  SystemdCgroup = $systemd
TWO
            [ -z "$crun" ] || crun_handler io.containerd.cri.v1.runtime
        else
            cat <<ONE
[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  sandbox_image = "localhost/nodectl/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = $restrict
  netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "$cni"
  conf_dir = "$dir/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "$snapshotter"
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  Root = "$dir/runc"
  SystemdCgroup = $systemd
ONE
            [ -z "$crun" ] || crun_handler io.containerd.grpc.v1.cri
        fi
    } >"$dir/config.toml"
    cat >"$dir/env" <<ENV
DIR=$dir
CONTAINERD_BIN=$containerd
CONTAINERD_VERSION=$full_version
CONTAINERD_ADDRESS=$socket
CTR=$(command -v ctr)
SNAPSHOTTER=$snapshotter
CGROUP_ROOT=$cgroup_root
RUNC=$runc
RUNC_ROOT=$dir/runc
CRUN_ROOT=${crun:+$dir/crun}
BRIDGE=$bridge
SUBNET=$net.0/22
GATEWAY=$net.1
NETWORK=$network
CNI_CONF_DIR=$dir/cni/net.d
CNI_BIN_DIR=$cni
PID_FILE=$dir/containerd.pid
LOG=$dir/containerd.log
ENV
}
