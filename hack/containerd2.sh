#!/usr/bin/env bash
# Fetches a containerd 2.x for the tests, as stable Debian and Ubuntu releases still carry 1.x.
#
# It is Debian sid's package, found and checked by apt with a private configuration (sources, lists
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
if [ -x "$bin/containerd" ] && [ -x "$bin/containerd-shim-runc-v2" ] && [ -x "$bin/ctr" ]; then
    printf '%s\n' "$bin"
    exit 0
fi
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || die "$tool is missing: a containerd 2.x is fetched from Debian's archive. Put containerd, containerd-shim-runc-v2 and ctr of 2.x into $bin instead"
done
mkdir -p "$home"
exec 9>"$home/lock"
flock 9
if [ -x "$bin/containerd" ]; then # another run was faster
    printf '%s\n' "$bin"
    exit 0
fi
keyring=
for candidate in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
    [ ! -r "$candidate" ] || keyring=$candidate
done
[ -n "$keyring" ] || die "Debian's archive keys are missing (package debian-archive-keyring); run hack/deps.sh"

apt=$home/apt
rm -rf "$apt" "$home/new"
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/parts" "$home/new"
: >"$apt/status"
printf 'deb [signed-by=%s] %s sid main\n' "$keyring" "${NODECTL_DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$apt/sources.list"
# The machine's apt.conf.d stays in force: a proxy that the machine needs is set there.
options=(
    -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts"
    -o "Dir::Etc::preferencesparts=$apt/parts" -o "Dir::Etc::preferences=$apt/none"
    -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status"
    -o "Dir::State::extended_states=$apt/extended_states"
    -o "Dir::Cache=$apt" -o "Dir::Cache::archives=$apt/archives"
    -o "Acquire::Languages=none" -o "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false"
    -o "APT::Sandbox::User=$(id -un)" -o "APT::Update::Post-Invoke::=" -o "APT::Get::List-Cleanup=0"
)
say "containerd2: fetching Debian sid's containerd into $home"
apt-get -qq "${options[@]}" update >&2 || die "the package lists of Debian sid cannot be fetched: the first run needs the network"
(cd "$apt/archives" && apt-get -qq "${options[@]}" download containerd >&2) ||
    die "the package containerd of Debian sid cannot be fetched"
deb=$(find "$apt/archives" -name 'containerd_*.deb' -print -quit)
[ -n "$deb" ] || die "apt fetched no containerd package into $apt/archives"
dpkg -x "$deb" "$home/new"
[ -x "$home/new/usr/bin/containerd" ] || die "$deb has no usr/bin/containerd"
version=$("$home/new/usr/bin/containerd" --version) || die "the containerd of $deb does not run on this machine"
case $version in
*" 2."*) ;;
*) die "Debian sid's containerd is not a 2.x: $version" ;;
esac
rm -rf "$home/root"
mv "$home/new" "$home/root"
rm -rf "$apt"
say "containerd2: $version"
printf '%s\n' "$bin"
