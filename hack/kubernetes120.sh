#!/usr/bin/env bash
# Builds a Kubernetes 1.20.2 for the tests: its kubelet is one of the last that speaks to Docker by itself
# (dockershim), so that a node on Docker can be moved away from it for real, and its API server is what such a
# node, and our own agent, are in a cluster of. Its controller manager signs certificates and makes service accounts.
#
# Nobody packages these any more as programs, but Debian's source package of kubernetes is that release, and
# its golang-1.19 builds it; built together they cost little more than one, as most of their packages are the same.
# kubectl and etcd are Debian's own. All is found and checked by apt with a private configuration and only
# unpacked, never installed: the machine's own packages and apt sources stay as they are. Debian's patches to
# kubernetes are about kubectl alone, and are left out; one package that the release brings along is too old for
# that Go and is taken from Debian. The first run takes some minutes and the network; the
# programs are kept in ${NODECTL_CACHE:-~/.cache/nodectl}.
#
# usage: hack/kubernetes120.sh      prints the folder that has kubelet, kube-apiserver, kube-controller-manager, kubectl, etcd
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

release=1.20.2
home=$(cache_dir)/kubernetes120
bin=$home/bin
build=$home/build
# Counted up when what is built changes, so that what an earlier script built is built anew.
recipe=2
finished() {
    local program
    [ "$(cat "$bin/recipe" 2>/dev/null)" = "$recipe" ] || return 1
    for program in kubelet kube-apiserver kube-controller-manager kubectl etcd; do
        [ -x "$bin/$program" ] || return 1
    done
    printf '%s\n' "$bin"
}
if finished; then exit 0; fi
for tool in apt-get dpkg tar gzip; do
    command -v "$tool" >/dev/null || die "$tool is missing: Kubernetes is built from Debian's source package. Put kubelet, kube-apiserver, kube-controller-manager and kubectl $release and an etcd into $bin instead"
done
lock_folder "$home"
# Another run may have been faster.
if finished; then exit 0; fi

say "kubernetes120: fetching Debian's source of kubernetes, its Go, kubectl and etcd into $home"
# What an earlier run that was killed has left. Go writes its module cache without the right to write.
[ ! -e "$build" ] || chmod -R u+w "$build"
rm -rf "$build"
mkdir -p "$build/bin"
debian_packages "$build" bookworm golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev kubernetes-client etcd-server
mv "$build/new/usr/bin"/{kubectl,etcd} "$build/bin/"
debian_archive "$build" bookworm
(cd "$build/apt/archives" && apt_private source --download-only kubernetes) ||
    die "the source package kubernetes of Debian bookworm cannot be fetched (NODECTL_DEBIAN_MIRROR names another archive)"
archive=$(find "$build/apt/archives" -name 'kubernetes_*.orig.tar.gz' -print -quit)
case $archive in
*"$release".orig.tar.gz) ;;
*) die "Debian bookworm's kubernetes is not $release any more: ${archive##*/}" ;;
esac
# As a GOPATH of old: the release's list of modules is older than this Go's idea of one.
source=$build/go/src/k8s.io/kubernetes
mkdir -p "$source"
tar -xzf "$archive" -C "$source" --strip-components=1
# The release's own calls into Go's runtime as Go before 1.18 had it, and writes to memory that is not its own with
# this one: an API server then panics at maps in JSON, or says wrong things.
reflect2=github.com/modern-go/reflect2
rm -rf "${source:?}/vendor/$reflect2"
cp -r "$build/new/usr/share/gocode/src/$reflect2" "$source/vendor/$reflect2"
rm -rf "$build/apt"

say "kubernetes120: building kubelet, kube-apiserver and kube-controller-manager $release (some minutes, once)"
# Where the version stands, as a GOPATH of old and as one of today name it.
version=()
for package in {k8s.io/kubernetes/vendor/,}k8s.io/{component-base,client-go/pkg}/version; do
    version+=(-X "$package.gitVersion=v$release" -X "$package.gitMajor=1" -X "$package.gitMinor=20" -X "$package.gitTreeState=clean")
done
goroot=$build/new/usr/lib/go-1.19
# in_source COMMAND...: in the source's folder, with Go and its environment.
in_source() {
    (cd "$source" && env -u GOFLAGS PATH="$goroot/bin:$PATH" GOROOT="$goroot" GOPATH="$build/go" GOCACHE="$build/cache" GOENV=off \
        GO111MODULE=off GOPROXY=off CGO_ENABLED=0 "$@") >&2
}
# What the API server says of its types is the one part that a release's source lacks. Made as its `make
# gen_openapi` does, which tells the types that are against its rules: they have to be the ones it knows.
in_source go build -trimpath -o "$build/openapi-gen" k8s.io/kubernetes/vendor/k8s.io/kube-openapi/cmd/openapi-gen ||
    die "openapi-gen cannot be built: see the lines above"
types=$(cd "$source" && grep -RlE --include='*.go' '^// *[+]k8s:openapi-gen=' cmd pkg plugin vendor/k8s.io |
    grep -vE '^vendor/k8s.io/(code-generator|sample-apiserver|kube-openapi)/' | sed 's|^|k8s.io/kubernetes/|; s|/[^/]*$||' | sort -u | paste -sd,)
in_source "$build/openapi-gen" --logtostderr -i "$types" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$build/violations" ||
    die "what the API server says of its types cannot be made: see the lines above"
cmp "$source/api/api-rules/violation_exceptions.list" "$build/violations" >&2 ||
    die "what the API server says of its types is not what the release has: $build/violations"
in_source go build -trimpath -ldflags "-s -w ${version[*]}" -o "$build/bin/" k8s.io/kubernetes/cmd/{kubelet,kube-apiserver,kube-controller-manager} ||
    die "kubelet, kube-apiserver and kube-controller-manager $release cannot be built: see the lines above"
for program in kubelet kube-apiserver kube-controller-manager; do
    built=$("$build/bin/$program" --version) || die "the $program that was built does not run on this machine"
    [ "$built" = "Kubernetes v$release" ] || die "the $program that was built calls itself '$built'"
done
etcd=$("$build/bin/etcd" --version | sed -n 1p) || die "Debian's etcd does not run on this machine"
printf '%s\n' "$recipe" >"$build/bin/recipe"
rm -rf "$bin"
mv "$build/bin" "$bin"
chmod -R u+w "$build"
rm -rf "$build"
say "kubernetes120: $built; $etcd"
finished
