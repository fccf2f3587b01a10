#!/usr/bin/env bash
# Runs the tests, or the benchmarks, as root: those that start a containerd need it. A user's build
# stays the user's: only the test programs themselves run through sudo.
#
# usage: hack/test.sh THREADS [cargo test arguments...]
#        hack/test.sh bench [cargo bench arguments...]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
cd "$here/.."

threads=${1:?usage: hack/test.sh THREADS|bench [arguments]}
shift
command -v cargo >/dev/null || die "cargo is missing: install a Rust toolchain (https://rustup.rs)"
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "the tests that start a containerd need root: run this as root, or install sudo"
    host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
    export "CARGO_TARGET_${host}_RUNNER=sudo -E env PATH=$PATH"
fi
# Fetched and made once, before tests want them side by side.
hack/images.sh
NODECTL_CONTAINERD2=$(hack/containerd2.sh)
export NODECTL_CONTAINERD2
hack/containerd14.sh >/dev/null
hack/docker.sh >/dev/null
hack/kubernetes120.sh >/dev/null
hack/promtool.sh >/dev/null
hack/qemu.sh >/dev/null
hack/ansible.sh >/dev/null
# What an earlier run that was killed has left.
hack/containerd.sh gc
hack/machine.sh gc
hack/control-plane.sh gc

if [ "$threads" = bench ]; then
    exec cargo bench --locked "$@"
fi
# Properties are tried with the same values every time; another seed tries others.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
# Not nextest, though it may be there: it runs every test in a process of its own, and the tests of
# one file share a containerd.
RUST_TEST_THREADS=$threads exec cargo test --locked --no-fail-fast "$@"
