#!/usr/bin/env bash
# Fetches promtool, Prometheus' own reader of figures: Debian bookworm's package prometheus, only unpacked. Kept in
# ${NODECTL_CACHE:-~/.cache/nodectl}, so that the second run needs no network.
#
# usage: hack/promtool.sh      prints the program's path
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

home=$(cache_dir)/promtool
program=$home/promtool
finished() {
    [ -x "$program" ] && printf '%s\n' "$program"
}
if finished; then exit 0; fi
for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null || die "$tool is missing: promtool is fetched from Debian's archive. Put one at $program instead"
done
lock_folder "$home"
# Another run may have been faster.
if finished; then exit 0; fi
say "promtool: fetching Debian bookworm's prometheus into $home"
debian_packages "$home" bookworm prometheus
version=$("$home/new/usr/bin/promtool" --version | sed -n 1p) || die "Debian bookworm's promtool does not run on this machine"
mv "$home/new/usr/bin/promtool" "$program"
rm -rf "$home/new"
say "promtool: $version"
finished
