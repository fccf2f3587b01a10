# shellcheck shell=bash
# shellcheck disable=SC2154 # pki, the folder that all is in, is set by who sources this
# Certificates and kubeconfigs of a cluster of the tests, as kubeadm makes them. Sourced, never run.

# authority: the cluster's.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=kubernetes \
        -addext keyUsage=critical,digitalSignature,keyCertSign -keyout "$pki/ca.key" -out "$pki/ca.crt" 2>/dev/null
}

# certificate NAME SUBJECT USAGE [ALTERNATIVE-NAMES]: NAME.crt and NAME.key, the key as kubeadm has it.
certificate() {
    openssl genrsa -traditional -out "$pki/$1.key" 2048 2>/dev/null
    openssl req -new -key "$pki/$1.key" -subj "$2" -out "$pki/$1.csr"
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -set_serial "0x$(openssl rand -hex 8)" -days 365 -out "$pki/$1.crt" \
        -extfile <(printf 'keyUsage=critical,digitalSignature,keyEncipherment\nextendedKeyUsage=%s\n' "$3" && printf '%s' "${4:+subjectAltName=$4}") 2>/dev/null
    rm "$pki/$1.csr"
}

# kubeconfig USER SERVER CREDENTIALS: on stdout; the credentials are lines of the user, `key: value`.
kubeconfig() {
    cat <<YAML
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: $(base64 -w 0 "$pki/ca.crt")
    server: $2
  name: kubernetes
contexts:
- context:
    cluster: kubernetes
    user: $1
  name: $1@kubernetes
current-context: $1@kubernetes
kind: Config
preferences: {}
users:
- name: $1
  user:
$(printf '%s\n' "$3" | sed 's/^/    /')
YAML
}

# credentials NAME: the user's lines with the certificate NAME.
credentials() {
    printf 'client-certificate-data: %s\nclient-key-data: %s\n' "$(base64 -w 0 "$pki/$1.crt")" "$(base64 -w 0 "$pki/$1.key")"
}
