#!/usr/bin/env bash
# Installs what the demonstration and the tests need, and only what is missing: when all is there it
# asks neither apt nor the network. For Debian and Ubuntu; elsewhere it says what to install.
#
# Nothing is ever removed (--no-remove), so that Docker's containerd.io, which Debian's containerd
# conflicts with, stays: a containerd that is on the PATH already is used as it is, and no service that
# runs is restarted.
#
# usage: hack/deps.sh [demo|test|check]     (default: test)
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

purpose=${1:-test}
missing=()
# need TOOL PACKAGE: asks for the package if the tool is not there
need() { find_tool "$1" >/dev/null || missing+=("$2"); }

# Can a program be linked statically with C's library? Asks the compiler itself, whatever the C library.
links_statically() {
    local out
    out=$(mktemp)
    printf 'int main(void){return 0;}' | "${CC:-cc}" -static -x c -o "$out" - >/dev/null 2>&1
    local result=$?
    rm -f "$out"
    return $result
}

# Would apt install it and remove nothing for it? A package that it does not know counts: its lists may be old.
installable() {
    ! apt-cache show "$1" >/dev/null 2>&1 ||
        apt-get install -s -q --no-remove --no-install-recommends "$1" >/dev/null 2>&1
}

static_busybox() {
    local busybox
    busybox=$(find_tool busybox) || return 1
    ! grep -qaE '/ld-(linux|musl)[-.a-z0-9_]*\.so' <(head -c 4096 "$(readlink -f "$busybox")")
}

look() {
    missing=()
    case $purpose in
    demo | test)
        need containerd containerd
        need ctr containerd
        need containerd-shim-runc-v2 containerd
        need runc runc
        cni_bin_dir >/dev/null || missing+=(containernetworking-plugins)
        need iptables iptables
        need ip iproute2
        need mount mount
        need flock util-linux
        need setsid util-linux
        static_busybox || missing+=(busybox-static)
        need "${CC:-cc}" gcc
        if ! links_statically; then missing+=(gcc libc6-dev); fi
        need xargs findutils
        need awk mawk
        need gzip gzip
        ;;
    check)
        need "${CC:-cc}" gcc
        need shellcheck shellcheck
        ;;
    *) die "unknown purpose '$purpose': demo, test or check" ;;
    esac
    if [ "$purpose" = test ]; then
        # The second handler that runtime classes are tested with.
        need crun crun
        # For certificates of registries and clusters, and for what is killed or struck in the middle.
        need openssl openssl
        need strace strace
        # For hack/control-plane.sh.
        need curl curl
        # For hack/containerd2.sh and hack/containerd14.sh; the keys are for Ubuntu.
        need patchelf patchelf
        [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || [ -e /usr/share/keyrings/debian-archive-keyring.pgp ] ||
            missing+=(debian-archive-keyring)
        # For hack/machine.sh and what it fetches and builds.
        need systemd-nspawn systemd-container
        need nsenter util-linux
        need jq jq
        # A database of RPM packages is made with it, and read.
        need rpmbuild rpm
        # For hack/vm.sh; what keeps it from being installed does not keep hack/qemu.sh from unpacking it.
        find_tool qemu-system-x86_64 >/dev/null || [ -x "$(cache_dir)/qemu/qemu-system-x86_64" ] ||
            ! installable qemu-system-x86 || missing+=(qemu-system-x86)
        need cpio cpio
        need depmod kmod
        need dbus-daemon dbus
        [ -x /lib/systemd/systemd ] || missing+=(systemd)
        # For hack/ansible.sh; the system's own, as another one in the PATH may lack it.
        [ -x /usr/bin/python3 ] || missing+=(python3)
        /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
        # Completion is tested in the shells themselves.
        need zsh zsh
        need fish fish
    fi
    [ "${#missing[@]}" -eq 0 ] || mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
}

look
[ "${#missing[@]}" -gt 0 ] || exit 0
command -v apt-get >/dev/null ||
    die "missing: ${missing[*]} (names of Debian packages). This is neither Debian nor Ubuntu: install them with the system's own package manager"
if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null 2>&1; then
    die "missing packages: ${missing[*]}. Installing them needs root: run 'apt-get install --no-remove ${missing[*]}' as root, or install sudo"
fi

say "deps: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install_all() {
    # needrestart would restart services of the machine that use a library which apt has updated.
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get install -y -q --no-remove --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}" >"$log" 2>&1
}
if ! install_all; then
    # The usual reason is package lists that are missing or old.
    as_root apt-get -q -o DPkg::Lock::Timeout=300 update >>"$log" 2>&1 || true
    look
    if ! install_all; then
        tail -n 15 "$log" >&2
        die "these packages could not be installed: ${missing[*]} (is the network there? would apt have to remove another package for them?)"
    fi
fi
wanted=${missing[*]}
look
[ "${#missing[@]}" -eq 0 ] || die "installed $wanted, but what these packages bring is still missing: ${missing[*]}"
