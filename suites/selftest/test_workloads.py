"""Workloads: their objects, their deployment, and what a capture says about the wire."""

import base64
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import dpkt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clusters.timeouts import Timeouts
from clusters.versions import VERSIONS_FILE
from clusters.waiting import TimedOut
from workloads.caller import caller
from workloads.deploy import deploy
from workloads.fixtures import World
from workloads.greeter import another_front, greeter
from workloads.greeter.client import Greeter
from workloads.intruder import intruder
from workloads.issuer import issuer
from workloads.wiretap.client import CaptureError, WireEvidence, Wiretap, analyse

Objects = list[dict[str, Any]]
# dpkt publishes no types.
Packet = Any
EVERY_WORKLOAD = {
    "greeter": greeter("user-service", "v1", wiretap=True),
    "caller": caller(),
    "intruder": intruder(),
    "issuer": issuer(),
}


def one(objects: Objects, kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def pod_of(objects: Objects) -> dict[str, Any]:
    template: dict[str, Any] = one(objects, "Deployment")["spec"]["template"]
    return template


def test_two_versions_share_a_service_and_not_their_pods() -> None:
    first = greeter("user-service-v1", "v1", service="user-service")
    second = greeter("user-service-v2", "v2", service="user-service")

    assert one(first, "Service") == one(second, "Service")
    for objects in (first, second):
        labels = pod_of(objects)["metadata"]["labels"]
        assert one(objects, "Service")["spec"]["selector"].items() <= labels.items()
        assert one(objects, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not one(first, "Deployment")["spec"]["selector"]["matchLabels"].items() <= pod_of(second)["metadata"]["labels"].items()


def test_a_greeter_is_what_was_asked_for() -> None:
    objects = greeter(
        "premium-user-function", "premium", replicas=3, service_account="other-sa", port=8081, inject=False,
        labels={"tier": "gold"}, annotations={"a": "b"}, env={"TARGET": "World", "VERSION": "other"},
    )  # fmt: skip

    pod = pod_of(objects)
    (container,) = pod["spec"]["containers"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert len(environment) == len(container["env"])
    assert (environment["VERSION"], environment["TARGET"], environment["PORT"]) == ("other", "World", "8081")
    assert one(objects, "Deployment")["spec"]["replicas"] == 3
    assert one(objects, "ServiceAccount")["metadata"]["name"] == pod["spec"]["serviceAccountName"] == "other-sa"
    assert pod["metadata"]["labels"] == {
        "app": "premium-user-function", "version": "premium", "tier": "gold",
        "app.kubernetes.io/instance": "premium-user-function", "sidecar.istio.io/inject": "false",
    }  # fmt: skip
    assert pod["metadata"]["annotations"]["a"] == "b"
    assert container["ports"][0] == {"name": "http", "containerPort": 8081}
    (served,) = one(objects, "Service")["spec"]["ports"]
    assert served == {"name": "http", "port": 80, "targetPort": "http"}


def test_making_one_greeter_leaves_the_next_alone() -> None:
    before = greeter("f", "v1")
    greeter("f", "v2", wiretap=True, env={"A": "b"}, annotations={"c": "d"})

    assert greeter("f", "v1") == before


def test_a_label_that_selects_pods_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="label version follows"):
        greeter("f", "v1", labels={"version": "v2"})


def test_only_the_intruder_and_the_issuer_declare_themselves_out_of_the_mesh() -> None:
    outside = {name for name, objects in EVERY_WORKLOAD.items() if pod_of(objects)["metadata"]["labels"].get("sidecar.istio.io/inject") == "false"}

    assert outside == {"intruder", "issuer"}


def test_the_identity_of_a_caller_is_its_name_or_what_was_asked_for() -> None:
    assert pod_of(caller("caller-b"))["spec"]["serviceAccountName"] == "caller-b"
    assert one(caller("c", service_account="function-sa"), "ServiceAccount")["metadata"]["name"] == "function-sa"


@pytest.mark.parametrize("name", EVERY_WORKLOAD)
def test_containers_have_no_right_that_they_do_not_need(name: str) -> None:
    for container in pod_of(EVERY_WORKLOAD[name])["spec"]["containers"]:
        security = container["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == ({"drop": ["ALL"], "add": ["NET_RAW"]} if container["name"] == "wiretap" else {"drop": ["ALL"]})
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "cpu" not in container["resources"]["limits"]


@pytest.mark.parametrize("name", EVERY_WORKLOAD)
def test_images_are_the_pinned_ones(name: str) -> None:
    pinned = VERSIONS_FILE.read_text()

    for container in pod_of(EVERY_WORKLOAD[name])["spec"]["containers"]:
        assert f'"{container["image"]}"' in pinned


def test_the_control_ports_are_outside_of_the_mesh() -> None:
    for objects in (EVERY_WORKLOAD["greeter"], EVERY_WORKLOAD["caller"]):
        pod = pod_of(objects)
        assert pod["metadata"]["annotations"]["traffic.sidecar.istio.io/excludeInboundPorts"] == "9000"
        assert 9000 in {port["containerPort"] for port in pod["spec"]["containers"][0]["ports"]}


@dataclass
class RecordedKube:
    """Keeps what was asked of the cluster, and answers as told."""

    status: int = 200
    said: object = None
    output: str = ""
    asked: list[tuple[object, ...]] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        """The answer as JSON."""
        return json.dumps(self.said).encode()

    def apply(self, docs: Iterable[Mapping[str, Any]], namespace: str | None = None) -> None:
        """Note the objects."""
        self.asked.append(("apply", [f"{doc['kind']}/{doc['metadata']['name']}" for doc in docs], namespace))

    def wait_deployment(self, namespace: str, name: str, within: float) -> None:
        """Note the wait."""
        self.asked.append(("wait", namespace, name, within))

    def request(self, pod: str, namespace: str, port: int, method: str, path: str) -> "RecordedKube":
        """Note the request; answer with itself."""
        self.asked.append((pod, namespace, port, method, path))
        return self

    def exec(self, pod: str, namespace: str, container: str, argv: Sequence[str]) -> str:
        """Note the command."""
        self.asked.append((pod, namespace, container, *argv))
        return self.output


class SteppingClock:
    """Ten seconds pass at every look."""

    now = 0.0

    def monotonic(self) -> float:
        """Let ten seconds pass."""
        self.now += 10
        return self.now

    def sleep(self, seconds: float) -> None:
        """Deploying has nothing to sleep for."""
        raise AssertionError(seconds)


def test_deploying_applies_once_and_shares_the_time_between_deployments() -> None:
    kube = RecordedKube()

    names = deploy(kube, "ns", [*greeter("a", "v1"), *greeter("b", "v1")], within=60, clock=SteppingClock())

    assert names == ["a", "b"]
    assert kube.asked == [
        ("apply", ["ServiceAccount/function-sa", "Service/a", "Deployment/a", "Service/b", "Deployment/b"], "ns"),
        ("wait", "ns", "a", 50),
        ("wait", "ns", "b", 40),
    ]


def test_what_was_removed_is_leaving_until_each_proxy_has_been_waited_for() -> None:
    first = World(RecordedKube(), Timeouts(), "routing", str)
    second = first.view()

    first.removed(["AuthorizationPolicy"])
    assert second.leaving(["caller", "function"]) == {"AuthorizationPolicy"}
    second.left(["caller"])
    assert first.leaving(["caller"]) == set()
    assert first.leaving(["caller", "function"]) == {"AuthorizationPolicy"}
    first.left(["function"])
    first.removed(["VirtualService"])
    assert second.leaving(["caller", "function"]) == {"VirtualService"}
    assert second.leaving([]) == set()


def test_what_is_deployed_anew_ends_the_pods_before_it_on_purpose() -> None:
    class Kube(RecordedKube):
        def pods(self, _namespace: str, selector: str) -> list[dict[str, Any]]:
            assert selector == "app.kubernetes.io/instance in (f)"
            return [{"metadata": {"name": "f-1", "uid": "1"}, "status": {}}]

    kube = Kube()
    world = World(kube, Timeouts(), "ns", str)

    world.redeploy({"f": greeter("f", "v1")})
    world.redeploy({"f": greeter("f", "v1")})
    world.deploy({"f": greeter("f", "v1")})

    assert [asked[0] for asked in kube.asked] == ["apply", "wait"] * 2
    assert world.state()["ended_on_purpose"] == ["f-1"]
    assert [pod["pod"] for pod in world.state()["pods"].values()] == ["f-1"]


def test_counts_are_asked_where_the_mesh_does_not_listen() -> None:
    kube = RecordedKube(said={"total": 2, "by_path": {"/": 2}, "by_request_id": {"a": 2}, "connections": 1, "most_in_hand": 1})

    counts = Greeter(kube, "ns", "pod").counts()

    assert counts.to_json() == kube.said
    assert kube.asked == [("pod", "ns", 9000, "GET", "/_counts")]


def test_what_is_held_is_released_by_name() -> None:
    kube = RecordedKube(said={"total": 2, "by_path": {}, "by_request_id": {}, "connections": 2, "most_in_hand": 2})

    assert Greeter(kube, "ns", "pod").release("load-1").most_in_hand == 2
    assert kube.asked == [("pod", "ns", 9000, "POST", "/_release/load-1")]


def test_a_function_may_have_another_front() -> None:
    front = another_front("unlimited", app="user-function", port=8081, annotations={"networking.istio.io/exportTo": "~"})

    assert front["metadata"] == {"name": "unlimited", "annotations": {"networking.istio.io/exportTo": "~"}}
    assert front["spec"] == {"selector": {"app": "user-function"}, "ports": [{"name": "http", "port": 80, "targetPort": 8081}]}


def test_counts_that_are_refused_are_not_zero() -> None:
    with pytest.raises(ConnectionError, match="answered 503"):
        Greeter(RecordedKube(status=503), "ns", "pod").reset_counts()


# The wire

NONCE = b"nonce-5f0c"
CLIENT, SERVER = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])


def tls(kind: int, content: bytes) -> bytes:
    return bytes([kind, 3, 3]) + len(content).to_bytes(2) + content


def packet(sequence: int, payload: bytes = b"", *, flags: int = dpkt.tcp.TH_ACK, port: int = 8080, source: bytes = CLIENT, v6: bool = False) -> Packet:
    tcp = dpkt.tcp.TCP(sport=40000, dport=port, seq=sequence % 2**32, flags=flags, data=payload)
    if v6:
        return dpkt.ip6.IP6(src=bytes(12) + source, dst=bytes(12) + SERVER, nxt=dpkt.ip.IP_PROTO_TCP, plen=len(tcp), hlim=64, data=tcp)
    packed = dpkt.ip.IP(src=source, dst=SERVER, p=dpkt.ip.IP_PROTO_TCP, data=tcp)
    packed.len = len(packed)
    return packed


def ethernet(content: Packet) -> bytes:
    kind = dpkt.ethernet.ETH_TYPE_IP6 if isinstance(content, dpkt.ip6.IP6) else dpkt.ethernet.ETH_TYPE_IP
    return bytes(dpkt.ethernet.Ethernet(src=bytes(6), dst=bytes(6), type=kind, data=content))


def sll(content: Packet) -> bytes:
    return bytes(dpkt.sll.SLL(type=0, hrd=1, hlen=6, hdr=bytes(8), ethtype=dpkt.ethernet.ETH_TYPE_IP, data=content))


def sll2(content: Packet) -> bytes:
    return bytes(dpkt.sll2.SLL2(ethtype=dpkt.ethernet.ETH_TYPE_IP, mbz=0, intindex=2, hrd=1, type=0, hlen=6, hdr=bytes(8), data=content))


def pcap(frames: Iterable[bytes], link: int = dpkt.pcap.DLT_EN10MB) -> bytes:
    out = io.BytesIO()
    writer = dpkt.pcap.Writer(out, snaplen=262144, linktype=link)
    for frame in frames:
        writer.writepkt(frame, ts=1.0)
    return out.getvalue()


def conversation(payload: bytes, cut: int = 7, **how: Packet) -> list[Packet]:
    parts = [packet(1 + at, payload[at : at + cut], **how) for at in range(0, len(payload), cut)]
    return [packet(0, flags=dpkt.tcp.TH_SYN, **how), *parts]


@pytest.mark.parametrize(
    ("frame", "link"), [(ethernet, 1), (sll, 113), (sll2, 276), (bytes, 101)], ids=["ethernet", "cooked", "cooked-2", "raw"]
)
def test_plaintext_is_read_across_segments_on_every_link_layer(frame: Callable[[Packet], bytes], link: int) -> None:
    payload = b"GET / HTTP/1.1\r\nx-nonce: " + NONCE + b"\r\n\r\n"

    seen = analyse(pcap(map(frame, conversation(payload)), link), 8080, NONCE)

    assert seen == WireEvidence(
        segments=7, payload_bytes=len(payload), tls_records=0, plaintext_nonce_found=True, streams=1, tls_streams=0, missing_bytes=0
    )


def test_tls_records_are_counted_across_segments() -> None:
    payload = tls(22, b"h" * 20) + tls(20, b"c") + tls(23, b"d" * 300)

    seen = analyse(pcap(map(ethernet, conversation(payload))), 8080, NONCE)

    assert (seen.tls_records, seen.tls_streams, seen.streams, seen.plaintext_nonce_found) == (3, 1, 1, False)


def test_ipv6_is_read_too() -> None:
    assert analyse(pcap(map(ethernet, conversation(NONCE, v6=True))), 8080, NONCE).plaintext_nonce_found


def test_plaintext_behind_tls_is_not_a_tls_stream() -> None:
    seen = analyse(pcap(map(ethernet, conversation(tls(23, b"d" * 9) + b"GET /"))), 8080, NONCE)

    assert (seen.tls_records, seen.tls_streams) == (1, 0)


@pytest.mark.parametrize(("lost", "records"), [(1, 0), (2, 1)], ids=["beginning", "middle"])
def test_a_stream_with_a_hole_is_not_called_tls(lost: int, records: int) -> None:
    # Three records of seven bytes, one to a segment: what is left looks whole.
    whole = conversation(tls(23, b"dd") * 3, cut=7)

    seen = analyse(pcap(map(ethernet, [*whole[:lost], *whole[lost + 1 :]])), 8080, NONCE)

    assert (seen.tls_records, seen.streams, seen.tls_streams, seen.missing_bytes) == (records, 1, 0, 7)


def test_other_ports_and_other_peers_are_not_looked_at() -> None:
    capture = pcap(map(ethernet, [*conversation(NONCE, port=9090), *conversation(b"else", source=bytes([10, 0, 0, 9]))]))

    assert analyse(capture, 8080, NONCE).payload_bytes == 4
    assert analyse(capture, 8080, NONCE, peer="10.0.0.1").segments == 0
    assert analyse(capture, 9090, NONCE, peer="10.0.0.1").plaintext_nonce_found


def test_a_reused_port_is_another_connection() -> None:
    again = [packet(9000, flags=dpkt.tcp.TH_SYN), packet(9001, tls(23, b"d"))]

    seen = analyse(pcap(map(ethernet, [*conversation(tls(23, b"abc")), *again])), 8080, NONCE)

    assert (seen.streams, seen.tls_streams, seen.missing_bytes) == (2, 2, 0)


@given(
    payload=st.binary(min_size=1, max_size=200), cut=st.integers(1, 40), start=st.integers(0, 2**32 - 1) | st.integers(2**32 - 100, 2**32 - 1),
    order=st.randoms(use_true_random=False), again=st.integers(0, 5),
)  # fmt: skip
@example(payload=b"wraps around", cut=5, start=2**32 - 8, order=Random(1), again=1)  # noqa: S311  # shuffles segments
def test_order_repetition_and_wrapping_of_segments_do_not_matter(payload: bytes, cut: int, start: int, order: Random, again: int) -> None:
    parts = [packet(start + 1 + at, payload[at : at + cut]) for at in range(0, len(payload), cut)]
    sent = parts + parts[:again]
    order.shuffle(sent)

    seen = analyse(pcap(map(ethernet, [packet(start, flags=dpkt.tcp.TH_SYN), *sent])), 8080, payload)

    assert (seen.plaintext_nonce_found, seen.payload_bytes, seen.missing_bytes, seen.streams) == (True, len(payload), 0, 1)


@given(st.binary(max_size=300))
def test_noise_is_either_refused_or_read(noise: bytes) -> None:
    whole = pcap(map(ethernet, conversation(tls(23, NONCE))))

    assert analyse(whole[:24] + noise, 8080, NONCE).segments >= 0
    with pytest.raises(CaptureError):
        analyse(b"x" + noise, 8080, NONCE)


def test_a_last_packet_that_is_still_being_written_is_left_out() -> None:
    whole = pcap(map(ethernet, conversation(NONCE, cut=len(NONCE))))

    assert analyse(whole[:-1], 8080, NONCE).segments == 1
    assert not analyse(whole[:-1], 8080, NONCE).plaintext_nonce_found


def test_an_unknown_link_layer_is_refused() -> None:
    with pytest.raises(CaptureError, match="link type 147"):
        analyse(pcap([], link=147), 8080, NONCE)


def test_a_capture_comes_out_of_the_container_byte_for_byte() -> None:
    kube = RecordedKube(output="1MOyoQA=")

    assert Wiretap(kube, "ns", "pod").capture() == b"\xd4\xc3\xb2\xa1\x00"
    assert kube.asked == [("pod", "ns", "wiretap", "base64", "--wrap=0", "/captures/wire.pcap")]


@dataclass
class GrowingFile:
    """A capture that has each of these sizes in turn, and the last one from then on."""

    sizes: list[int]

    def exec(self, pod: str, namespace: str, container: str, argv: Sequence[str]) -> str:
        """Answer with the file as it is now."""
        del pod, namespace, container, argv
        return base64.b64encode(bytes(self.sizes.pop(0) if len(self.sizes) > 1 else self.sizes[0])).decode()


class PatientClock:
    """Time passes only while somebody waits."""

    now = 0.0

    def monotonic(self) -> float:
        """Return the time waited so far."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.now += seconds


def test_a_capture_is_at_rest_when_two_looks_agree() -> None:
    assert len(Wiretap(GrowingFile([24, 90, 300, 300, 500]), "ns", "pod").settled_capture(clock=PatientClock())) == 300


def test_a_capture_that_keeps_growing_is_not_taken() -> None:
    with pytest.raises(TimedOut, match="capture in pod ns/pod not at rest"):
        Wiretap(GrowingFile(list(range(1000))), "ns", "pod").settled_capture(within=5, clock=PatientClock())
