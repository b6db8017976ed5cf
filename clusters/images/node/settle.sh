#!/bin/sh
# Settle what kind's base image leaves to the build: runtime configuration, version, CNI and storage manifests.
set -eu

ctr oci spec \
  | jq '.hooks.createContainer[.hooks.createContainer | length] |= . + {"path": "/kind/bin/mount-product-files.sh"}' \
  | jq 'del(.process.rlimits)' > /etc/containerd/cri-base.json

# runc-bounded hands over to runc at once where no capability is missing. A lower OOM score cannot be set
# without CAP_SYS_RESOURCE, so the node never tries.
sed -i \
  -e "s|sandbox_image = .*|sandbox_image = \"${PAUSE_IMAGE}\"|" \
  -e 's|restrict_oom_score_adj = false|restrict_oom_score_adj = true|' \
  -e 's|SystemdCgroup = true|SystemdCgroup = true\n    BinaryName = "/usr/local/sbin/runc-bounded"|' \
  /etc/containerd/config.toml
cat >> /etc/containerd/config.toml <<'TOML'

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
TOML
grep -q runc-bounded /etc/containerd/config.toml
grep -q "${PAUSE_IMAGE}" /etc/containerd/config.toml

echo "${KUBERNETES_VERSION}" > /kind/version

# The pod network is upstream's manifest with four settings: the pinned image, routing only (kube-proxy serves
# Services), no second copy of the image's CNI binaries, and no eighth of a small node kept free for it.
sed \
  -e "s|docker.io/cloudnativelabs/kube-router\$|${KUBE_ROUTER_IMAGE}|" \
  -e 's|imagePullPolicy: Always|imagePullPolicy: IfNotPresent|' \
  -e 's|--run-firewall=true|--run-firewall=false|' \
  -e 's|cpu: 250m|cpu: 20m|' \
  /tmp/cni/kubeadm-kuberouter.yaml > /kind/manifests/default-cni.yaml
grep -q "${KUBE_ROUTER_IMAGE}" /kind/manifests/default-cni.yaml
grep -q -- "--run-firewall=false" /kind/manifests/default-cni.yaml
grep -q "cpu: 20m" /kind/manifests/default-cni.yaml

# kind's clusters call their default class `standard`.
sed \
  -e "s|image: busybox|image: ${BUSYBOX_IMAGE}|" \
  -e 's|^  name: local-path$|  name: standard\n  annotations: {storageclass.kubernetes.io/is-default-class: "true"}|' \
  /tmp/storage/local-path-storage.yaml > /kind/manifests/default-storage.yaml
grep -q is-default-class /kind/manifests/default-storage.yaml
grep -q "${BUSYBOX_IMAGE}" /kind/manifests/default-storage.yaml
