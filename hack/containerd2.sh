#!/usr/bin/env bash
# Fetches a containerd 2.x for the tests, as stable Debian and Ubuntu releases still carry 1.x, and the runc
# that goes with it: user namespaces with volumes take runc 1.2. That needs a newer C library than a stable
# release has, so that comes with it too, and runc is pointed at it.
#
# They are Debian sid's packages, found and checked by apt with a private configuration (sources, lists
# and cache of its own, Debian's archive keys), and only unpacked, never installed: the machine's own
# packages and apt sources stay as they are. Kept in ${NODECTL_CACHE:-~/.cache/nodectl}, so that the
# second run needs no network.
#
# usage: hack/containerd2.sh      prints the folder that has containerd, its shim and ctr
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

home=$(cache_dir)/containerd2
bin=$home/root/usr/bin
sbin=$home/root/usr/sbin
if has_containerd "$home/root"; then exit 0; fi
for tool in apt-get dpkg patchelf; do
    command -v "$tool" >/dev/null || die "$tool is missing: a containerd 2.x is fetched from Debian's archive. Put containerd, containerd-shim-runc-v2 and ctr of 2.x into $bin and runc into $sbin instead"
done
lock_folder "$home"
# Another run may have been faster.
if has_containerd "$home/root"; then exit 0; fi
say "containerd2: fetching Debian sid's containerd into $home"
debian_packages "$home" sid containerd runc libc6 libseccomp2
[ -x "$home/new/usr/bin/containerd" ] || die "Debian sid's package of containerd has no usr/bin/containerd"
version=$("$home/new/usr/bin/containerd" --version) || die "Debian sid's containerd does not run on this machine"
case $version in
*" 2."*) ;;
*) die "Debian sid's containerd is not a 2.x: $version" ;;
esac
# The loader's path is written into the program, so it must be the last one.
library=$(find "$home/new/usr/lib" -name libc.so.6 -printf '%P' -quit)
library=$(dirname "$library")
loader=$(find "$home/new/usr/lib/$library" -name 'ld-linux*' -printf '%f' -quit)
[ -n "$loader" ] || die "Debian sid's package libc6 has no loader"
patchelf --set-interpreter "$home/root/usr/lib/$library/$loader" \
    --set-rpath "$home/root/usr/lib/$library" "$home/new/usr/sbin/runc" || die "patchelf cannot change runc"
rm -rf "$home/root"
mv "$home/new" "$home/root"
runc=$("$sbin/runc" --version | sed -n 1p) || die "Debian sid's runc does not run on this machine"
say "containerd2: $version; $runc"
printf '%s\n' "$bin"
