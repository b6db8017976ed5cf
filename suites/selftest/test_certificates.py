"""Self-tests of what concerns certificates: the judges on hand-made evidence, and the credentials that are made or read."""

import base64
import copy
import functools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from clusters.components.istio.authority import MeshAuthority, Pod, self_signed
from clusters.components.istio.client import IstioClient
from clusters.timeouts import Timeouts
from clusters.waiting import TimedOut
from suites.support import requirements
from workloads import credentials
from workloads.caller import caller
from workloads.records import join_key

SPIFFE = "spiffe://cluster.local/ns/n/sa/holder"
TTL, BACK = 12, 120
BEGAN = 1_800_000_000


@functools.cache
def judges():
    return {name: entry.judge for name, entry in requirements.discover().items()}


def call(index, status=200, error="", spiffe=SPIFFE, **more):
    seen = {"host": ["h"], **({"x-forwarded-client-cert": [f"By=spiffe://b;URI={spiffe}"]} if spiffe else {})} if status == 200 else {}
    return {"index": index, "status": status, "error": error, "version": "v1" if status == 200 else "", "seen": seen, "started_ms": 1000.0 * index, **more}


def draw(count, group="a", began=BEGAN, **more):
    records = [call(index, request_id=f"{group}{index:07}-0000-4000-8000-000000000000", connection="c", **more) for index in range(count)]
    return {"count": count, "began": f"{iso(began)}", "records": records}


def iso(seconds):
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def certificate(number, ttl=TTL):
    """The certificate that was issued five seconds after the one before it, and seen half a second later."""
    issued = BEGAN - 3 + 5 * number
    return {"serial": f"{number}" * 32, "not_before": issued - BACK, "not_after": issued + ttl, "first_seen": issued + 0.5, "last_seen": issued + 5.5}


def rotation():
    draws = {name: draw(11, group) for name, group in {"holder-fresh": "a", "holder-kept": "b", "caller-fresh": "c", "caller-kept": "d"}.items()}

    def serial(name, second):
        return {"holder-fresh": f"{(second + 3) // 5}" * 32, "holder-kept": "0" * 32}.get(name, "f" * 32)

    served = {join_key(record["request_id"]): [serial(name, record["index"]), BEGAN + record["index"] + 0.6] for name, one in draws.items() for record in one["records"]}
    looks = {"holder": [certificate(n) for n in range(3)], "function": [certificate(n) for n in range(3)], "caller": [certificate(9, ttl=86400)]}
    looks["caller"][0] |= {"not_before": BEGAN - BACK, "not_after": BEGAN + 86400, "first_seen": BEGAN + 1}
    return {"asked": {"ttl_s": TTL, "grace_ratio": 0.6}, "draws": draws, "served": served, "looks": looks}


def expiry():
    end = BEGAN + 10
    return {
        "spiffe": SPIFFE, "ending": {"not_after": end}, "before": draw(5), "after": draw(5, began=end + 1, status=0, error="tls: remote error: tls: expired certificate"),
        "fresh": draw(5, began=end + 2), "kept": draw(13),
    }


def closed(count=5, error="tls: remote error: tls: unknown certificate authority"):
    return draw(count, status=0, error=error)


def root():
    def stage(signer, old, new, never_renewed):
        return {
            "signers": {"holder": signer, "function": signer}, "members": draw(5), "old": draw(5) if old else closed(), "new": draw(5) if new else closed(),
            "never-renewed": draw(5, status=200 if never_renewed else 503),
        }

    stages = {"before": stage("old", 1, 0, 1), "introduced": stage("old", 1, 1, 1), "signing": stage("new", 1, 1, 0), "retired": stage("new", 0, 1, 0)}
    return {"member": SPIFFE, "stages": stages, "traffic": {"0": draw(15), "1": draw(15)}}


def signed():
    member = "spiffe://cluster.local/ns/somewhere/sa/somebody"
    refused = {"before-its-time": "expired certificate", "another-trust-domain": "unknown certificate"}
    draws = {name: closed(3, f"tls: remote error: tls: {alert}") for name, alert in refused.items()}
    return {"draws": {**draws, **{name: draw(3, spiffe=member) for name in ("in-its-time", "dated-back")}}}


def matrix():
    cases, identities = table().CASES, {"member": "spiffe://m", **dict.fromkeys(("neighbour", "mesh-certificate", "mesh-certificate-without-alpn"), SPIFFE)}

    def drawn(number, case):
        who, group = identities.get(case.caller, ""), f"{number:02x}"
        error = f"tls: remote error: {table().REASONS[case.caller]}" if case.caller in table().REASONS else "read: connection reset by peer"
        return draw(2, group, spiffe=who) if case.expected.reaches else draw(2, group, status=0, error=error)

    draws = {case.name: drawn(number, case) for number, case in enumerate(cases)}
    at = {case.name: case.target for case in cases}

    def of(target):
        return [(case, record) for case in cases if case.target == target and case.expected.reaches for record in draws[case.name]["records"]]

    trial = {
        "draws": draws, "at": at, "counts": {target: {"by_request_id": {record["request_id"]: 1 for _, record in of(target)}} for target in table().TAKEN},
        "said": {target: [{"request_id": record["request_id"]} for _, record in of(target)] for target in table().TAKEN}, "logged": None,
        "principals": {case.name: [identities.get(case.caller, ""), ""] for case in cases},
    }
    told = {"told_plaintext": draw(5, status=503), "told_mutual": draw(5, spiffe="spiffe://m")}
    return {"trial": trial, "identities": identities, "tls_to_plaintext": closed(error="tls: tls: first record does not look like a TLS handshake"), **told}


@functools.cache
def table():
    entry = requirements.discover()["security.mtls-matrix"]
    return SimpleNamespace(**{name: entry.judge.__globals__[name] for name in ("CASES", "TAKEN", "REASONS")})


EVIDENCE = {
    "security.certificates-rotation": rotation, "security.certificates-expiry": expiry, "security.certificates-root": root, "security.certificates-signed": signed, "security.mtls-matrix": matrix,
}


def verdict(name, evidence):
    return {claim.name: claim.held for claim in judges()[name](evidence).claims}


@pytest.mark.parametrize("name", EVIDENCE)
def test_right_evidence_holds(name):
    assert set(verdict(name, EVIDENCE[name]()).values()) == {True}


@pytest.mark.parametrize("name", EVIDENCE)
def test_without_any_call_nothing_holds_that_calls_show(name):
    def emptied(value):
        if isinstance(value, dict) and "records" in value:
            return {**value, "records": [], "count": 0}
        return {key: emptied(one) for key, one in value.items()} if isinstance(value, dict) else [] if isinstance(value, list) else value

    # Who signed is read from the pods, not from calls.
    assert not [claim for claim, held in verdict(name, emptied(EVIDENCE[name]())).items() if held and not claim.endswith("signed-by")]


def failed(evidence):
    evidence["draws"]["caller-kept"]["records"][3] = call(3, status=503)


def always_one_certificate(evidence):
    for key, (serial, at) in evidence["served"].items():
        evidence["served"][key] = ["0" * 32 if key.startswith("a") else serial, at]


def presented_after_its_end(evidence):
    evidence["served"]["a0000010-0000-000-8000-000000000000"] = ["0" * 32, BEGAN + 10.6]


def another_on_a_kept_connection(evidence):
    evidence["served"]["b0000010-0000-000-8000-000000000000"][0] = "1" * 32


def without_a_certificate(evidence):
    evidence["served"]["c0000001-0000-000-8000-000000000000"][0] = ""


def renewed_at_once(evidence):
    evidence["looks"]["function"][1] |= {"not_after": evidence["looks"]["function"][0]["not_after"] + 2}


def renewed_after_the_end(evidence):
    evidence["looks"]["holder"][2] |= {"not_after": evidence["looks"]["holder"][1]["not_after"] + TTL}


def never_renewed(evidence):
    evidence["looks"]["function"] = [{**certificate(0), "last_seen": BEGAN + 11}]


def longer_than_asked(evidence):
    for one in evidence["looks"]["holder"]:
        one["not_before"] -= 1


def not_dated_back(evidence):
    for one in evidence["looks"]["caller"]:
        one["first_seen"] = one["not_before"]


@pytest.mark.parametrize(
    ("broken", "claim"),
    [
        (failed, "no-request-fails"),
        (always_one_certificate, "new-connections-bear-new-certificates"),
        (presented_after_its_end, "new-connections-bear-new-certificates"),
        (another_on_a_kept_connection, "kept-connections-bear-what-they-were-made-with"),
        (without_a_certificate, "control-keeps-its-certificate"),
        (renewed_at_once, "callee-renews-on-schedule"),
        (renewed_after_the_end, "caller-renews-on-schedule"),
        (never_renewed, "callee-renews-on-schedule"),
        (longer_than_asked, "lifetime-as-asked"),
        (not_dated_back, "control-lifetime-is-a-day"),
    ],
)
def test_each_fault_of_a_rotation_refutes_its_claim(broken, claim):
    evidence = copy.deepcopy(rotation())
    broken(evidence)

    assert verdict("security.certificates-rotation", evidence)[claim] is False


@pytest.mark.parametrize(
    ("changed", "claim", "held"),
    [
        ({"after": draw(5, began=BEGAN + 11)}, "refused-after-its-end", False),
        ({"after": draw(5, began=BEGAN + 11, status=0, error="read: timeout")}, "refused-after-its-end", None),
        ({"after": draw(5, began=BEGAN + 8, status=0, error="tls: remote error: tls: expired certificate")}, "refused-after-its-end", None),
        ({"before": draw(5, status=403)}, "accepted-before-its-end", False),
        ({"before": draw(5, began=BEGAN + 9)}, "accepted-before-its-end", None),
        ({"fresh": draw(5, status=403)}, "fresh-one-accepted-then", False),
        ({"kept": draw(9)}, "kept-connection-outlives-it", None),
        ({"kept": {**draw(13), "records": [*draw(12)["records"], call(12, status=0, error="read: closed by the other side", connection="c")]}}, "kept-connection-outlives-it", False),
    ],
)
def test_each_fault_of_an_expiry_shows(changed, claim, held):
    assert verdict("security.certificates-expiry", {**expiry(), **changed})[claim] is held


@pytest.mark.parametrize(
    ("stage", "changed", "claim", "held"),
    [
        ("introduced", {"new": closed()}, "introduced-new-root", False),
        ("introduced", {"new": closed(error="read: timeout")}, "introduced-new-root", None),
        ("signing", {"old": closed()}, "signing-old-root", False),
        ("signing", {"signers": {"holder": "new", "function": "old"}}, "signing-signed-by", False),
        ("retired", {"old": draw(5)}, "retired-old-root", False),
        ("retired", {"members": draw(5, spiffe="spiffe://another")}, "retired-members-talk", False),
        ("signing", {"never-renewed": draw(5)}, "never-renewed-is-cut-off", False),
        ("before", {"new": draw(5)}, "before-new-root", False),
    ],
)
def test_each_fault_of_a_new_root_shows(stage, changed, claim, held):
    evidence = root()
    evidence["stages"][stage] |= changed

    assert verdict("security.certificates-root", evidence)[claim] is held


@pytest.mark.parametrize(
    ("name", "changed", "claim", "held"),
    [
        ("in-its-time", draw(3, status=403), "in-its-time-taken", False),
        ("dated-back", closed(3), "dated-back-taken", False),
        ("before-its-time", draw(3), "before-its-time-refused", False),
        ("another-trust-domain", draw(3), "another-trust-domain-refused", False),
        ("another-trust-domain", closed(3, "read: timeout"), "another-trust-domain-refused", None),
    ],
)
def test_each_fault_of_what_is_signed_shows(name, changed, claim, held):
    evidence = signed()
    evidence["draws"][name] = changed

    assert verdict("security.certificates-signed", evidence)[claim] is held


def test_a_failed_call_while_the_root_changes_refutes():
    assert verdict("security.certificates-root", {**root(), "traffic": {"0": draw(15), "1": draw(15, status=503)}})["no-request-fails"] is False


@pytest.mark.parametrize(
    ("case", "replaced", "claim"),
    [
        ("namespace-strict-from-plaintext", draw(2, "ff", spiffe=""), "namespace-strict-from-plaintext"),
        ("port-strict-from-foreign-certificate", draw(2, "ff"), "port-strict-from-foreign-certificate"),
        ("workload-permissive-from-plaintext", closed(2, "read: connection reset by peer"), "workload-permissive-sees-plaintext"),
        ("port-disabled-from-member-in-plaintext", draw(2, "ff"), "port-disabled-sees-member-in-plaintext"),
        ("namespace-strict-from-neighbour", draw(2, "ff", spiffe="spiffe://another"), "namespace-strict-sees-neighbour"),
    ],
)
def test_each_fault_of_a_mode_refutes_its_claim(case, replaced, claim):
    evidence = matrix()
    evidence["trial"]["draws"][case] = replaced

    assert verdict("security.mtls-matrix", evidence)[claim] is False


def test_a_refusal_for_another_reason_than_the_certificate_s_is_not_the_one_that_was_meant():
    evidence = matrix()
    evidence["trial"]["draws"]["port-strict-from-ended-certificate"] = closed(2)

    assert verdict("security.mtls-matrix", evidence)["ended-certificate-is-told-why"] is None


@pytest.mark.parametrize(("number", "written"), [(0x0AB1, "0ab1"), (0xAB12, "ab12"), (0x7, "07"), (1 << 158, "40" + 19 * "00"), (1 << 154, "04" + 19 * "00")])
def test_a_serial_number_is_written_in_whole_bytes(number: int, written: str):
    assert credentials.serial_of(SimpleNamespace(serial_number=number)) == written


def test_a_credential_is_what_istio_s_are_like_and_its_key_is_never_shown():
    root, key = self_signed("cluster.local", lasts=timedelta(hours=1))

    made = credentials.issued(SPIFFE, root, key, starts_in_s=-10, lasts_s=30)

    public = made.to_json()
    assert (public["spiffe"], public["issuer"], public["not_after"] - public["not_before"]) == (SPIFFE, "O=cluster.local", 30)
    assert public["serial"] == credentials.serial_of(made.leaf)
    made.leaf.verify_directly_issued_by(root)
    assert "PRIVATE" not in repr(made)
    assert "PRIVATE" not in str(public)
    assert [one.public_bytes(Encoding.PEM) for one in x509.load_pem_x509_certificates(made.chain_pem.encode())] == [made.leaf.public_bytes(Encoding.PEM), root.public_bytes(Encoding.PEM)]


class Agent:
    """A sidecar whose agent has written these files."""

    def __init__(self, *texts):
        self.texts = texts

    def exec(self, *_):
        return "".join(self.texts)


def test_a_credential_is_read_once_key_and_certificate_are_a_pair():
    root, key = self_signed("cluster.local", lasts=timedelta(hours=1))
    first, second = (credentials.issued(SPIFFE, root, key) for _ in range(2))
    roots = root.public_bytes(Encoding.PEM).decode()

    read = credentials.held_by(Agent(first.chain_pem, first.key_pem, roots), "n", "p")

    assert (read.chain_pem, read.key_pem, read.roots_pem) == (first.chain_pem, first.key_pem, roots)
    with pytest.raises(AssertionError, match="its key is not its certificate's"):
        credentials.held_by(Agent(first.chain_pem, second.key_pem, roots), "n", "p")
    with pytest.raises(AssertionError, match="has written no key"):
        credentials.held_by(Agent(first.chain_pem, roots), "n", "p")


def test_a_short_lived_pod_keeps_what_its_proxy_was_told_before():
    (_, deployment) = credentials.short_lived(caller("holder"), ttl_s=12)

    said = deployment["spec"]["template"]["metadata"]["annotations"][credentials.PROXY_CONFIG]
    assert "proxyStatsMatcher" in said
    assert '"SECRET_TTL": "12s"' in said


def test_a_proxy_s_certificates_are_named_once():
    one = {"serial_number": "ab", "valid_from": "2026-11-23T16:11:49Z", "expiration_time": "2026-11-23T16:13:59Z"}
    told = {"certificates": [{"ca_cert": [{"serial_number": "root"}], "cert_chain": [one, {**one, "serial_number": "root"}]}, {"cert_chain": [one]}, {"ca_cert": []}]}

    class Proxy:
        def exec(self, *_):
            return json.dumps(told)

    istio = IstioClient(Proxy(), Timeouts())
    assert istio.trusted_roots("n", "p") == {"root"}
    assert istio.certificates("n", "p") == [{"serial": "ab", "not_before": 1795450309.0, "not_after": 1795450439.0}]


PEM = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
OWN, ANOTHER = PEM.format("own"), PEM.format("another")


class ControlPlane:
    """A mesh whose istiod signs with what is plugged in; `published` are the roots that its namespaces and pods have been given, None for what is plugged in."""

    def __init__(self, *, signer=OWN, roots=OWN, published=None):
        self.secrets = {"istio-ca-secret": {"ca-cert.pem": OWN, "ca-key.pem": "key"}, "cacerts": {"ca-cert.pem": signer, "root-cert.pem": roots}}
        self.published, self.done = published, []

    def get(self, kind, name, _namespace):
        data = self.secrets[name] if kind == "Secret" else {"root-cert.pem": self.given()}
        return {"data": {file: base64.b64encode(text.encode()).decode() for file, text in data.items()} if kind == "Secret" else data}

    def given(self):
        return self.secrets["cacerts"]["root-cert.pem"] if self.published is None else self.published

    def list(self, _kind, _namespace):
        return [{"metadata": {"name": name}} for name in self.secrets]

    def pods(self, _namespace, _selector):
        return [{"metadata": {"name": "istiod-1"}}, {"metadata": {"name": "istiod-0", "deletionTimestamp": "now"}}]

    def apply(self, documents, _namespace):
        (document,) = documents
        name = document["metadata"]["name"]
        roots = document.get("stringData", {}).get("root-cert.pem", "")
        self.done.append(f"{document['kind']}/{name}" + (f" {roots.count('BEGIN')}" if roots else ""))
        if document["kind"] == "Secret":
            self.secrets[name] = document["stringData"]

    def exec(self, *_):
        return self.given()


QUICK = replace(Timeouts(), propagation=0)


def test_the_own_root_is_trusted_again_before_it_is_trusted_alone():
    mesh = ControlPlane(signer=ANOTHER, roots=ANOTHER)

    MeshAuthority(mesh, QUICK).restore([Pod("n", "p")])

    assert mesh.secrets["cacerts"]["ca-cert.pem"] == mesh.secrets["cacerts"]["root-cert.pem"] == OWN
    assert mesh.done == ["Secret/cacerts 2", "Pod/istiod-1", "Pod/p", "Secret/cacerts 1", "Pod/istiod-1"]


@pytest.mark.parametrize(("published", "where"), [(ANOTHER, "n"), (OWN + ANOTHER, "istio-system")])
def test_a_root_that_does_not_arrive_is_told(published, where):
    with pytest.raises(TimedOut, match=f"roots not published in {where}"):
        MeshAuthority(ControlPlane(signer=ANOTHER, roots=ANOTHER, published=published), QUICK).restore([Pod("n", "p")])


def test_a_mesh_with_its_own_root_is_left_alone():
    mesh = ControlPlane()

    MeshAuthority(mesh, QUICK).restore([Pod("n", "p")])

    assert not mesh.done


def test_a_mesh_is_given_a_root_once():
    mesh = ControlPlane()
    mesh.secrets.clear()

    MeshAuthority(mesh, QUICK).establish()
    MeshAuthority(mesh, QUICK).establish()

    assert mesh.done == ["Secret/istio-ca-secret", "Secret/cacerts 1"]
    given, own = mesh.secrets["cacerts"], mesh.secrets["istio-ca-secret"]
    assert given["ca-cert.pem"] == given["root-cert.pem"] == own["ca-cert.pem"]
    assert given["ca-key.pem"] == own["ca-key.pem"]
