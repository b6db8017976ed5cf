"""Workload certificates: a pod whose certificate lasts seconds, what its agent was given, and what no CA of the mesh ever gave out."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from clusters.components.istio.authority import key_pem
from clusters.components.istio.client import SIDECAR
from clusters.kube import ExecFailed, Kube
from clusters.waiting import eventually
from workloads.caller.client import Caller
from workloads.caller.tls import ClientTls

# The only directory that a sidecar's agent may write to.
WRITTEN_TO = "/etc/istio/proxy"
PROXY_CONFIG = "proxy.istio.io/config"


@dataclass(frozen=True)
class Credential:
    """A certificate with its key and the roots that came with it."""

    chain_pem: str
    key_pem: str = field(repr=False)
    roots_pem: str = ""

    @property
    def leaf(self) -> x509.Certificate:
        """The workload's own certificate."""
        return x509.load_pem_x509_certificates(self.chain_pem.encode())[0]

    @property
    def not_after(self) -> float:
        """When it ends, in seconds since 1970."""
        return self.leaf.not_valid_after_utc.timestamp()

    def tls(self) -> ClientTls:
        """Return what a client that presents it says."""
        return ClientTls(self.chain_pem, self.key_pem)

    def to_json(self) -> dict[str, Any]:
        """Return its public part as evidence keeps it: never the key. Times are seconds since 1970."""
        leaf = self.leaf
        return {
            "serial": serial_of(leaf), "spiffe": spiffe_of(leaf), "issuer": leaf.issuer.rfc4514_string(),
            "not_before": leaf.not_valid_before_utc.timestamp(), "not_after": leaf.not_valid_after_utc.timestamp(),
        }


def short_lived(objects: Sequence[dict[str, Any]], *, ttl_s: int, grace_ratio: float = 0.5) -> list[dict[str, Any]]:
    """Give the pods of a Deployment among `objects` certificates of `ttl_s` seconds, and let their agent write them down.

    The agent asks for the next one when `grace_ratio` of the lifetime is left, give or take a hundredth (Istio, pilot-agent options
    SECRET_TTL, SECRET_GRACE_PERIOD_RATIO and its JITTER). The keys are of an elliptic curve: one of RSA, every few seconds, would cost a busy
    machine more than the checks themselves.
    """
    for document in objects:
        if document["kind"] == "Deployment":
            annotations = document["spec"]["template"]["metadata"]["annotations"]
            said = {"SECRET_TTL": f"{ttl_s}s", "SECRET_GRACE_PERIOD_RATIO": str(grace_ratio), "ECC_SIGNATURE_ALGORITHM": "ECDSA", "OUTPUT_CERTS": WRITTEN_TO}
            # YAML in flow style continues whatever block stands before it.
            annotations[PROXY_CONFIG] = f"{annotations.get(PROXY_CONFIG, '')}proxyMetadata: {json.dumps(said)}\n"
    return list(objects)


def held_by(kube: Kube, namespace: str, pod: str) -> Credential:
    """Return the credential that the agent of a `short_lived` pod wrote down last.

    Raises:
        AssertionError: the agent is about to replace it, so that key and certificate are not of one pair; look again.

    """
    names = ("cert-chain.pem", "key.pem", "root-cert.pem")
    text = kube.exec(pod, namespace, SIDECAR, ["cat", *(f"{WRITTEN_TO}/{name}" for name in names)])
    before, mark, rest = text.partition("-----BEGIN EC PRIVATE KEY-----")
    key, end, roots = (mark + rest).partition("-----END EC PRIVATE KEY-----\n")
    assert end, f"the agent of {namespace}/{pod} has written no key of an elliptic curve yet"
    credential = Credential(before, key + end, roots)
    own, certified = load_pem_private_key(credential.key_pem.encode(), None).public_key(), credential.leaf.public_key()
    shape = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert own.public_bytes(*shape) == certified.public_bytes(*shape), f"the agent of {namespace}/{pod} is writing: its key is not its certificate's"
    return credential


class Holder:
    """A pod in the mesh with a short-lived certificate: it makes calls, and lends its credential to whoever is to present it by hand.

    `first` is the earliest credential seen: it has ended after a while, when later ones have not. The certificate lasts twelve seconds and is
    renewed when three fifths of them are left, so whatever the agent holds is good for seven more.
    """

    ttl_s = 12
    grace_ratio = 0.6

    def __init__(self, kube: Kube, caller: Caller, *, within: float) -> None:
        self.caller = caller
        self._kube = kube
        self._within = within
        self.first = self.credential()

    def credential(self) -> Credential:
        """Return what the agent holds now; raises TimedOut when it writes nothing down."""
        where = self.caller.namespace, self.caller.pod
        return eventually(partial(held_by, self._kube, *where), within=self._within, every=0.2, ignoring=(ExecFailed,), subject="no credential of {}/{}".format(*where))


def await_end(credential: Credential, *, clock: Callable[[], float] = time.time) -> None:
    """Return once a credential has ended, by the clock of this machine and for another second by any that is no more than that behind."""
    left = max(0.0, credential.not_after - clock()) + 1

    def ended() -> None:
        over = clock() - credential.not_after
        assert over >= 1, f"{-over:.1f} s are left"

    eventually(ended, within=left + 1, every=0.2, subject="the certificate has not ended")


def issued(
    spiffe: str, by: x509.Certificate, key: CertificateIssuerPrivateKeyTypes, *, starts_in_s: float = -60.0, lasts_s: float = 3600.0,
) -> Credential:
    """Return a workload credential as Istio's CA makes them (one URI, for both sides of a connection), signed by the authority `by` and its `key`."""
    own = ec.generate_private_key(ec.SECP256R1())
    starts = datetime.now(UTC) + timedelta(seconds=starts_in_s)
    built = (
        x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(by.subject).public_key(own.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(starts).not_valid_after(starts + timedelta(seconds=lasts_s))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe)]), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    chain = "".join(one.public_bytes(Encoding.PEM).decode() for one in (built.sign(key, SHA256()), by))
    return Credential(chain, key_pem(own))


def serial_of(certificate: x509.Certificate) -> str:
    """Return a serial number as Envoy writes it: whole bytes in hexadecimal, lower case, so that its first digit may be 0."""
    number = certificate.serial_number
    return number.to_bytes((number.bit_length() + 7) // 8, "big").hex()


def spiffe_of(certificate: x509.Certificate) -> str:
    """Return the one URI that a certificate is for, "" when there is not exactly one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return str(uris[0]) if len(uris) == 1 else ""
