#!/usr/bin/env bash
# Runs a command in a small virtual machine: a kernel of Debian's with cgroup v2, every capability and huge
# pages, under qemu's software emulation (no /dev/kvm is needed; about 10 times slower than the machine).
# Its root is this machine's own, with everything that it writes kept in memory and thrown away, so that
# the command finds tests, programs and images under the paths that they have here.
#
# usage: hack/vm.sh [--systemd] [--memory MIB] [--timeout SECONDS] COMMAND [ARGUMENT...]
#
# The command runs as root in the present folder, with this environment's NODECTL_* and RUST_* variables.
# Its output comes on stdout; the exit code is the command's, or 125 if the machine itself failed.
#   --systemd   systemd is the machine's init (for the systemd cgroup driver); else a few lines of shell
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

systemd='' memory=3072 timeout=900
while [ $# -gt 0 ]; do
    case $1 in
    --systemd) systemd=1 ;;
    --memory) memory=$2 && shift ;;
    --timeout) timeout=$2 && shift ;;
    -*) die "unknown option $1" ;;
    *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || die "usage: hack/vm.sh [--systemd] [--memory MIB] [--timeout SECONDS] COMMAND [ARGUMENT...]"
[ "$(id -u)" -eq 0 ] || die "the virtual machine shows this machine's files as root sees them: run this as root"
for tool in cpio depmod busybox; do
    find_tool "$tool" >/dev/null || die "$tool is missing; run hack/deps.sh test"
done
qemu=$("$here/qemu.sh")
# The kernel: unpacked, never installed.
cache=$(cache_dir)/vm
if [ ! -e "$cache/done" ]; then
    say "vm: fetching Debian's kernel"
    rm -rf "$cache"
    mkdir -p "$cache/deb"
    package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [ -n "$package" ] || die "apt knows no package linux-image-amd64"
    (cd "$cache/deb" && apt-get -q -o APT::Sandbox::User=root download "$package" >/dev/null) ||
        die "cannot fetch the package $package (is the network there?)"
    dpkg -x "$cache"/deb/*.deb "$cache"
    rm -r "$cache/deb"
    depmod -b "$cache" "$(ls "$cache/lib/modules")"
    touch "$cache/done"
fi
version=$(ls "$cache/lib/modules")

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The initial file system: busybox, and what it takes to mount this machine's root.
mkdir -p "$work/initrd/bin" "$work/initrd/modules"
install -m 0755 "$(readlink -f "$(find_tool busybox)")" "$work/initrd/bin/busybox"
for module in virtio_pci 9pnet_virtio 9p overlay; do
    modprobe -d "$cache" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r path; do
    cp "$path" "$work/initrd/modules/"
    basename "$path" >>"$work/initrd/modules/order"
done
cp "$here/vm-init.sh" "$work/initrd/init"
chmod 0755 "$work/initrd/init"
{
    printf 'cd %q\n' "$PWD"
    env -0 | grep -zE '^(NODECTL_|RUST_|PATH=|HOME=)' | while IFS= read -r -d '' pair; do
        printf 'export %s=%q\n' "${pair%%=*}" "${pair#*=}"
    done
    printf 'exec'
    printf ' %q' "$@"
    printf '\n'
} >"$work/initrd/command"
printf '%s' "$systemd" >"$work/initrd/systemd"
printf '%s' "$cache/lib/modules" >"$work/initrd/module-folder"
(cd "$work/initrd" && find . -print0 | cpio --quiet -0 -o -H newc) >"$work/initrd.img"

result=0
timeout --foreground "$timeout" "$qemu" -accel tcg,thread=multi -cpu max -smp 2 -m "$memory" \
    -nodefaults -no-user-config -no-reboot -display none \
    -kernel "$cache/boot/vmlinuz-$version" -initrd "$work/initrd.img" \
    -append "console=ttyS0 quiet loglevel=3 panic=-1 hugepages=64 systemd.unified_cgroup_hierarchy=1 systemd.show_status=true systemd.mask=systemd-tmpfiles-setup.service systemd.mask=systemd-tmpfiles-clean.timer systemd.mask=systemd-udevd.service systemd.mask=systemd-udev-trigger.service systemd.mask=systemd-journal-flush.service" \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    -serial "file:$work/console" -chardev stdio,id=out,logfile="$work/out",signal=off -serial chardev:out </dev/null || result=$?
code=$(tr -d '\r' <"$work/out" | sed -n 's/^vm: exit \([0-9]*\)$/\1/p' | tail -n 1)
if [ -z "$code" ]; then
    tail -n 30 "$work/console" >&2
    [ "$result" -ne 124 ] || die "the virtual machine did not come to its end within $timeout s"
    printf 'error: the virtual machine ended without an answer\n' >&2
    exit 125
fi
exit "$code"
