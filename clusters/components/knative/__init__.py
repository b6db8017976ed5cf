"""Knative Serving, and the controller that programs the mesh's ingress gateway for it: through the Gateway API, or in Istio's own terms."""
