# shellcheck shell=bash
# What the scripts in this folder share. Sourced, never run.

# say MESSAGE...: progress, on stderr, so that stdout stays for results.
say() { printf '%s\n' "$*" >&2; }

# die MESSAGE...: one clear line, exit 1.
die() {
    printf '%s: error: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# as_root COMMAND...: runs it as root, through sudo when we are not.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "'$1' needs root: run this as root, or install sudo"
    fi
}

# become_root SCRIPT ARGUMENTS...: starts the script again as root if it does not run so yet.
# Only the variables that the scripts read are handed through.
become_root() {
    [ "$(id -u)" -eq 0 ] && return 0
    command -v sudo >/dev/null 2>&1 || die "needs root: run it as root, or install sudo"
    exec sudo env "PATH=$PATH" "HOME=$HOME" \
        ${NODECTL_CACHE:+"NODECTL_CACHE=$NODECTL_CACHE"} \
        ${NODECTL_OWNER:+"NODECTL_OWNER=$NODECTL_OWNER"} \
        ${NODECTL_CGROUP_DRIVER:+"NODECTL_CGROUP_DRIVER=$NODECTL_CGROUP_DRIVER"} \
        ${CONTAINERD_BIN:+"CONTAINERD_BIN=$CONTAINERD_BIN"} \
        ${CNI_BIN_DIR:+"CNI_BIN_DIR=$CNI_BIN_DIR"} \
        bash "$@"
}

# find_tool NAME: its path; looks in the sbin folders too, which a user's PATH often lacks.
find_tool() { PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1"; }

# cni_bin_dir: the folder with the CNI plugins that the private network needs.
cni_bin_dir() {
    local dir
    for dir in ${CNI_BIN_DIR:+"$CNI_BIN_DIR"} /usr/lib/cni /opt/cni/bin /usr/libexec/cni; do
        if [ -x "$dir/bridge" ] && [ -x "$dir/host-local" ] && [ -x "$dir/portmap" ] && [ -x "$dir/loopback" ]; then
            printf '%s\n' "$dir"
            return 0
        fi
    done
    return 1
}

# cache_dir: where downloads are kept between runs.
cache_dir() { printf '%s\n' "${NODECTL_CACHE:-${HOME:-/root}/.cache/nodectl}"; }

# wait_for SECONDS COMMAND...: tries it ten times a second until it succeeds.
wait_for() {
    local tries=$(($1 * 10))
    shift
    while ! "$@" >/dev/null 2>&1; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.1
    done
}

# lock_folder FOLDER: makes it, and waits until no other run works in it. Held until this script ends.
lock_folder() {
    mkdir -p "$1"
    exec 9>"$1/lock"
    flock 9
}

# born PID: when it started, in clock ticks since boot; tells a reused number from the old process.
born() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

# cgroup_mounts: where cgroup hierarchies are mounted: one on v2, many on v1.
cgroup_mounts() { awk '{ for (i = 7; i < NF; i++) if ($i == "-") { if ($(i + 1) ~ /^cgroup2?$/) print $5; break } }' /proc/self/mountinfo; }

# Without CAP_SYS_RESOURCE (bit 24) nobody may lower an oom_score_adj, as a sandbox's -998 does.
lacks_sys_resource() {
    local effective
    effective=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
    [ $((16#$effective >> 24 & 1)) -eq 0 ]
}

# has_containerd ROOT: whether a containerd with all that belongs to it is unpacked there; prints its folder.
has_containerd() {
    local root=$1 program
    for program in bin/containerd bin/containerd-shim-runc-v2 bin/ctr sbin/runc; do
        [ -x "$root/usr/$program" ] || return 1
    done
    printf '%s\n' "$root/usr/bin"
}

# debian_archive FOLDER SUITE: lets apt look at a Debian suite, programs and sources, with a configuration of its
# own below FOLDER/apt (sources, lists, cache, Debian's archive keys): the machine's own packages and apt sources
# stay as they are. `apt_private` and the words after it is apt then, which checks what it fetches.
debian_archive() {
    local home=$1 suite=$2 keyring='' candidate apt kind
    for candidate in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
        [ ! -r "$candidate" ] || keyring=$candidate
    done
    [ -n "$keyring" ] || die "Debian's archive keys are missing (package debian-archive-keyring); run hack/deps.sh"
    apt=$home/apt
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/parts"
    : >"$apt/status"
    for kind in deb deb-src; do
        printf '%s [signed-by=%s] %s %s main\n' "$kind" "$keyring" "${NODECTL_DEBIAN_MIRROR:-http://deb.debian.org/debian}" "$suite"
    done >"$apt/sources.list"
    # The machine's apt.conf.d stays in force: a proxy that the machine needs is set there.
    apt_options=(
        -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts"
        -o "Dir::Etc::preferencesparts=$apt/parts" -o "Dir::Etc::preferences=$apt/none"
        -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status"
        -o "Dir::State::extended_states=$apt/extended_states"
        -o "Dir::Cache=$apt" -o "Dir::Cache::archives=$apt/archives"
        -o "Acquire::Languages=none" -o "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false"
        -o "APT::Sandbox::User=$(id -un)" -o "APT::Update::Post-Invoke::=" -o "APT::Get::List-Cleanup=0"
    )
    apt_private update || die "the package lists of Debian $suite cannot be fetched: the first run needs the network"
}
apt_private() { apt-get -qq "${apt_options[@]}" "$@" >&2; }

# debian_packages FOLDER SUITE PACKAGE[=VERSION]...: unpacks packages of a Debian suite into FOLDER/new, which
# is made anew. They are never installed.
debian_packages() {
    local home=$1 suite=$2 deb
    shift 2
    debian_archive "$home" "$suite"
    rm -rf "$home/new"
    mkdir -p "$home/new"
    (cd "$home/apt/archives" && apt_private download "$@") ||
        die "the packages $* of Debian $suite cannot be fetched (NODECTL_DEBIAN_MIRROR names another archive)"
    for deb in "$home"/apt/archives/*.deb; do dpkg -x "$deb" "$home/new"; done
    rm -rf "$home/apt"
}

# stop_orphans REGISTRY: has the script that calls it stop the folders whose owner has died. Below REGISTRY each has
# a folder with a file `owner` (process and when it was born) and one `dir`.
stop_orphans() {
    local entry folder owner since
    for entry in "$1"/*/; do
        # One that ends by itself meanwhile is none.
        folder=$(cat "$entry/dir" 2>/dev/null) || continue
        owner=$(cat "$entry/owner" 2>/dev/null) || continue
        read -r owner since <<<"$owner"
        if [ "$(born "$owner" || true)" != "$since" ]; then
            say "${0##*/}: removing $folder, whose owner $owner has died"
            "$0" stop "$folder" || true
        fi
    done
}
