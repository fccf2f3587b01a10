#!/usr/bin/env bash
# Fetches Ansible for the tests: ansible-core from PyPI, into an environment of its own. Kept in
# ${NODECTL_CACHE:-~/.cache/nodectl}, so that the second run needs no network.
#
# usage: hack/ansible.sh      prints the folder that has ansible-playbook
#
# environment: NODECTL_PYTHON  the Python that it runs on (default: /usr/bin/python3)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"

# Another Python that comes first in the PATH may be gone tomorrow; the system's stays.
python=${NODECTL_PYTHON:-/usr/bin/python3}
[ -x "$python" ] || die "$python is missing (package python3); run hack/deps.sh"
release=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Each release of ansible-core is for some of Python's: Ubuntu 22.04 has 3.10 and 24.04 has 3.12, Debian 12 has
# 3.11 and 13 has 3.13.
case $release in
3.10 | 3.11 | 3.12) version=2.16.14 ;;
3.13) version=2.18.12 ;;
*) die "$python is Python $release; hack/ansible.sh has a release of ansible-core for 3.10 to 3.13 (NODECTL_PYTHON names another Python)" ;;
esac
# What it imports, so that a test of tomorrow has what the one of today had.
needs=(cffi==2.1.1 cryptography==50.0.2 Jinja2==3.1.6 MarkupSafe==3.0.4 packaging==26.3 pycparser==3.11 PyYAML==6.0.3 resolvelib==1.0.1)

home=$(cache_dir)/ansible-$version-python$release
whole() { [ -x "$home/env/bin/ansible-playbook" ] && [ -e "$home/complete" ] && printf '%s\n' "$home/env/bin"; }
if whole; then exit 0; fi
lock_folder "$home"
# Another run may have been faster.
if whole; then exit 0; fi
say "ansible: fetching ansible-core $version for Python $release into $home"
rm -rf "$home/env" "$home/complete"
"$python" -m venv "$home/env" >&2 || die "cannot make an environment for Python (package python3-venv); run hack/deps.sh"
"$home/env/bin/python" -m pip install --quiet --disable-pip-version-check "ansible-core==$version" "${needs[@]}" >&2 ||
    die "ansible-core $version cannot be had from PyPI: the first run needs the network"
# A C locale is refused by it.
shown=$(LC_ALL=C.UTF-8 "$home/env/bin/ansible-playbook" --version) || die "ansible-core $version does not run on $python"
: >"$home/complete"
say "ansible: ${shown%%$'\n'*}"
printf '%s\n' "$home/env/bin"
