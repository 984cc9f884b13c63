#!/usr/bin/env bash
# CA, etcd's and flanneld's certificates by openssl, once, for the contenders whose own way is to call it. In the job's folder.
set -euo pipefail
source ./environment.sh
[ ! -e flanneld.pem ] || exit 0
openssl ecparam -name prime256v1 -genkey -noout -out ca-key.pem
openssl req -x509 -new -key ca-key.pem -sha256 -days 7300 -subj "/O=k8s/CN=etcd-ca" -out ca.pem
names="DNS:localhost,IP:127.0.0.1$(printf ',DNS:%s' "${NODE_NAMES[@]}")$(printf ',IP:%s' "${NODE_IPS[@]}")"
issue() {
  openssl ecparam -name prime256v1 -genkey -noout -out "$1-key.pem"
  openssl req -new -key "$1-key.pem" -subj "/O=k8s/CN=$1" -out "$1.csr"
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial -sha256 -days 3650 -out "$1.pem" \
    -extfile <(printf '%s\n' "$2" "$3") 2>/dev/null
}
issue etcd "subjectAltName=$names" extendedKeyUsage=serverAuth,clientAuth
issue flanneld extendedKeyUsage=clientAuth ''
