"""An issuer's keys and tokens, valid ones and those that a mesh must refuse; nothing here needs a cluster.

Made with joserfc: it has key sets and their public halves as objects of their own, which PyJWT leaves to its user, and it is what
Authlib now rests on. Tokens that no library makes on purpose (no signature, a public key as a shared secret) are put together by hand.
"""

import base64
import hashlib
import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

from joserfc import jwk, jwt

LIFETIME_S = 3600
AUDIENCE = "serverless"
# Two base64url parts that begin like a JSON object, and a signature, which may be empty.
TOKEN = re.compile(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]*")


class Issuer:
    """Who signs tokens as `name`, with one key at a time, and publishes the public half of every key not yet withdrawn.

    `algorithm` is RS256 or ES256. The private keys never leave this object; neither its text nor `jwks` shows them.
    """

    def __init__(self, name: str = "https://issuer.serverless.example.com", *, algorithm: str = "RS256", clock: Callable[[], float] = time.time) -> None:
        self.name = name
        self.algorithm = algorithm
        self._clock = clock
        self._made = 0
        self._keys: dict[str, jwk.RSAKey | jwk.ECKey] = {}
        self._published: list[str] = []
        self.kid = self._add()

    def rotate(self) -> str:
        """Make a new key, publish it beside the others and sign with it from now on; return the id of the one that signed before."""
        before, self.kid = self.kid, self._add()
        return before

    def withdraw(self, kid: str) -> None:
        """Publish a key no longer; tokens can still be made with it, as a thief could. ValueError when it is not published."""
        self._published.remove(kid)

    def jwks(self) -> str:
        """Return the published keys, public halves only, as one line of JSON (RFC 7517)."""
        return json.dumps({"keys": [self._keys[kid].as_dict(private=False) for kid in self._published]}, sort_keys=True)

    def mint(
        self, *, kid: str | None = None, headers: Mapping[str, Any] | None = None, lifetime_s: float = LIFETIME_S, starts_in_s: float | None = None, **claims: Any,  # noqa: ANN401  # a claim is any JSON
    ) -> str:
        """Return a signed token; valid unless something is said against it.

        It carries `iss`, `sub`, `aud`, `iat` and `exp`; a claim of None is left out. It ends `lifetime_s` seconds from now, which
        may be negative, and begins (`nbf`) `starts_in_s` from now where that is given. `kid` chooses another key that this issuer
        has or had; `headers` replace what the header says, whatever key signs, and None leaves `kid` out.
        """
        key = self._keys[kid or self.kid]
        header = _without_none({"alg": self.algorithm, "typ": "JWT", "kid": key.kid, **(headers or {})})
        return jwt.encode(header, self._claims(lifetime_s, starts_in_s, claims), key, algorithms=[self.algorithm])

    def unsigned(self, **claims: Any) -> str:  # noqa: ANN401  # a claim is any JSON
        """Return a token of algorithm `none` with an empty signature (RFC 7519, section 6)."""
        return f"{_encoded({'alg': 'none', 'typ': 'JWT', 'kid': self.kid})}.{_encoded(self._claims(LIFETIME_S, None, claims))}."

    def confused(self, **claims: Any) -> str:  # noqa: ANN401  # a claim is any JSON
        """Return a token signed with HS256, the secret of which is the public key as PEM (RFC 8725, section 2.1)."""
        secret = self._keys[self.kid].as_pem(private=False)
        text = f"{_encoded({'alg': 'HS256', 'typ': 'JWT', 'kid': self.kid})}.{_encoded(self._claims(LIFETIME_S, None, claims))}"
        return f"{text}.{_base64(hmac.digest(secret, text.encode(), 'sha256'))}"

    def __repr__(self) -> str:
        return f"Issuer({self.name!r}, {self.algorithm}, {len(self._published)} keys)"

    def _add(self) -> str:
        self._made += 1
        # The id follows from the key: two issuers of one name do not share any.
        key: jwk.RSAKey | jwk.ECKey = jwk.RSAKey.generate_key(2048) if self.algorithm.startswith("RS") else jwk.ECKey.generate_key("P-256")
        kid = f"{self.algorithm.lower()}-{self._made}-{key.thumbprint()[:8]}"
        parameters = {"kid": kid, "alg": self.algorithm, "use": "sig"}
        self._keys[kid] = type(key).import_key({**key.as_dict(private=True), **parameters})
        self._published.append(kid)
        return kid

    def _claims(self, lifetime_s: float, starts_in_s: float | None, claims: Mapping[str, Any]) -> dict[str, Any]:
        now = int(self._clock())
        begins = None if starts_in_s is None else round(now + starts_in_s)
        standard = {"iss": self.name, "sub": "somebody", "aud": AUDIENCE, "iat": now, "nbf": begins, "exp": round(now + lifetime_s)}
        return _without_none({**standard, **claims})


def with_payload(token: str, **claims: Any) -> str:  # noqa: ANN401  # a claim is any JSON
    """Return a token that says something else than what was signed."""
    header, payload, signature = token.split(".")
    return f"{header}.{_encoded({**json.loads(_decoded(payload)), **claims})}.{signature}"


def with_broken_signature(token: str) -> str:
    """Return a token whose signature differs in every bit of its first byte and in nothing else."""
    text, _, signature = token.rpartition(".")
    raw = _decoded(signature)
    return f"{text}.{_base64(bytes([raw[0] ^ 0xFF]) + raw[1:])}"


def digest(token: str) -> str:
    """Return what may be kept of a token: enough to tell whether two are the same, and nothing to use it by."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()[:32]}"


def redacted(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON as evidence keeps it: with its digest in place of each token, which functions see in headers and proxies log in paths."""
    kept: dict[str, Any] = json.loads(TOKEN.sub(lambda token: digest(token[0]), json.dumps(evidence)))
    return kept


def _without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _encoded(part: Mapping[str, Any]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
