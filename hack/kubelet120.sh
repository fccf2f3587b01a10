#!/usr/bin/env bash
# Builds a kubelet 1.20.2 for the tests: one of the last that speaks to Docker by itself (dockershim), so that
# a node on Docker can be moved away from it for real.
#
# Nobody packages it any more as a program, but Debian's source package of kubernetes is that release, and its
# golang-1.19 builds it. Both are found and checked by apt with a private configuration and only unpacked, never
# installed: the machine's own packages and apt sources stay as they are. Debian's patches to it are about
# kubectl alone, and are left out. The first run takes some minutes and the network; the program is kept in
# ${NODECTL_CACHE:-~/.cache/nodectl}.
#
# usage: hack/kubelet120.sh      prints the folder that has kubelet
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

release=1.20.2
home=$(cache_dir)/kubelet120
bin=$home/bin
finished() {
    [ -x "$bin/kubelet" ] && printf '%s\n' "$bin"
}
if finished; then exit 0; fi
for tool in apt-get dpkg tar gzip; do
    command -v "$tool" >/dev/null || die "$tool is missing: kubelet is built from Debian's source package. Put a kubelet $release into $bin instead"
done
lock_folder "$home"
# Another run may have been faster.
if finished; then exit 0; fi

say "kubelet120: fetching Debian's source of kubernetes and its Go into $home"
# What an earlier run that was killed has left. Go writes its module cache without the right to write.
[ ! -e "$home/build" ] || chmod -R u+w "$home/build"
rm -rf "$home/build"
mkdir -p "$home/build"
debian_packages "$home/build" bookworm golang-1.19-go golang-1.19-src
debian_archive "$home/build" bookworm
(cd "$home/build/apt/archives" && apt_private source --download-only kubernetes) ||
    die "the source package kubernetes of Debian bookworm cannot be fetched (NODECTL_DEBIAN_MIRROR names another archive)"
archive=$(find "$home/build/apt/archives" -name 'kubernetes_*.orig.tar.gz' -print -quit)
case $archive in
*"$release".orig.tar.gz) ;;
*) die "Debian bookworm's kubernetes is not $release any more: ${archive##*/}" ;;
esac
# As a GOPATH of old: the release's list of modules is older than this Go's idea of one.
source=$home/build/go/src/k8s.io/kubernetes
mkdir -p "$source"
tar -xzf "$archive" -C "$source" --strip-components=1
rm -rf "$home/build/apt"

say "kubelet120: building kubelet $release (some minutes, once)"
# Where the version stands, as a GOPATH of old and as one of today name it.
version=()
for package in {k8s.io/kubernetes/vendor/,}k8s.io/{component-base,client-go/pkg}/version; do
    version+=(-X "$package.gitVersion=v$release" -X "$package.gitMajor=1" -X "$package.gitMinor=20" -X "$package.gitTreeState=clean")
done
goroot=$home/build/new/usr/lib/go-1.19
(cd "$source" && env -u GOFLAGS GOROOT="$goroot" GOPATH="$home/build/go" GOCACHE="$home/build/cache" GOENV=off GO111MODULE=off \
    GOPROXY=off CGO_ENABLED=0 "$goroot/bin/go" build -trimpath -ldflags "-s -w ${version[*]}" -o "$home/build/kubelet" k8s.io/kubernetes/cmd/kubelet) >&2 ||
    die "kubelet $release cannot be built: see the lines above"
built=$("$home/build/kubelet" --version) || die "the kubelet that was built does not run on this machine"
[ "$built" = "Kubernetes v$release" ] || die "the kubelet that was built calls itself '$built'"
mkdir -p "$bin"
mv "$home/build/kubelet" "$bin/kubelet"
chmod -R u+w "$home/build"
rm -rf "$home/build"
say "kubelet120: $built"
finished
