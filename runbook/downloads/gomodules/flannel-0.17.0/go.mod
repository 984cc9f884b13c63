module etcd-flannel-runbook.invalid/flannel

go 1.21

require github.com/flannel-io/flannel v0.17.0
