#!/usr/bin/env bash
# Makes the images that the demonstration and the tests run, without any registry:
#
#   pause.tar    localhost/nodectl/pause:1                  our own sandbox process (contrib/pause)
#   busybox.tar  localhost/nodectl/busybox:1                the machine's static busybox, all applets
#                localhost/nodectl/busybox:user-named       the same, USER app
#                localhost/nodectl/busybox:user-numeric     the same, USER 1000:1000
#
# Both are OCI image layouts in a tar file. The same inputs give the same bytes, so that an image
# keeps its digest from run to run: names are sorted, times are zero, owners are 0:0.
#
# usage: hack/images.sh [FOLDER]     (default: target/images)
set -euo pipefail
export LC_ALL=C
umask 022
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

out=${1:-$here/../target/images}
pause_source=$here/../contrib/pause/pause.c
cc=${CC:-cc}
busybox=$(find_tool busybox) || die "busybox is missing (package busybox-static); run hack/deps.sh"
busybox=$(readlink -f "$busybox")
command -v "$cc" >/dev/null || die "a C compiler is missing (packages gcc and libc6-dev); run hack/deps.sh"

# A dynamically linked busybox would need a C library in the image; only a static one stands alone.
# An ELF interpreter is the mark of a dynamic one.
if grep -qaE '/ld-(linux|musl)[-.a-z0-9_]*\.so' <(head -c 4096 "$busybox"); then
    die "$busybox is linked dynamically (install the package busybox-static); run hack/deps.sh"
fi

case $(uname -m) in
x86_64) arch='"architecture":"amd64"' ;;
aarch64) arch='"architecture":"arm64"' ;;
armv7l) arch='"architecture":"arm","variant":"v7"' ;;
i?86) arch='"architecture":"386"' ;;
ppc64le | s390x | riscv64) arch="\"architecture\":\"$(uname -m)\"" ;;
*) die "no image architecture is known for machine $(uname -m)" ;;
esac

# Nothing to do if this script, the compiler's input and busybox are the ones of last time.
stamp=$(cat "${BASH_SOURCE[0]}" "$pause_source" "$busybox" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$out/pause.tar" ] && [ -s "$out/busybox.tar" ]; then
    exit 0
fi
mkdir -p "$out"
work=$(mktemp -d "$out/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

pack() { # pack FOLDER: its content as a tar stream that depends on nothing but names, modes and bytes
    tar -C "$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=gnu -cf - .
}

blob() { # blob LAYOUT FILE: moves FILE among the layout's blobs and prints "digest size"
    local sum size
    sum=$(sha256sum "$2" | cut -d' ' -f1)
    size=$(stat -c %s "$2")
    mkdir -p "$1/blobs/sha256"
    mv "$2" "$1/blobs/sha256/$sum"
    printf 'sha256:%s %s\n' "$sum" "$size"
}

# layer LAYOUT ROOTFS: adds the layer; prints "diff-id digest size"
layer() {
    local diff
    pack "$2" >"$work/layer.tar"
    diff=sha256:$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
    gzip -n -9 -c "$work/layer.tar" >"$work/layer.tar.gz"
    rm "$work/layer.tar"
    printf '%s %s\n' "$diff" "$(blob "$1" "$work/layer.tar.gz")"
}

# image LAYOUT NAME "diff-id digest size" CONFIG-JSON: prints the entry for index.json
image() {
    local layout=$1 name=$2 config=$4 diff layer layer_size conf conf_size manifest manifest_size
    read -r diff layer layer_size <<<"$3"
    printf '{%s,"os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["%s"]}}' \
        "$arch" "$config" "$diff" >"$work/config.json"
    read -r conf conf_size <<<"$(blob "$layout" "$work/config.json")"
    printf '{"schemaVersion":2,"mediaType":"%s","config":{"mediaType":"%s","digest":"%s","size":%s},"layers":[{"mediaType":"%s","digest":"%s","size":%s}]}' \
        application/vnd.oci.image.manifest.v1+json \
        application/vnd.oci.image.config.v1+json "$conf" "$conf_size" \
        application/vnd.oci.image.layer.v1.tar+gzip "$layer" "$layer_size" >"$work/manifest.json"
    read -r manifest manifest_size <<<"$(blob "$layout" "$work/manifest.json")"
    printf '{"mediaType":"%s","digest":"%s","size":%s,"annotations":{"io.containerd.image.name":"%s","org.opencontainers.image.ref.name":"%s"},"platform":{%s,"os":"linux"}}' \
        application/vnd.oci.image.manifest.v1+json "$manifest" "$manifest_size" "$name" "${name##*:}" "$arch"
}

# layout FOLDER ARCHIVE ENTRY...: completes the layout and packs it
layout() {
    local folder=$1 archive=$2 entries
    shift 2
    entries=$(IFS=, && printf '%s' "$*")
    printf '{"imageLayoutVersion":"1.0.0"}' >"$folder/oci-layout"
    printf '{"schemaVersion":2,"manifests":[%s]}' "$entries" >"$folder/index.json"
    pack "$folder" >"$work/archive.tar"
    mv "$work/archive.tar" "$archive"
}

# The sandbox image: one static program.
mkdir -p "$work/pause/rootfs" "$work/pause/layout"
"$cc" -std=c11 -Os -Wall -Wextra -Werror -static -s -ffunction-sections -Wl,--gc-sections -Wl,--build-id=none \
    -o "$work/pause/rootfs/pause" "$pause_source" ||
    die "compiling $pause_source statically failed (packages gcc and libc6-dev); run hack/deps.sh"
entry=$(image "$work/pause/layout" localhost/nodectl/pause:1 "$(layer "$work/pause/layout" "$work/pause/rootfs")" \
    '{"User":"65535:65535","Env":["PATH=/"],"Entrypoint":["/pause"],"WorkingDir":"/"}')
layout "$work/pause/layout" "$out/pause.tar" "$entry"

# The busybox image: the program, its applets as links, and the few files that programs look for.
root=$work/busybox/rootfs
mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc,root,tmp,var/run,dev,proc,sys,home/app} "$work/busybox/layout"
chmod 1777 "$root/tmp"
# Owners are all 0:0 in the archive, so that the user's own folder must be open to be of use.
chmod 1777 "$root/home/app"
install -m 0755 "$busybox" "$root/bin/busybox"
"$root/bin/busybox" --list-full | while read -r applet; do
    case $applet in bin/busybox | linuxrc) continue ;; esac
    mkdir -p "$root/$(dirname "$applet")"
    ln -sf /bin/busybox "$root/$applet"
done
# The applets that manifests here use must be where they are looked for, whatever the build's own list.
applets=$("$root/bin/busybox" --list)
for applet in sh sleep cat echo ls wget nc httpd stat id dd kill ps env timeout mount; do
    case $'\n'$applets$'\n' in
    *$'\n'"$applet"$'\n'*) ;;
    *) die "$busybox has no applet '$applet'" ;;
    esac
    [ -e "$root/bin/$applet" ] || ln -sf /bin/busybox "$root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\napp:x:1000:\nextra:x:2000:app\nnogroup:x:65534:\n' >"$root/etc/group"
base=$(layer "$work/busybox/layout" "$root")
common='"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"],"WorkingDir":"/"'
layout "$work/busybox/layout" "$out/busybox.tar" \
    "$(image "$work/busybox/layout" localhost/nodectl/busybox:1 "$base" "{$common}")" \
    "$(image "$work/busybox/layout" localhost/nodectl/busybox:user-named "$base" "{\"User\":\"app\",$common}")" \
    "$(image "$work/busybox/layout" localhost/nodectl/busybox:user-numeric "$base" "{\"User\":\"1000:1000\",$common}")"

printf '%s\n' "$stamp" >"$out/stamp"
say "images: $out/pause.tar ($(stat -c %s "$out/pause.tar") bytes), $out/busybox.tar ($(stat -c %s "$out/busybox.tar") bytes)"
