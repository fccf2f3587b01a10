#!/usr/bin/env bash
# Fetches containerd 1.4, the last one in Debian that serves CRI v1alpha2 and no v1, and the runc that goes
# with it: Debian bullseye's packages, only unpacked, in the version named below. Kept in
# ${NODECTL_CACHE:-~/.cache/nodectl}, so that the second run needs no network.
#
# usage: hack/containerd14.sh      prints the folder that has containerd, its shim and ctr
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

containerd=1.4.13~ds1-1~deb11u4
runc=1.0.0~rc93+ds1-5+deb11u5
home=$(cache_dir)/containerd14
bin=$home/root/usr/bin
if has_containerd "$home/root"; then exit 0; fi
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || die "$tool is missing: a containerd 1.4 is fetched from Debian's archive. Put containerd, containerd-shim-runc-v2 and ctr of 1.4 into $bin and a runc into $home/root/usr/sbin instead"
done
lock_folder "$home"
# Another run may have been faster.
if has_containerd "$home/root"; then exit 0; fi
say "containerd14: fetching Debian bullseye's containerd into $home"
debian_packages "$home" bullseye "containerd=$containerd" "runc=$runc"
version=$("$home/new/usr/bin/containerd" --version) || die "Debian bullseye's containerd does not run on this machine"
runc=$("$home/new/usr/sbin/runc" --version | sed -n 1p) || die "Debian bullseye's runc does not run on this machine"
rm -rf "$home/root"
mv "$home/new" "$home/root"
say "containerd14: $version; $runc"
printf '%s\n' "$bin"
