"""Istio: control plane, sidecar injection and ingress gateway."""
