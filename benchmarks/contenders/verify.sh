# In sh on a node: waits for a lease for each of COUNT nodes, then pings every flannel address until none is lost.
# ENDPOINTS and COUNT are put in front. Peers learn a new lease a moment late, so it looks again, for five seconds.
etcdctl="/opt/k8s/bin/etcdctl --endpoints=$ENDPOINTS --cacert=/etc/etcd/cert/ca.pem --cert=/etc/etcd/cert/etcd.pem --key=/etc/etcd/cert/etcd-key.pem"
for look in 1 2 3 4 5 6 7 8 9 10; do
  leases=$($etcdctl get --prefix --keys-only /kubernetes/network/subnets/ | sed -n 's|.*/\([0-9.]*\)-.*|\1|p')
  set -- $leases
  if [ $# = "$COUNT" ]; then
    lost=
    for address in $leases; do ping -q -n -c 1 -W 1 "$address" >/dev/null || lost=$address; done
    [ -n "$lost" ] || exit 0
  fi
  sleep 0.5
done
echo "leases: $leases; lost: $lost" >&2
exit 1
