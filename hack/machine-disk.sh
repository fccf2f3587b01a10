# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables are set by names() and tools() of hack/machine.sh
# What is on the disk of a machine of hack/machine.sh: the files of a Docker node as Debian's docker.io and the
# packages of kubeadm 1.20 leave them. Sourced by hack/machine.sh.

# put PATH [MODE]: a file of the machine from stdin.
put() {
    mkdir -p "$(dirname "$root/$1")"
    cat >"$root/$1"
    chmod "${2:-0644}" "$root/$1"
}

# install_containerd 1|2: the programs of that release as the machine's own.
install_containerd() {
    local program from
    for program in bin/containerd bin/containerd-shim-runc-v2 bin/ctr sbin/runc; do
        case $1 in
        1) from=$(find_tool "${program##*/}") ;;
        2) from=$containerd2/../$program ;;
        esac
        # Written beside it and moved there: the old one may be running.
        cp "$from" "$root/usr/$program.new"
        mv "$root/usr/$program.new" "$root/usr/$program"
    done
    ! lacks_sys_resource || wrap_runc
}

# Without CAP_SYS_RESOURCE nobody may lower an oom_score_adj, as the -998 of kubelet's sandboxes on Docker does,
# and neither Docker nor kubelet 1.20 can be told to leave it. containerd's CRI can (restrict_oom_score_adj), so
# that this runc takes it out for Docker's containers alone.
wrap_runc() {
    mv "$root/usr/sbin/runc" "$root/usr/sbin/runc.real"
    put usr/sbin/runc 0755 <<'RUNC'
#!/bin/sh
case " $* " in
*/runtime-runc/moby\ *\ create\ *)
    previous=
    for word; do
        case $previous in --bundle | -b) sed -i 's/"oomScoreAdj":-[0-9]*/"oomScoreAdj":0/' "$word/config.json" ;; esac
        previous=$word
    done
    ;;
esac
exec /usr/sbin/runc.real "$@"
RUNC
}

# The machine's root is the one of this machine without what is set up on it.
clear_disk() {
    rm -rf "$root"/etc/{systemd/system,init.d,containerd,cni,docker,kubernetes,crictl.yaml,fstab,default/kubelet,default/docker} \
        "$root"/etc/rc?.d "$root"/var/{log/journal,log/pods,log/containers,lib/cni} "$root"/usr/local/bin/{docker,nodectl} "$root"/opt/cni
    mkdir -p "$root/etc/systemd/system"/{multi-user,sockets}.target.wants
    # Its own, as an empty one asks systemd for the set-up of a new machine.
    printf '%s\n' "$machine_id" | put etc/machine-id 0444
    printf 'node1\n' | put etc/hostname
    printf '127.0.0.1 localhost\n192.168.77.10 node1\n' | put etc/hosts
    # Nobody answers there, at once.
    rm -f "$root/etc/resolv.conf"
    printf 'nameserver 127.0.0.1\n' | put etc/resolv.conf
    : | put etc/.updated
    : | put var/.updated
}

docker_files() {
    local unit library
    for unit in docker.service docker.socket; do put "lib/systemd/system/$unit" <"$docker/lib/systemd/system/$unit"; done
    put etc/default/docker <"$docker/etc/default/docker"
    mkdir -p "$root/etc/docker"
    grep -q '^docker:' "$root/etc/group" || printf 'docker:x:997:\n' >>"$root/etc/group"
    enable_unit docker.service multi-user
    enable_unit docker.socket sockets
    # Part of a Debian that has Docker, but not of every one without.
    for library in "$docker"/lib/*/libdevmapper.so.* "$docker"/usr/lib/*/libdevmapper.so.*; do
        if [ -f "$library" ] && ! [ -e "$root/${library#"$docker/"}" ]; then put "${library#"$docker/"}" <"$library"; fi
    done
}

enable_unit() { ln -s "/lib/systemd/system/$1" "$root/etc/systemd/system/$2.target.wants/$1"; }

containerd_files() {
    local restrict=false
    if lacks_sys_resource; then restrict=true; fi
    enable_unit containerd.service multi-user
    case $config in
    # As the package containerd.io of Docker has it, whose CRI is off.
    docker)
        put etc/containerd/config.toml <<'TOML'
#   Copyright 2018-2022 Docker Inc.

disabled_plugins = ["cri"]

#root = "/var/lib/containerd"
#state = "/run/containerd"
#subreaper = true
#oom_score = 0

#[grpc]
#  address = "/run/containerd/containerd.sock"
#  uid = 0
#  gid = 0

#[debug]
#  address = "/run/containerd/debug.sock"
#  uid = 0
#  gid = 0
#  level = "info"
TOML
        "$restrict" || return 0
        # A file without a version is of version 1, which containerd 1.x reads so; 2.x takes its own key as well.
        if [ "$release" = 2 ]; then
            printf '\n[plugins."io.containerd.cri.v1.runtime"]\n'
        else
            printf '\n[plugins.cri]\n'
        fi >>"$root/etc/containerd/config.toml"
        printf '  # This machine may not lower an oom_score_adj.\n  restrict_oom_score_adj = true\n' >>"$root/etc/containerd/config.toml"
        ;;
    # As Debian's package has it.
    debian)
        put etc/containerd/config.toml <<TOML
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    # This machine may not lower an oom_score_adj.
    restrict_oom_score_adj = $restrict
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.internal.v1.opt"]
    path = "/var/lib/containerd"
TOML
        "$restrict" || sed -i '/oom_score_adj/d' "$root/etc/containerd/config.toml"
        ;;
    none) ;;
    esac
}

kubelet_files() {
    local driver=cgroupfs
    # Docker's own choice, which kubeadm 1.20 asks it for.
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then driver=systemd; fi
    put lib/systemd/system/kubelet.service <<'UNIT'
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/home/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
UNIT
    # Without an API server: kubeadm's line has --bootstrap-kubeconfig and --kubeconfig (see machine-cluster.sh).
    put etc/systemd/system/kubelet.service.d/10-kubeadm.conf <<'UNIT'
# Note: This dropin only works with kubeadm and kubelet v1.11+
[Service]
Environment="KUBELET_KUBECONFIG_ARGS="
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# This is a file that "kubeadm init" and "kubeadm join" generates at runtime, populating the KUBELET_KUBEADM_ARGS variable dynamically
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
# This is a file that the user can use for overrides of the kubelet args as a last resort. Preferably, the user should use
# the .NodeRegistration.KubeletExtraArgs object in the configuration files instead. KUBELET_EXTRA_ARGS should be sourced from this file.
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
UNIT
    enable_unit kubelet.service multi-user
    printf 'KUBELET_EXTRA_ARGS=\n' | put etc/default/kubelet
    printf 'KUBELET_KUBEADM_ARGS="--network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.2"\n' | put_kubelet kubeadm-flags.env
    # As kubeadm writes it, but that nobody is asked who a caller is: there is no API server to ask.
    put_kubelet config.yaml <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  webhook:
    cacheTTL: 0s
    enabled: false
authorization:
  mode: AlwaysAllow
cgroupDriver: $driver
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
cpuManagerReconcilePeriod: 0s
evictionPressureTransitionPeriod: 0s
failSwapOn: false
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMinimumGCAge: 0s
kind: KubeletConfiguration
logging: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
readOnlyPort: 10255
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
YAML
    put etc/kubernetes/manifests/web.yaml <<'YAML'
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: default
  labels:
    app: web
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - name: httpd
    image: localhost/nodectl/busybox:1
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "trap 'exit 0' TERM; hostname >/tmp/index.html; httpd -f -p 80 -h /tmp & wait"]
    ports:
    - containerPort: 80
      hostPort: 8080
YAML
    put etc/cni/net.d/10-bridge.conflist <<'JSON'
{
  "cniVersion": "0.3.1",
  "name": "bridge",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{ "subnet": "10.244.0.0/24" }]],
        "routes": [{ "dst": "0.0.0.0/0" }]
      }
    },
    { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true }
  ]
}
JSON
}

# put_kubelet NAME: a file of /var/lib/kubelet, which is a folder of its own (see disk).
put_kubelet() {
    cat >"$disk/kubelet/$1"
    chmod 0644 "$disk/kubelet/$1"
}

# docker_archive ARCHIVE NAME...: an archive of hack/images.sh with the list that `docker load` of 20.10 reads, which
# does not know OCI's. NAME=REFERENCE... are the names it is to have; without any, those of the archive.
docker_archive() {
    local archive=$1 folder manifest entry names
    shift
    folder=$disk/images/work
    mkdir -p "$folder"
    tar -xf "$images/$archive.tar" -C "$folder"
    jq -r '.manifests[] | .digest[7:] + " " + .annotations["io.containerd.image.name"]' "$folder/index.json" |
        while read -r manifest entry; do
            names=$(printf '%s\n' "$entry" "$@" | jq -R . | jq -sc .)
            jq --argjson names "$names" '{ Config: ("blobs/sha256/" + .config.digest[7:]), RepoTags: $names, Layers: [.layers[].digest | "blobs/sha256/" + .[7:]] }' \
                "$folder/blobs/sha256/$manifest"
        done | jq -s . >"$folder/manifest.json"
    tar -cf "$disk/images/$archive.tar" -C "$folder" .
    rm -rf "$folder"
}

make_disk() {
    clear_disk
    docker_files
    if [ "$release" = 2 ]; then
        install_containerd 2
    elif lacks_sys_resource; then
        wrap_runc
    fi
    containerd_files
    kubelet_files
    [ "$cluster" = no ] || cluster_files
    [ "$kubelet" = 1.20 ] || later_kubelet_files
    docker_archive pause k8s.gcr.io/pause:3.2
    docker_archive busybox
}
