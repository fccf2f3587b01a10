#!/usr/bin/env bash
# Fetches Ansible for the tests: ansible-core from PyPI, into an environment of its own. Kept in
# ${NODECTL_CACHE:-~/.cache/nodectl}, so that the second run needs no network.
#
# usage: hack/ansible.sh      prints the folder that has ansible-playbook
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

version=2.16.14
home=$(cache_dir)/ansible-$version
whole() { [ -x "$home/env/bin/ansible-playbook" ] && [ -e "$home/complete" ] && printf '%s\n' "$home/env/bin"; }
if whole; then exit 0; fi
python=/usr/bin/python3
[ -x "$python" ] || die "python3 is missing (package python3); run hack/deps.sh"
lock_folder "$home"
# Another run may have been faster.
if whole; then exit 0; fi
say "ansible: fetching ansible-core $version into $home"
rm -rf "$home/env"
"$python" -m venv "$home/env" || die "cannot make an environment for Python (package python3-venv); run hack/deps.sh"
"$home/env/bin/pip" install --quiet --disable-pip-version-check "ansible-core==$version" >&2 || die "ansible-core $version cannot be had from PyPI"
: >"$home/complete"
say "ansible: $("$home/env/bin/ansible-playbook" --version | sed -n 1p)"
printf '%s\n' "$home/env/bin"
