"""How long each thing may take before waiting for it is pointless: one field per thing awaited."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Timeouts:
    """Seconds, sized for two busy cores: about four times what a quiet machine needs, so that red means broken."""

    # kubeadm restarts the API server's static pod once while it settles.
    api_server_answers: float = 60
    # The pod network must be written and kubelet must notice it; 22 s when everything is local.
    node_ready: float = 90
    # One image pull from the local registry plus the start of a program; published images come over the network.
    deployment_available: float = 120
    # A webhook lags behind its Deployment: its certificate is patched in, then every API server must reload it.
    webhook_serving: float = 60
    # istiod, its CRDs and the gateway, which starts only after istiod injects it; 23 s on a quiet machine.
    istio_ready: float = 180
    # A function's pod with two containers beside its own, then the ingress asked until every proxy of it answers; 4 s on a quiet machine.
    function_ready: float = 90
    # istiod debounces for up to 10 s, then pushes to every proxy one after the other.
    propagation: float = 30
    # Every pod of it must be gone, then the namespace controller makes its rounds, some seconds apart.
    namespace_gone: float = 60

    def scaled(self, factor: float) -> "Timeouts":
        """Return all of them multiplied by `factor`, for machines that are slower than two cores; ValueError unless positive."""
        if factor <= 0:
            raise ValueError(f"timeouts can only be scaled by a positive factor, got {factor}")
        return Timeouts(**{field.name: getattr(self, field.name) * factor for field in fields(self)})
