# shellcheck shell=bash
# shellcheck disable=SC2154 # the variables are set by names() and tools() of hack/machine.sh
# What makes a machine of hack/machine.sh a node of a cluster: an API server 1.20 with its etcd, on the machine
# itself as units, certificates and kubeconfigs where kubeadm has them, and a kubelet that registers the node.
# No controller manager and no scheduler: tests make pods themselves, and say themselves what a disruption budget
# allows. Sourced by hack/machine.sh.

# Where the API server is, also for somebody on another node: the machine's own address.
server=https://192.168.77.10:6443

cluster_files() {
    local pki=$root/etc/kubernetes/pki
    mkdir -p "$pki"
    authority
    certificate apiserver /CN=kube-apiserver serverAuth \
        DNS:kubernetes,DNS:kubernetes.default.svc,DNS:node1,IP:10.96.0.1,IP:192.168.77.10,IP:127.0.0.1
    certificate apiserver-kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
    certificate admin /O=system:masters/CN=kubernetes-admin clientAuth
    certificate kubelet /O=system:nodes/CN=system:node:node1 clientAuth
    openssl genrsa -traditional -out "$pki/sa.key" 2048 2>/dev/null
    kubeconfig kubernetes-admin "$server" "$(credentials admin)" | put etc/kubernetes/admin.conf 0600
    kubeconfig system:node:node1 "$server" "$(credentials kubelet)" | put etc/kubernetes/kubelet.conf 0600

    put etc/systemd/system/etcd.service <<'UNIT'
[Unit]
Description=etcd

[Service]
Type=notify
ExecStart=/usr/local/bin/etcd --name node1 --data-dir /var/lib/etcd --logger zap --log-level warn
Restart=always
UNIT
    # As kubeadm's static pod has it, but for what needs a controller manager: tokens of service accounts.
    put etc/systemd/system/kube-apiserver.service <<'UNIT'
[Unit]
Description=Kubernetes API server
Requires=etcd.service
After=etcd.service
Before=kubelet.service

[Service]
Type=notify
ExecStart=/usr/local/bin/kube-apiserver --advertise-address=192.168.77.10 --allow-privileged=true \
    --authorization-mode=Node,RBAC --client-ca-file=/etc/kubernetes/pki/ca.crt \
    --disable-admission-plugins=ServiceAccount --enable-admission-plugins=NodeRestriction \
    --etcd-servers=http://127.0.0.1:2379 --insecure-port=0 \
    --kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt \
    --kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key \
    --secure-port=6443 --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file=/etc/kubernetes/pki/sa.key --service-account-signing-key-file=/etc/kubernetes/pki/sa.key \
    --service-cluster-ip-range=10.96.0.0/12 --tls-cert-file=/etc/kubernetes/pki/apiserver.crt \
    --tls-private-key-file=/etc/kubernetes/pki/apiserver.key
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
UNIT
    ln -s ../kube-apiserver.service "$root/etc/systemd/system/multi-user.target.wants/kube-apiserver.service"

    sed -i 's|KUBELET_KUBECONFIG_ARGS=|&--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf|' \
        "$root/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"
    # Whoever asks the kubelet is asked back about.
    sed -i -e '/webhook:/,/enabled:/s/enabled: false/enabled: true/' -e 's/mode: AlwaysAllow/mode: Webhook/' \
        -e 's|^  webhook:|  x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt\n&|' "$disk/kubelet/config.yaml"
}

# ready: the API server has the node, and the node is Ready.
ready() {
    # shellcheck disable=SC2016 # kubectl's own words
    [ "$(inside kubectl --kubeconfig /etc/kubernetes/admin.conf get node node1 \
        -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' 2>/dev/null || true)" = True ]
}
