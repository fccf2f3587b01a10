#!/usr/bin/env bash
# Finds qemu-system-x86_64 or, where the machine's packages do not let it be installed (a qemu-utils of another
# release keeps it out), unpacks the machine's own release's with the libraries that it needs. Kept in
# ${NODECTL_CACHE:-~/.cache/nodectl}, so that the second run needs no network.
#
# usage: hack/qemu.sh      prints the program's path
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

if find_tool qemu-system-x86_64; then exit 0; fi
home=$(cache_dir)/qemu
program=$home/qemu-system-x86_64
finished() {
    [ -x "$program" ] && printf '%s\n' "$program"
}
if finished; then exit 0; fi
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || die "qemu-system-x86_64 is missing: install it with the system's own package manager"
done
lock_folder "$home"
# Another run may have been faster.
if finished; then exit 0; fi
say "qemu: unpacking the package qemu-system-x86 into $home"
rm -rf "$home/deb" "$home/root"
mkdir -p "$home/deb" "$home/root"
# What is installed already has its present version in brackets.
needed=$(apt-get install -s -q --no-install-recommends qemu-system-x86 | awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }')
case $needed in
*qemu-system-x86*) ;;
*) die "apt knows no package qemu-system-x86" ;;
esac
# shellcheck disable=SC2086 # One word for each package.
(cd "$home/deb" && apt-get download -q -o APT::Sandbox::User="$(id -un)" $needed >/dev/null) ||
    die "the package qemu-system-x86 and what it needs cannot be fetched (is the network there?)"
for deb in "$home"/deb/*.deb; do dpkg -x "$deb" "$home/root"; done
rm -r "$home/deb"
library=$(basename "$(dirname "$(find "$home/root/usr/lib" -name 'libfdt.so*' -print -quit)")")
cat >"$program.new" <<END
#!/bin/sh
root='$home/root'
export LD_LIBRARY_PATH="\$root/usr/lib/$library:\$root/lib/$library" QEMU_MODULE_DIR="\$root/usr/lib/$library/qemu"
exec "\$root/usr/bin/qemu-system-x86_64" -L "\$root/usr/share/qemu" -L "\$root/usr/share/seabios" "\$@"
END
chmod 0755 "$program.new"
version=$("$program.new" --version | sed -n 1p) || die "the unpacked qemu-system-x86_64 does not run on this machine"
mv "$program.new" "$program"
say "qemu: $version"
finished
