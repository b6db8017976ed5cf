"""Acting as a ServiceAccount: its token from the TokenRequest API, and requests made with nothing else."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes import client

from clusters.apiserver import ApiServer
from clusters.kube import Kube

# The shortest that the API server takes (Kubernetes API, TokenRequestSpec: "at least 10 minutes").
SHORTEST_SECONDS = 600


@dataclass(frozen=True, repr=False)
class Token:
    """A ServiceAccount's token. Its text never goes into evidence; its claims may."""

    text: str

    @property
    def claims(self) -> Mapping[str, Any]:
        """What the token says of itself, unverified: issuer, audience, expiry, and whom it is bound to."""
        middle = self.text.split(".")[1]
        said: Mapping[str, Any] = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
        return said


def token_of(kube: Kube, namespace: str, account: str, *, audiences: Sequence[str] = (), seconds: int = SHORTEST_SECONDS) -> Token:
    """Ask for a token of a ServiceAccount, for the API server itself unless `audiences` says otherwise; NotFound for a missing account."""
    spec: dict[str, Any] = {"expirationSeconds": seconds, **({"audiences": list(audiences)} if audiences else {})}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    answer = kube.server.call("POST", path, body=body, what=f"token of ServiceAccount {namespace}/{account}")
    return Token(str(answer["status"]["token"]))


def acting(kube: Kube, token: Token) -> ApiServer:
    """Return a connection to the same API server with this token and no other credentials."""
    known = kube.server.client.configuration
    own = client.Configuration()
    own.host, own.ssl_ca_cert, own.verify_ssl, own.proxy = known.host, known.ssl_ca_cert, known.verify_ssl, known.proxy
    own.tls_server_name = known.tls_server_name
    own.api_key = {"authorization": f"Bearer {token.text}"}
    return ApiServer(client.ApiClient(own), kube.server.origin)
