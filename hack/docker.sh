#!/usr/bin/env bash
# Fetches Debian's Docker for the tests, which run it inside of a machine of their own (hack/machine.sh).
#
# It is bookworm's package docker.io, found and checked by apt with a private configuration and only unpacked,
# never installed: nothing is started here, and a Docker or a containerd.io that the machine has stays as it is.
# Kept in ${NODECTL_CACHE:-~/.cache/nodectl}, so that the second run needs no network.
#
# usage: hack/docker.sh      prints the folder that the package is unpacked in (usr/sbin/dockerd, usr/bin/docker)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

home=$(cache_dir)/docker
finished() {
    local file
    for file in usr/sbin/dockerd usr/sbin/docker-proxy usr/bin/docker lib/systemd/system/docker.service lib/systemd/system/docker.socket; do
        [ -e "$home/root/$file" ] || return 1
    done
    printf '%s\n' "$home/root"
}
if finished; then exit 0; fi
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || die "$tool is missing: Docker is fetched from Debian's archive. Unpack a package of it in $home/root instead"
done
lock_folder "$home"
# Another run may have been faster.
if finished; then exit 0; fi
say "docker: fetching Debian's Docker into $home"
# dockerd needs the library of the device mapper even where it uses another storage driver.
debian_packages "$home" bookworm docker.io libdevmapper1.02.1
rm -rf "$home/root"
mv "$home/new" "$home/root"
finished >/dev/null || die "Debian's package docker.io lacks something: see $home/root"
version=$("$home/root/usr/bin/docker" --version) || die "Debian's docker does not run on this machine"
say "docker: $version"
finished
