#!/bin/busybox sh
# shellcheck shell=dash
# The first process of the virtual machine of hack/vm.sh. It runs twice: in the initial file system, where it
# puts a layer of memory over the host's root and changes into it, and then there.
PATH=/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin
fail() {
    busybox echo "vm: $*" >/dev/ttyS0
    busybox poweroff -f
}

if [ "$1" != second ]; then
    busybox mkdir -p /proc /sys /dev /lower /over /root
    busybox mount -t proc proc /proc
    busybox mount -t devtmpfs dev /dev
    while read -r module; do
        busybox insmod "/modules/$module" || fail "cannot load $module"
    done </modules/order
    busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576,cache=loose host /lower || fail "cannot mount the host's files"
    busybox mount -t tmpfs -o size=75% over /over
    busybox mkdir /over/up /over/work
    busybox mount -t overlay -o lowerdir=/lower,upperdir=/over/up,workdir=/over/work root /root || fail "no overlay"
    busybox mkdir -p /root/vm
    busybox cp /init /command /systemd /module-folder /bin/busybox /root/vm/
    # busybox runs its own applets through /proc/self/exe, which must be the guest's.
    for folder in proc dev; do busybox mount --move /$folder /root/$folder; done
    if [ -s /systemd ]; then
        busybox mkdir -p /root/etc/systemd/system
        busybox cat >/root/etc/systemd/system/nodectl-vm.service <<'UNIT'
[Unit]
Requires=basic.target dbus.service
After=basic.target dbus.service
[Service]
Type=oneshot
ExecStart=/vm/busybox sh /vm/init second
TimeoutStartSec=infinity
UNIT
        # What makes systemd think that it is in a container, if the host is one.
        busybox rm -f /root/.dockerenv /root/run/.containerenv
        exec busybox switch_root /root /lib/systemd/systemd --unit=nodectl-vm.service
    fi
    exec busybox switch_root /root /vm/busybox sh /vm/init second
fi

cd /
if [ ! -s /vm/systemd ]; then
    mount -t sysfs sys /sys
    mkdir -p /dev/pts /dev/shm
    mount -t devpts devpts /dev/pts
    mount -t tmpfs shm /dev/shm
    mount -t tmpfs run /run
    mount -t cgroup2 cgroup /sys/fs/cgroup
    # In a group of its own, as under an init: containerd looks for swap's limit in the group it runs in.
    mkdir /sys/fs/cgroup/init.scope
    echo $$ >/sys/fs/cgroup/init.scope/cgroup.procs
    echo +memory >/sys/fs/cgroup/cgroup.subtree_control
    mount --make-rshared /
fi
mkdir -p /lib/modules
mount --bind "$(cat /vm/module-folder)" /lib/modules
# An address of the machine's own, from the range for documentation; nothing answers there.
ip link set lo up
ip link add eth0 type dummy
ip address add 192.0.2.2/24 dev eth0
ip link set eth0 up
ip route add default dev eth0
# A folder of its own for what is many small files: the layer over the host's root cannot hold another.
mount -t tmpfs tmp /tmp
mount -t securityfs none /sys/kernel/security 2>/dev/null
/bin/bash /vm/command >/dev/ttyS1 2>&1 </dev/null
code=$?
stty -F /dev/ttyS1 -opost 2>/dev/null
echo "vm: exit $code" >/dev/ttyS1
sync
/vm/busybox sleep 0.2
/vm/busybox poweroff -f
