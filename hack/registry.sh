#!/usr/bin/env bash
# Fetches an image registry for the tests: Debian bookworm's docker-registry, only unpacked. Kept in
# ${NODECTL_CACHE:-~/.cache/nodectl}, so that the second run needs no network.
#
# usage: hack/registry.sh      prints the program's path
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

home=$(cache_dir)/registry
program=$home/root/usr/bin/docker-registry
whole() { [ -x "$program" ] && printf '%s\n' "$program"; }
if whole; then exit 0; fi
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || die "$tool is missing: docker-registry is fetched from Debian's archive. Put it into ${program%/*} instead"
done
lock_folder "$home"
# Another run may have been faster.
if whole; then exit 0; fi
say "registry: fetching Debian bookworm's docker-registry into $home"
debian_packages "$home" bookworm docker-registry
version=$("$home/new/usr/bin/docker-registry" --version) || die "Debian bookworm's docker-registry does not run on this machine"
rm -rf "$home/root"
mv "$home/new" "$home/root"
say "registry: $version"
printf '%s\n' "$program"
