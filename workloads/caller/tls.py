"""What a caller without a sidecar presents when it is told to speak TLS itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# What Istio's sidecars offer to one another. Under PERMISSIVE, a sidecar as a server takes a TLS connection to a port of HTTP for one of the
# mesh only when it is offered "istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1" or "istio-h2", and closes any other; under
# STRICT it asks for none of them (Istio, pilot/pkg/networking/core/filterchain_options.go).
MESH_ALPN = ("istio",)


@dataclass(frozen=True)
class ClientTls:
    """A TLS client's own side of the handshake: no certificate at all, or one with its key (PEM, the leaf first).

    With `ca_pem` the server's chain must lead to one of these roots, else any server is taken: under test is what the server says of the
    client. `server_name` is the SNI. A failed handshake is a record of status 0 whose error names the alert, as in "tls: remote error:
    tls: expired certificate".
    """

    certificate_pem: str = ""
    # Never part of a message.
    key_pem: str = field(default="", repr=False)
    ca_pem: str = ""
    server_name: str = ""
    alpn: tuple[str, ...] = MESH_ALPN

    def order(self) -> Mapping[str, Any]:
        """Return what an order of a draw says of it."""
        return {
            "certificate_pem": self.certificate_pem, "key_pem": self.key_pem, "ca_pem": self.ca_pem,
            "server_name": self.server_name, "alpn": list(self.alpn),
        }
