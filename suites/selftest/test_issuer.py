"""The issuer: its tokens hold or fail for the reason they were made for, its keys stay with it, and its pod serves what it was given."""

import base64
import hmac
import json
from dataclasses import dataclass, field

import pytest
from joserfc import jwk, jwt
from joserfc.errors import JoseError

from clusters.kube import ProxyResponse
from workloads.issuer import issuer
from workloads.issuer.client import IssuerServer
from workloads.issuer.tokens import Issuer, digest, redacted, with_broken_signature, with_payload
from workloads.records import CallRecord, Draw

NOW = 1_000_000


def keys(one: Issuer) -> jwk.KeySet:
    return jwk.KeySet.import_key_set(json.loads(one.jwks()))


def read(token: str, part: int) -> dict[str, object]:
    return json.loads(base64.urlsafe_b64decode(token.split(".")[part] + "==="))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
def test_a_token_is_verified_with_what_the_issuer_publishes(algorithm):
    one = Issuer("me", algorithm=algorithm, clock=lambda: NOW)

    token = one.mint(groups=["a"], sub=None)

    said = jwt.decode(token, keys(one), algorithms=[algorithm])
    assert said.claims == {"iss": "me", "aud": "serverless", "iat": NOW, "exp": NOW + 3600, "groups": ["a"]}
    assert said.header == {"alg": algorithm, "typ": "JWT", "kid": one.kid}


def test_times_and_headers_are_as_asked_for():
    one = Issuer(clock=lambda: NOW)

    token = one.mint(lifetime_s=-30, starts_in_s=300, headers={"kid": None})

    assert (read(token, 1)["exp"], read(token, 1)["nbf"]) == (NOW - 30, NOW + 300)
    assert read(token, 0) == {"alg": "RS256", "typ": "JWT"}


@pytest.mark.parametrize("broken", [
    lambda one: with_payload(one.mint(), groups=["admins"]),
    lambda one: with_broken_signature(one.mint()),
    lambda one: one.unsigned(),
    lambda one: one.confused(),
    lambda one: one.mint(headers={"kid": "other"}),
    lambda one: Issuer(one.name).mint(),
    lambda one: Issuer(one.name).mint(headers={"kid": one.kid}),
])  # fmt: skip
def test_a_forged_token_is_not_verified(broken):
    one = Issuer()

    with pytest.raises((JoseError, ValueError)):
        jwt.decode(broken(one), keys(one), algorithms=["RS256", "ES256"])


def test_a_confused_verifier_would_take_the_public_key_for_a_secret():
    one = Issuer()

    text, _, signature = one.confused(sub="forger").rpartition(".")

    secret = keys(one).keys[0].as_pem(private=False)
    assert base64.urlsafe_b64decode(signature + "=") == hmac.digest(secret, text.encode(), "sha256")
    assert read(text, 0)["alg"] == "HS256"


def test_keys_rotate_beside_each_other():
    one = Issuer()
    before = one.rotate()

    old, new = one.mint(kid=before), one.mint()
    assert {key.kid for key in keys(one).keys} == {before, one.kid}
    one.withdraw(before)

    assert [key.kid for key in keys(one).keys] == [one.kid]
    jwt.decode(new, keys(one), algorithms=["RS256"])
    with pytest.raises((JoseError, ValueError)):
        jwt.decode(old, keys(one), algorithms=["RS256"])
    with pytest.raises(ValueError, match="not in list"):
        one.withdraw(before)


def test_no_private_half_is_published_or_shown():
    for one in (Issuer(), Issuer(algorithm="ES256")):
        for key in json.loads(one.jwks())["keys"]:
            assert not key.keys() & {"d", "p", "q", "dp", "dq", "qi", "k"}
        assert "\n" not in one.jwks()
        assert "'" not in one.jwks()
        assert repr(one).endswith("1 keys)")


def test_a_kept_draw_holds_digests_instead_of_tokens():
    token = Issuer().mint()
    record = CallRecord(0, 200, "", 1.0, 0.0, seen={"authorization": [f"Bearer {token}"], "cookie": [f"a=b; session={token}"], "x-other": ["eyJ"]})

    kept = redacted(Draw("http://f", "GET", 1, 1, (record,), "now", 0.1).to_json())

    assert kept["records"][0]["seen"] == {"authorization": [f"Bearer {digest(token)}"], "cookie": [f"a=b; session={digest(token)}"], "x-other": ["eyJ"]}
    assert token.split(".")[1] not in json.dumps(kept)
    assert Draw.from_json(kept).count == 1


def test_an_issuer_is_found_under_its_name():
    front, deployment = issuer("partner-issuer")

    assert front["spec"]["selector"].items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert front["metadata"]["name"] == deployment["metadata"]["name"] == "partner-issuer"


@dataclass
class RecordedKube:
    """Answers every request alike and remembers them."""

    status: int = 200
    asked: list[tuple[str, str, bytes | None]] = field(default_factory=list)

    def request(self, pod, namespace, port, method, path, body=None, headers=None, timeout=30.0):  # noqa: ARG002  # as Kube has it
        assert (pod, namespace, port) == ("issuer-0", "ns", 9000)
        self.asked.append((method, path, body))
        fetches = [{"path": "/jwks", "peer": "10.0.0.1", "agent": "Go-http-client/1.1", "count": 2}]
        return ProxyResponse(self.status, {}, json.dumps(fetches).encode())


def test_publishing_serves_the_keys_and_what_leads_to_them():
    kube, one = RecordedKube(), Issuer("me")

    address = IssuerServer(kube, "ns", "issuer-0").publish(one, "/keys")

    discovery = {"issuer": "me", "jwks_uri": "http://issuer.ns.svc.cluster.local/keys"}
    assert address == discovery["jwks_uri"]
    assert kube.asked == [
        ("PUT", "/_documents/keys", one.jwks().encode()),
        ("PUT", "/_documents/.well-known/openid-configuration", json.dumps(discovery).encode()),
    ]


def test_the_pod_is_told_and_asked_on_its_control_port():
    kube = RecordedKube()
    server = IssuerServer(kube, "ns", "issuer-0")

    server.behave("fail")
    server.reset_fetches()
    (fetch,) = server.fetches()

    assert kube.asked == [("POST", "/_behaviour/fail", None), ("POST", "/_fetches/reset", None), ("GET", "/_fetches", None)]
    assert fetch.to_json() == {"path": "/jwks", "peer": "10.0.0.1", "agent": "Go-http-client/1.1", "count": 2}


def test_an_answer_that_is_not_200_is_said():
    with pytest.raises(ConnectionError, match="GET /_fetches of pod ns/issuer-0 answered 503"):
        IssuerServer(RecordedKube(503), "ns", "issuer-0").fetches()
