#!/bin/sh
# The first process of a machine of hack/machine.sh: makes the container that it finds itself in enough of a
# node for docker, containerd and kubelet, then becomes systemd. All of it lives in /run, /proc and /dev, so that
# nothing of it is on the machine's disk, which tests compare file by file.
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
own=/run/nodectl-machine

# systemd-nspawn shows cgroups of version 1 read-only, all but systemd's own. They are this machine's alone.
awk '$5 ~ "^/sys/fs/cgroup(/|$)" { print $5 }' /proc/self/mountinfo | while read -r point; do
    mount -o remount,rw,bind "$point"
done

# What kubelet sets are settings of the one kernel, which is not this machine's: it gets files of the same
# content as it would write, and may write into them.
mkdir -p "$own/sysctl"
while read -r key value; do
    printf '%s\n' "$value" >"$own/sysctl/${key##*/}"
    mount --bind "$own/sysctl/${key##*/}" "/proc/sys/$key"
done <<'KEYS'
vm/overcommit_memory 1
vm/panic_on_oom 0
kernel/panic 10
kernel/panic_on_oops 1
kernel/keys/root_maxkeys 1000000
kernel/keys/root_maxbytes 25000000
KEYS

# kubelet looks there for processes that the kernel ended, and does not start without it.
# The log there is this machine's kernel's, which journald need not copy.
[ -e /dev/kmsg ] || mknod -m 0600 /dev/kmsg c 1 11
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\nReadKMsg=no\nStorage=volatile\nRuntimeMaxUse=64M\n' >/run/systemd/journald.conf.d/machine.conf

# A network card with a default route, which leads nowhere: kubelet takes the node's address from it.
ip link add eth0 type veth peer name uplink
ip link set uplink up
ip link set eth0 up
ip addr add 192.168.77.10/24 dev eth0
ip route add default via 192.168.77.1
# Where kubelet 1.20 looks for the cloud that it may run in, for seconds when nobody answers.
ip route add unreachable 169.254.0.0/16

# What a machine on a machine need not do.
mkdir -p /run/systemd/system/multi-user.target.wants
for unit in modprobe@.service systemd-journal-flush.service systemd-modules-load.service systemd-sysctl.service systemd-logind.service \
    systemd-tmpfiles-clean.timer systemd-sysusers.service systemd-update-utmp.service systemd-update-utmp-runlevel.service \
    systemd-binfmt.service systemd-hwdb-update.service ldconfig.service systemd-journal-catalog-update.service systemd-update-done.service \
    systemd-networkd.service systemd-networkd.socket systemd-resolved.service systemd-timesyncd.service systemd-pcrphase-sysinit.service \
    dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount \
    proc-sys-fs-binfmt_misc.automount getty.target console-getty.service graphical.target; do
    ln -s /dev/null "/run/systemd/system/$unit"
done
ln -s /lib/systemd/system/multi-user.target /run/systemd/system/default.target

# A node has had its images for long when a test comes; kubelet would not find a registry to pull them from.
if [ ! -e /var/lib/docker/image ]; then
    cat >/run/systemd/system/machine-images.service <<UNIT
[Unit]
Description=Images of this node's pods
Wants=docker.service
After=docker.service
Before=kubelet.service
[Service]
Type=oneshot
ExecStart=/usr/bin/docker load -i $own/images/pause.tar
ExecStart=/usr/bin/docker load -i $own/images/busybox.tar
UNIT
    ln -s ../machine-images.service /run/systemd/system/multi-user.target.wants/machine-images.service
fi
exec /lib/systemd/systemd
