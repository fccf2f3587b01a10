# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables are set by names() and tools() of hack/machine.sh
# A machine's kubelet of 1.24 and later, which nobody packages as a program or as a source that builds one: a
# stand-in for it, and one for the cri-dockerd that such a kubelet needs on Docker. Sourced by hack/machine.sh.
#
# The stand-in's command line and files are those of its version: it says that version, does not start with a flag
# that is gone, and looks for the endpoint where that version does. The pods are then run for real: by `nodectl
# run`, which speaks CRI v1, or by the real kubelet 1.20.2, which speaks v1alpha2, where that is what the runtime
# has.
#
# cri-dockerd is dockershim as a program of its own. The stand-in is a second kubelet 1.20.2, of which nothing is
# used but its dockershim: what Docker has of a pod, its labels and its network are the real thing. The units are
# those of cri-dockerd's packages.

# Where the real kubelet is in a machine that has a stand-in.
kubelet120=/usr/local/libexec/kubelet-1.20.2

later_kubelet_files() {
    local minor=${kubelet#1.} driver arguments=''
    driver=$(sed -n 's/^cgroupDriver: //p' "$disk/kubelet/config.yaml")
    sed "s/@MINOR@/$minor/g; s|@KUBELET120@|$kubelet120|g" <<'KUBELET' | put usr/bin/kubelet 0755
#!/bin/sh
# A stand-in for kubelet 1.@MINOR@: see hack/machine-kubelet.sh.
set -eu
minor=@MINOR@
config='' endpoint='' seen=''
previous=
for word; do
    case $word in
    --version | --version=true)
        echo "Kubernetes v1.$minor.0"
        exit 0
        ;;
    --*)
        flag=${word#--}
        flag=${flag%%=*}
        case $flag in
        network-plugin | network-plugin-mtu | cni-bin-dir | cni-conf-dir | cni-cache-dir | docker-endpoint | \
            image-pull-progress-deadline | experimental-dockershim | experimental-dockershim-root-directory) gone=24 ;;
        container-runtime) gone=27 ;;
        pod-infra-container-image) gone=35 ;;
        *) gone=99 ;;
        esac
        if [ "$minor" -ge "$gone" ]; then
            echo "E0101 00:00:00.000000       1 run.go:74] \"command failed\" err=\"failed to parse kubelet flag: unknown flag: --$flag\"" >&2
            exit 1
        fi
        seen="$seen $flag"
        ;;
    esac
    case $previous in
    --config) config=$word ;;
    --container-runtime-endpoint) endpoint=$word ;;
    esac
    case $word in
    --config=*) config=${word#*=} ;;
    --container-runtime-endpoint=*) endpoint=${word#*=} ;;
    esac
    previous=$word
done
# The flag wins over the configuration, where 1.26 and before know no such key.
if [ -z "$endpoint" ] && [ "$minor" -ge 27 ] && [ -n "$config" ]; then
    endpoint=$(sed -n "s/^containerRuntimeEndpoint: *//p" "$config" | tr -d "\"'")
fi
endpoint=${endpoint:-unix:///run/containerd/containerd.sock}
# Kubelets of before 1.26 ask for v1alpha2 where there is no v1, and dockershim has no other.
old=no
case $endpoint:$(containerd --version) in
*/cri-dockerd.sock:*) old=yes ;;
*" 1."*) [ "$minor" -ge 26 ] || old=yes ;;
esac
if [ "$old" = yes ]; then
    case " $seen " in *" container-runtime "*) ;; *) set -- "$@" --container-runtime=remote ;; esac
    exec @KUBELET120@ "$@" "--container-runtime-endpoint=$endpoint"
fi
exec nodectl run "$@" "--container-runtime-endpoint=$endpoint"
KUBELET
    # The packages of 1.28 and later have kubeadm's drop-in beside the unit.
    if [ "$minor" -ge 28 ]; then
        mkdir -p "$root/lib/systemd/system/kubelet.service.d"
        mv "$root/etc/systemd/system/kubelet.service.d/10-kubeadm.conf" "$root/lib/systemd/system/kubelet.service.d/"
        rmdir "$root/etc/systemd/system/kubelet.service.d"
    fi
    [ "$minor" -ge 27 ] || arguments='--container-runtime=remote '
    # kubeadm 1.34 and later tell it in a file of their own, which they lay over the configuration.
    if [ "$minor" -ge 34 ]; then
        printf 'containerRuntimeEndpoint: unix:///run/cri-dockerd.sock\n' >>"$disk/kubelet/config.yaml"
        printf '%s\n' 'apiVersion: kubelet.config.k8s.io/v1beta1' 'containerRuntimeEndpoint: unix:///run/cri-dockerd.sock' \
            'kind: KubeletConfiguration' | put_kubelet instance-config.yaml
    else
        arguments="$arguments--container-runtime-endpoint=unix:///run/cri-dockerd.sock "
    fi
    [ "$minor" -ge 35 ] || arguments="$arguments--pod-infra-container-image=k8s.gcr.io/pause:3.2 "
    # As 1.35 has to be told on cgroups of version 1.
    [ "$minor" -lt 31 ] || printf 'failCgroupV1: false\n' >>"$disk/kubelet/config.yaml"
    printf 'KUBELET_KUBEADM_ARGS="%s"\n' "${arguments% }" | put_kubelet kubeadm-flags.env
    cri_dockerd_files "$driver"
}

# cri_dockerd_files DRIVER: a program and units of cri-dockerd's names. The program listens where its socket does by
# a proxy, as dockershim takes no socket from systemd.
cri_dockerd_files() {
    sed "s|@KUBELET120@|$kubelet120|g; s/@DRIVER@/$1/g" <<'SHIM' | put usr/bin/cri-dockerd 0755
#!/bin/sh
# A stand-in for cri-dockerd: see hack/machine-kubelet.sh.
set -eu
own=/run/cri-dockerd-own.sock
rm -f "$own"
# Its own pods would come from a URL where nobody answers: until then a kubelet ends nobody's pods.
env -u NOTIFY_SOCKET @KUBELET120@ --container-runtime=docker --container-runtime-endpoint="unix://$own" --cgroup-driver=@DRIVER@ \
    --network-plugin=cni --pod-infra-container-image=k8s.gcr.io/pause:3.2 --root-dir=/var/lib/cri-dockerd/kubelet \
    --experimental-dockershim-root-directory=/var/lib/cri-dockerd --manifest-url=http://127.0.0.1:1/ \
    --port=10260 --read-only-port=0 --healthz-port=0 --fail-swap-on=false --make-iptables-util-chains=false \
    --cgroups-per-qos=false --enforce-node-allocatable= --image-gc-high-threshold=100 --eviction-hard= 2>/run/cri-dockerd.log &
until [ -S "$own" ]; do
    kill -0 $!
    sleep 0.1
done
systemd-notify --ready
exec /lib/systemd/systemd-socket-proxyd "$own"
SHIM
    put lib/systemd/system/cri-docker.service <<'UNIT'
[Unit]
Description=CRI Interface for Docker Application Container Engine
Documentation=https://docs.mirantis.com
After=network-online.target firewalld.service docker.service
Wants=network-online.target
Requires=cri-docker.socket

[Service]
Type=notify
# systemd-notify is another process.
NotifyAccess=all
ExecStart=/usr/bin/cri-dockerd --container-runtime-endpoint fd://
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutSec=0
RestartSec=2
Restart=always
StartLimitBurst=3
StartLimitInterval=60s
LimitNOFILE=infinity
TasksMax=infinity
Delegate=yes
# The packages have `process` here: theirs is one process.
KillMode=mixed

[Install]
WantedBy=multi-user.target
UNIT
    put lib/systemd/system/cri-docker.socket <<'UNIT'
[Unit]
Description=CRI Docker Socket for the API
PartOf=cri-docker.service

[Socket]
ListenStream=%t/cri-dockerd.sock
SocketMode=0660
SocketUser=root
SocketGroup=docker

[Install]
WantedBy=sockets.target
UNIT
    enable_unit cri-docker.service multi-user
    enable_unit cri-docker.socket sockets
}
