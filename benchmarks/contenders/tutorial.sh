#!/usr/bin/env bash
# The job as tutorials of this kind have it ("follow me: install a Kubernetes cluster by hand"): one loop over the nodes
# after the other, each with its own ssh and scp, certificates by openssl in cfssl's place. Nothing is added that makes it
# slow: no sleep, no download, the first start of etcd in the background, etcdctl on this side as on the tutorial's master.
# Runs in a folder that holds environment.sh, ssh_config, dist/ and templates/.
set -euo pipefail
source ./environment.sh
shopt -s expand_aliases
alias ssh='ssh -F ssh_config' scp='scp -q -F ssh_config'

# 01 binaries
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  ssh "root@${node_ip}" "id etcd >/dev/null 2>&1 || useradd -r -s /usr/sbin/nologin etcd; mkdir -p /opt/k8s/bin"
done
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  # A second run finds etcd running, and its file can't be written then ("Text file busy"): pages say to remove it first.
  ssh "root@${node_ip}" "rm -f /opt/k8s/bin/*"
  scp dist/etcd dist/etcdctl dist/etcdutl "root@${node_ip}:/opt/k8s/bin/"
  ssh "root@${node_ip}" "chmod +x /opt/k8s/bin/*"
done
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  scp dist/flanneld dist/mk-docker-opts.sh "root@${node_ip}:/opt/k8s/bin/"
  ssh "root@${node_ip}" "chmod +x /opt/k8s/bin/*"
done

# 02 CA and etcd's certificate: one for all nodes
if [ ! -e ca.pem ]; then
  openssl ecparam -name prime256v1 -genkey -noout -out ca-key.pem
  openssl req -x509 -new -key ca-key.pem -sha256 -days 7300 -subj "/O=k8s/CN=etcd-ca" -out ca.pem
fi
names="DNS:localhost,IP:127.0.0.1$(printf ',DNS:%s' "${NODE_NAMES[@]}")$(printf ',IP:%s' "${NODE_IPS[@]}")"
openssl ecparam -name prime256v1 -genkey -noout -out etcd-key.pem
openssl req -new -key etcd-key.pem -subj "/O=k8s/CN=etcd" -out etcd.csr
openssl x509 -req -in etcd.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -sha256 -days 3650 -out etcd.pem \
  -extfile <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$names") 2>/dev/null
for node_ip in "${ETCD_IPS[@]}"; do
  echo ">>> ${node_ip}"
  ssh "root@${node_ip}" "mkdir -p /etc/etcd/cert"
  scp ca.pem etcd.pem etcd-key.pem "root@${node_ip}:/etc/etcd/cert/"
  ssh "root@${node_ip}" "chown -R etcd:etcd /etc/etcd/cert && chmod 600 /etc/etcd/cert/etcd-key.pem"
done

# 03 etcd's units
for ((i = 0; i < ${#ETCD_IPS[@]}; i++)); do
  sed -e "s/##NODE_NAME##/${NODE_NAMES[i]}/" -e "s/##NODE_IP##/${ETCD_IPS[i]}/g" -e "s|##ETCD_NODES##|${ETCD_NODES}|" \
    templates/etcd.service.template >"etcd-${ETCD_IPS[i]}.service"
done
for node_ip in "${ETCD_IPS[@]}"; do
  echo ">>> ${node_ip}"
  ssh "root@${node_ip}" "mkdir -p /data/k8s/etcd/data /data/k8s/etcd/wal && chown -R etcd:etcd /data/k8s/etcd && chmod -R go= /data/k8s/etcd"
  scp "etcd-${node_ip}.service" "root@${node_ip}:/etc/systemd/system/etcd.service"
done

# 04 start etcd
for node_ip in "${ETCD_IPS[@]}"; do
  echo ">>> ${node_ip}"
  ssh "root@${node_ip}" "systemctl daemon-reload && systemctl enable -q etcd && systemctl restart etcd" &
done
wait
for node_ip in "${ETCD_IPS[@]}"; do
  echo ">>> ${node_ip}"
  ssh "root@${node_ip}" "systemctl status etcd | grep Active"
done

# 05 verify etcd
export ETCDCTL_CACERT=ca.pem ETCDCTL_CERT=etcd.pem ETCDCTL_KEY=etcd-key.pem
for node_ip in "${ETCD_IPS[@]}"; do
  echo ">>> ${node_ip}"
  dist/etcdctl --endpoints="https://${node_ip}:2379" endpoint health
done

# 06 flannel's certificate: one for all nodes
openssl ecparam -name prime256v1 -genkey -noout -out flanneld-key.pem
openssl req -new -key flanneld-key.pem -subj "/O=k8s/CN=flanneld" -out flanneld.csr
openssl x509 -req -in flanneld.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -sha256 -days 3650 -out flanneld.pem \
  -extfile <(printf 'extendedKeyUsage=clientAuth\n') 2>/dev/null
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  ssh "root@${node_ip}" "mkdir -p /etc/flanneld/cert"
  scp ca.pem flanneld.pem flanneld-key.pem "root@${node_ip}:/etc/flanneld/cert/"
  ssh "root@${node_ip}" "chmod 600 /etc/flanneld/cert/flanneld-key.pem"
done

# 07 flannel's network config
dist/etcdctl --endpoints="${ETCD_ENDPOINTS}" put /kubernetes/network/config \
  '{"Network":"172.30.0.0/16","SubnetLen":21,"Backend":{"Type":"vxlan"}}'

# 08 flannel's units
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  sed -e "s/##NODE_IP##/${node_ip}/g" -e "s|##ETCD_ENDPOINTS##|${ETCD_ENDPOINTS}|" \
    templates/flanneld.service.template >"flanneld-${node_ip}.service"
  scp "flanneld-${node_ip}.service" "root@${node_ip}:/etc/systemd/system/flanneld.service"
done

# 09 start flannel
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  ssh "root@${node_ip}" "systemctl daemon-reload && systemctl enable -q flanneld && systemctl restart flanneld"
done
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  ssh "root@${node_ip}" "systemctl status flanneld | grep Active"
done

# 10 verify flannel
dist/etcdctl --endpoints="${ETCD_ENDPOINTS}" get /kubernetes/network/config
dist/etcdctl --endpoints="${ETCD_ENDPOINTS}" get /kubernetes/network/subnets --prefix --keys-only
overlay=()
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  overlay+=("$(ssh "root@${node_ip}" "ip -4 -o addr show flannel.1 | grep -o 'inet [0-9.]*' | cut -d' ' -f2")")
done

# 11 ping every flannel address from every node
for node_ip in "${NODE_IPS[@]}"; do
  echo ">>> ${node_ip}"
  for address in "${overlay[@]}"; do
    ssh "root@${node_ip}" "ping -c 1 -W 2 ${address} >/dev/null"
  done
done
