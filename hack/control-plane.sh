#!/usr/bin/env bash
# A control plane of a test's own, without any node: etcd, an API server and a controller manager on an address of
# the loopback network that is its alone, with kubeadm's rights for nodes that join. The Node authorizer and
# NodeRestriction are on, so that nobody gets away with asking for more than a kubelet may.
#
#   hack/control-plane.sh start DIR          starts it, prints what it is as KEY=VALUE lines (also in DIR/env)
#   hack/control-plane.sh node DIR NAME      makes a kubeconfig with a node's certificate, prints its path
#   hack/control-plane.sh signed DIR NAME SUBJECT USAGE [NAMES]
#                                            makes PKI/NAME.crt and .key, signed by the cluster (NAMES as IP:1.2.3.4)
#   hack/control-plane.sh kill DIR PROGRAM   ends etcd, kube-apiserver or kube-controller-manager at once
#   hack/control-plane.sh resume DIR         starts again what of the three does not run, on the same state
#   hack/control-plane.sh stop DIR           ends it and removes the folder
#   hack/control-plane.sh gc                 stops those whose owner (NODECTL_OWNER) has died
#
# environment: KUBEBUILDER_ASSETS  a folder with etcd and kube-apiserver (and kube-controller-manager, else that of
#                                  hack/kubernetes120.sh), to try another release; else all are of that script
#              NODECTL_OWNER       pid of the process that this is for; see gc
#              NODECTL_STORAGE     how objects are stored (default: application/vnd.kubernetes.protobuf)
#              NODECTL_SIGNING     how long certificates are good that it signs (default: 8760h)
#              NODECTL_AUDIT       1: who asks for what is written to DIR/audit.log, a line of JSON each
set -Eeuo pipefail
export LC_ALL=C
trap 'printf "control-plane.sh: line %s failed: %s\n" "$LINENO" "$BASH_COMMAND" >&2' ERR
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=hack/lib.sh
. "$here/lib.sh"
# shellcheck source=hack/pki.sh
. "$here/pki.sh"

# Who runs; each has a number, which its address follows from.
registry=/run/nodectl-control-planes
programs=(etcd kube-apiserver kube-controller-manager)
# Seconds for all to be ready.
patience=120

usage() {
    sed -n '/^#   hack/,/^#$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

names() {
    case $1 in
    "") usage ;;
    *[!A-Za-z0-9/._-]*) die "$1: only letters, digits and ._- may be in the path" ;;
    esac
    dir=$(readlink -m "$1")
    pki=$dir/pki
    marker=$dir/.nodectl-control-plane
    id=$(printf '%s' "$dir" | sha256sum | cut -c1-8)
}

load() {
    [ -s "$dir/env" ] || die "$dir has no control plane; 'hack/control-plane.sh start $dir' makes one"
    address=$(sed -n 's/^ADDRESS=//p' "$dir/env")
    bin=$(sed -n 's/^BIN=//p' "$dir/env")
    server=https://$address:6443
}

# A number that nobody else has, and with it the address.
register() {
    local number taken
    mkdir -p "$registry"
    (
        flock 9
        for ((number = 1; number < 250; number++)); do
            taken=$(cat "$registry"/*/number 2>/dev/null | grep -cx "$number" || true)
            [ "$taken" -ne 0 ] || break
        done
        mkdir -p "$registry/$id"
        printf '%s\n' "$number" >"$registry/$id/number"
        printf '%s\n' "$dir" >"$registry/$id/dir"
        if [ -n "${NODECTL_OWNER:-}" ]; then printf '%s %s\n' "$NODECTL_OWNER" "$(born "$NODECTL_OWNER")" >"$registry/$id/owner"; fi
        printf '127.77.%s.1\n' "$number"
    ) 9>"$registry.lock"
}

find_programs() {
    local own assets=${KUBEBUILDER_ASSETS:-}
    bin=$dir/bin
    mkdir -p "$bin"
    if [ -n "$assets" ]; then
        for program in etcd kube-apiserver; do
            [ -x "$assets/$program" ] || die "KUBEBUILDER_ASSETS=$assets has no $program"
        done
    fi
    if [ -z "$assets" ] || [ ! -x "$assets/kube-controller-manager" ]; then own=$("$here/kubernetes120.sh"); fi
    for program in "${programs[@]}"; do
        if [ -n "$assets" ] && [ -x "$assets/$program" ]; then
            ln -s "$assets/$program" "$bin/$program"
        else
            ln -s "$own/$program" "$bin/$program"
        fi
    done
}

files() {
    mkdir -p "$pki"
    authority
    certificate apiserver /CN=kube-apiserver serverAuth \
        "DNS:kubernetes,DNS:kubernetes.default.svc,IP:10.96.0.1,IP:$address"
    certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
    certificate admin /O=system:masters/CN=kubernetes-admin clientAuth
    certificate controller-manager /CN=system:kube-controller-manager clientAuth
    openssl genrsa -traditional -out "$pki/sa.key" 2048 2>/dev/null
    local name
    for name in admin controller-manager; do
        kubeconfig "$name" "$server" "$(credentials "$name")" >"$dir/$name.conf"
    done
    if [ -n "${NODECTL_AUDIT:-}" ]; then
        printf '%s\n' 'apiVersion: audit.k8s.io/v1' 'kind: Policy' 'omitStages: [RequestReceived]' \
            'rules: [{level: Metadata}]' >"$dir/audit.yaml"
    fi
    kubeconfig tls-bootstrap-token-user "$server" "token: abcdef.0123456789abcdef" >"$dir/bootstrap.conf"
    chmod 0600 "$dir"/*.conf
}

# run PROGRAM ARGUMENTS...: beside us, its number in DIR/PROGRAM.pid.
run() {
    local program=$1
    shift
    setsid "$bin/$program" "$@" </dev/null >>"$dir/$program.log" 2>&1 &
    printf '%s\n' $! >"$dir/$program.pid"
}

running() {
    local pid
    pid=$(cat "$dir/$1.pid" 2>/dev/null) || return 1
    [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$dir/"
}

launch() {
    if ! running etcd; then
        # Its data is gone with the folder, which is on a tmpfs in the tests.
        run etcd --name test --data-dir "$dir/etcd" --logger zap --log-level warn \
            --listen-client-urls "http://$address:2379" --advertise-client-urls "http://$address:2379" \
            --listen-peer-urls "http://$address:2380" --initial-advertise-peer-urls "http://$address:2380" \
            --initial-cluster "test=http://$address:2380"
    fi
    if ! running kube-apiserver; then
        server_flags
        if [ -e "$dir/audit.yaml" ]; then
            flags+=(--audit-policy-file="$dir/audit.yaml" --audit-log-path="$dir/audit.log")
        fi
        # An address of the loopback network cannot be a service's endpoint.
        run kube-apiserver --bind-address="$address" --secure-port=6443 --allow-privileged=true \
            --endpoint-reconciler-type=none --etcd-servers="http://$address:2379" --authorization-mode=Node,RBAC \
            --enable-admission-plugins=NodeRestriction --enable-bootstrap-token-auth=true \
            --client-ca-file="$pki/ca.crt" --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
            --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
            --kubelet-certificate-authority="$pki/ca.crt" --kubelet-preferred-address-types=InternalIP \
            --service-account-issuer=https://kubernetes.default.svc.cluster.local \
            --service-account-key-file="$pki/sa.key" --service-account-signing-key-file="$pki/sa.key" \
            --service-cluster-ip-range=10.96.0.0/12 "${flags[@]}"
    fi
    wait_for "$patience" answers || failed kube-apiserver
    if ! running kube-controller-manager; then
        controller_flags
        run kube-controller-manager --kubeconfig="$dir/controller-manager.conf" --bind-address="$address" \
            --leader-elect=false --use-service-account-credentials=true \
            --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
            "${flags[@]}" --root-ca-file="$pki/ca.crt" \
            --service-account-private-key-file="$pki/sa.key" --controllers='*,bootstrapsigner,tokencleaner'
    fi
}

# What is asked for, and what an old release has only where it is.
server_flags() {
    local help
    help=$("$bin/kube-apiserver" --help)
    flags=()
    if [ -n "${NODECTL_STORAGE:-}" ]; then flags+=("--storage-media-type=$NODECTL_STORAGE"); fi
    case $help in *'EphemeralContainers=true|false (ALPHA'*) flags+=(--feature-gates=EphemeralContainers=true) ;; esac
}

# What releases name differently.
controller_flags() {
    local help
    help=$("$bin/kube-controller-manager" --help)
    case $help in
    *' --cluster-signing-duration '*) flags=("--cluster-signing-duration=${NODECTL_SIGNING:-8760h}") ;;
    *) flags=("--experimental-cluster-signing-duration=${NODECTL_SIGNING:-8760h}") ;;
    esac
    # Its port without TLS would be on all addresses.
    case $help in *' --port int '*) flags+=(--port=0) ;; esac
}

failed() {
    tail -n 20 "$dir/$1.log" >&2
    die "$1 did not become ready in $dir: see the lines above"
}

api() { # api PATH [CURL-ARGUMENTS...]: asks as administrator
    local path=$1
    shift
    curl --silent --show-error --fail --max-time 10 --cacert "$pki/ca.crt" --cert "$pki/admin.crt" --key "$pki/admin.key" \
        -H 'Content-Type: application/json' "$@" "$server$path"
}

answers() { api /readyz; }
# Made one by one, by the API server and the controller manager: what tests use of them from the beginning.
has_what_is_used() { has_default_account && api /api/v1/namespaces/kube-node-lease; }
has_default_account() { api /api/v1/namespaces/default/serviceaccounts/default; }

# binding NAME ROLE GROUP: as kubeadm makes it.
binding() {
    api /apis/rbac.authorization.k8s.io/v1/clusterrolebindings -o /dev/null -d @- <<JSON
{"metadata": {"name": "$1"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "$2"},
 "subjects": [{"kind": "Group", "name": "$3", "apiGroup": "rbac.authorization.k8s.io"}]}
JSON
}

rights() {
    binding kubeadm:kubelet-bootstrap system:node-bootstrapper system:bootstrappers:kubeadm:default-node-token
    binding kubeadm:node-autoapprove-bootstrap system:certificates.k8s.io:certificatesigningrequests:nodeclient \
        system:bootstrappers:kubeadm:default-node-token
    binding kubeadm:node-autoapprove-certificate-rotation system:certificates.k8s.io:certificatesigningrequests:selfnodeclient system:nodes
    api /api/v1/namespaces/kube-system/secrets -o /dev/null -d @- <<'JSON'
{"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token",
 "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
  "usage-bootstrap-signing": "true", "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token"}}
JSON
}

start() {
    local tool
    for tool in openssl curl setsid flock; do
        command -v "$tool" >/dev/null || die "$tool is missing; run hack/deps.sh"
    done
    if [ -d "$dir" ] && [ ! -e "$marker" ] && [ -n "$(ls -A "$dir")" ]; then
        die "$dir is not empty and no control plane's folder: it would be removed at the end"
    fi
    [ ! -e "$marker" ] || stop
    mkdir -p "$dir"
    chmod 0700 "$dir"
    : >"$marker"
    find_programs
    address=$(register)
    server=https://$address:6443
    files
    if ! launch || ! rights || ! wait_for "$patience" has_what_is_used; then
        tail -n 20 "$dir/kube-controller-manager.log" >&2 || true
        stop
        die "the control plane could not be started in $dir: see the lines above"
    fi
    cat >"$dir/env" <<ENV
ADDRESS=$address
SERVER=$server
BIN=$bin
ADMIN=$dir/admin.conf
BOOTSTRAP=$dir/bootstrap.conf
PKI=$pki
ENV
    cat "$dir/env"
}

node() {
    local name=$1
    case $name in "" | *[!a-z0-9.-]*) die "'$name' is no node's name" ;; esac
    certificate "node-$name" "/O=system:nodes/CN=system:node:$name" clientAuth
    kubeconfig "system:node:$name" "$server" "$(credentials "node-$name")" >"$dir/node-$name.conf"
    chmod 0600 "$dir/node-$name.conf"
    printf '%s\n' "$dir/node-$name.conf"
}

signed() {
    case $1 in "" | *[!a-z0-9.-]*) die "'$1' is no name of a file" ;; esac
    [ $# -ge 3 ] || usage
    certificate "$@"
}

end() { # end PROGRAM [SIGNAL]
    local pid tries
    running "$1" || return 0
    pid=$(cat "$dir/$1.pid")
    kill "-${2:-TERM}" "$pid" 2>/dev/null || true
    kill -CONT "$pid" 2>/dev/null || true
    for ((tries = 0; tries < 100; tries++)); do
        running "$1" || return 0
        [ "$tries" -ne 50 ] || kill -KILL "$pid" 2>/dev/null || true
        sleep 0.1
    done
}

stop() {
    [ -e "$dir" ] || { rm -rf "${registry:?}/$id"; return 0; }
    [ -e "$marker" ] || die "$dir is no control plane's folder: left as it is"
    end kube-controller-manager KILL
    end kube-apiserver KILL
    end etcd KILL
    rm -rf "$dir" "${registry:?}/$id"
}

case ${1:-} in
start) names "${2:-}" && start ;;
node) names "${2:-}" && load && node "${3:-}" ;;
signed) names "${2:-}" && load && signed "${@:3}" ;;
kill) names "${2:-}" && load && end "${3:?usage: hack/control-plane.sh kill DIR PROGRAM}" KILL ;;
resume) names "${2:-}" && load && launch ;;
stop) names "${2:-}" && stop ;;
gc) stop_orphans "$registry" ;;
*) usage ;;
esac
