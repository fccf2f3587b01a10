#!/usr/bin/env bash
# Format, lints, shell scripts, and the dependencies' licences, sources, bans and advisories.
#
# cargo-deny is installed from crates.io into cargo's own folder when it is missing (some minutes,
# once); after that all works offline. The advisory database lives on github.com: where that cannot be
# reached and no earlier copy is there, this says so aloud and checks the rest.
#
# usage: hack/check.sh
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
cd "$here/.."
command -v cargo >/dev/null || die "cargo is missing: install a Rust toolchain (https://rustup.rs)"
hack/deps.sh check

step() { say "check: $*" && "$@"; }

step cargo fmt --all --check
step cargo clippy --locked --all-targets --quiet -- -D warnings
step shellcheck -x hack/*.sh .ci/run

if ! cargo deny --version >/dev/null 2>&1; then
    say "check: installing cargo-deny (once)"
    # Without its defaults it leaves out what needs a C build; it is not run often enough for the
    # optimiser to be worth the wait.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_DEBUG=0 cargo install --locked --quiet cargo-deny --version "${CARGO_DENY_VERSION:-^0.20}" ||
        die "cargo-deny cannot be installed from crates.io"
fi
# A build fetches this platform's crates only; the graph needs all of them once.
cargo fetch --locked --offline --quiet 2>/dev/null || cargo fetch --locked --quiet ||
    die "the dependencies of other platforms cannot be fetched from crates.io: the first run needs the network"
step cargo deny --offline --locked check --hide-inclusion-graph bans licenses sources
db=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs
if timeout 60 cargo deny --locked fetch db >/dev/null 2>&1; then
    step cargo deny --locked check --hide-inclusion-graph advisories
elif [ -d "$db" ] && [ -n "$(find "$db" -name '*.md' -print -quit)" ]; then
    say "check: the advisory database cannot be updated now; using the copy in $db"
    step cargo deny --offline --locked check --disable-fetch --hide-inclusion-graph advisories
else
    say "check: NOT DONE: advisories. The database (github.com/rustsec/advisory-db) cannot be reached, and there is no earlier copy"
fi
say "check: ok"
