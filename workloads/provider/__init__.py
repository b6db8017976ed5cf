"""provider: an OpenID Connect provider built from a certified library, with users of the run's own."""

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clusters.manifests import load_manifest

MANIFESTS = Path(__file__).parent / "manifests.yaml"
CLIENT = "edge"


def _drawn() -> str:
    return secrets.token_hex(24)


@dataclass(frozen=True, repr=False)
class Accounts:
    """Who may log in, and with what: drawn anew for every run, never written to evidence.

    `lifetimes` are the seconds that a user's tokens, and so their sessions, last.
    """

    lifetimes: Mapping[str, float]
    client_secret: str = field(default_factory=_drawn)
    # A P-256 scalar must be below the curve's order: a first byte of zero makes sure.
    signing_key: str = field(default_factory=lambda: "00" + secrets.token_hex(31))
    passwords: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Draw a password for each user."""
        self.passwords.update({user: _drawn() for user in self.lifetimes})


def issuer(namespace: str) -> str:
    """Return the provider's name for itself, which its tokens carry as `iss`."""
    return f"http://provider.{namespace}.svc.cluster.local"


def provider(namespace: str, accounts: Accounts, *, redirect_uri: str) -> list[dict[str, Any]]:
    """Return the Secret, ServiceAccount, Service and Deployment of a provider that sends its users back to `redirect_uri` only."""
    config = {
        "signing_key": accounts.signing_key,
        "client": {"id": CLIENT, "secret": accounts.client_secret, "redirect_uri": redirect_uri},
        "users": {user: {"password": accounts.passwords[user], "token_seconds": seconds} for user, seconds in accounts.lifetimes.items()},
    }
    secret = {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "provider"}, "stringData": {"config.json": json.dumps(config)},
    }
    return [secret, *(document.body for document in load_manifest(MANIFESTS, namespace=namespace))]
