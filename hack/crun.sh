#!/bin/sh
# crun as the second handler of the private containerds. It is the machine's crun with its arguments as they
# are, but for two things that an older one (1.8 in Debian 12) refuses to begin with:
#
# - a machine with cgroup v1 whose v2 hierarchy has controllers too: it is then run without sight of that
#   hierarchy, in a mount namespace that still follows the machine's;
# - a specification of the OCI runtime-spec 1.1 or later, as containerd 2.x writes it: the version is written
#   as 1.0.2. What 1.1 and 1.2 added, such a crun leaves out, as it does for every field that it does not know.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

verb='' bundle=. last=''
for argument; do
    case $argument in create) verb=create ;; esac
    case $last in --bundle | -b) bundle=$argument ;; esac
    last=$argument
done
if [ -n "$verb" ] && [ -w "$bundle/config.json" ]; then
    case $(crun --version) in
    *"spec: 1.0."*) sed -i 's/"ociVersion":"1\.[1-9][^"]*"/"ociVersion":"1.0.2"/' "$bundle/config.json" ;;
    esac
fi
if [ -n "$(cat /sys/fs/cgroup/unified/cgroup.controllers 2>/dev/null)" ]; then
    # shellcheck disable=SC2016 # for the inner shell
    exec unshare --mount --propagation slave sh -c 'umount /sys/fs/cgroup/unified && exec crun "$@"' crun "$@"
fi
exec crun "$@"
