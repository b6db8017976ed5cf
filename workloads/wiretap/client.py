"""The wiretap's client: fetches a capture and says what its bytes are, by reading them and nothing else."""

import base64
import ipaddress
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import dpkt

from clusters.waiting import CLOCK, Clock, eventually
from workloads.wiretap import CAPTURE, CONTAINER

# https://www.tcpdump.org/linktypes.html
LINK_LAYERS = {
    1: dpkt.ethernet.Ethernet,
    113: dpkt.sll.SLL,
    276: dpkt.sll2.SLL2,
}
RAW_LINK_LAYERS = frozenset({12, 101})
PCAP_HEADER_BYTES = 24
PACKET_HEADER_BYTES = 16
SEQUENCE_SPACE = 1 << 32

# RFC 8446, section 5.1: change_cipher_spec, alert, handshake, application_data; at most 2^14 + 2048 bytes (TLS 1.2).
TLS_CONTENT_TYPES = frozenset({20, 21, 22, 23})
TLS_MAJOR = 3
TLS_HEADER_BYTES = 5
TLS_LONGEST = (1 << 14) + 2048


class CaptureError(ValueError):
    """A capture that cannot be read as a pcap file of a known link layer."""


class Cluster(Protocol):
    """What fetching needs of `clusters.kube.Kube`."""

    def exec(self, pod: str, namespace: str, container: str, argv: Sequence[str]) -> str:
        """Return the standard output of a command in a container."""


@dataclass(frozen=True)
class WireEvidence:
    """What was seen on the wire of one port.

    `segments` are the TCP segments, `payload_bytes` their payload once put together (retransmissions count once).
    `streams` are the directions of connections that carried payload, `tls_streams` those that are TLS records from their
    first byte to their last; `tls_records` counts those records. `plaintext_nonce_found` says whether the nonce could be
    read. `missing_bytes` were in a stream but not in the capture: unless 0, "not found" proves nothing.
    """

    segments: int
    payload_bytes: int
    tls_records: int
    plaintext_nonce_found: bool
    streams: int
    tls_streams: int
    missing_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the evidence as JSON types."""
        return asdict(self)


class Wiretap:
    """The listener in one pod."""

    def __init__(self, kube: Cluster, namespace: str, pod: str) -> None:
        self.namespace = namespace
        self.pod = pod
        self._kube = kube

    def capture(self) -> bytes:
        """Return the pcap file as it is now; the last packets may still be on their way into it.

        Raises ExecFailed when the container has none.
        """
        text = self._kube.exec(self.pod, self.namespace, CONTAINER, ["base64", "--wrap=0", CAPTURE])
        return base64.b64decode(text, validate=True)

    def since(self, mark: int) -> bytes:
        """Return, as a pcap file of its own, what was captured after the file was `mark` bytes long (a settled length)."""
        pcap = self.settled_capture()
        return pcap[:PCAP_HEADER_BYTES] + pcap[mark:]

    def mark(self) -> int:
        """Return the length of the capture at rest: a boundary between what was and what comes."""
        return len(self.settled_capture())

    def settled_capture(self, *, within: float = 10.0, clock: Clock = CLOCK) -> bytes:
        """Return the pcap file once it has stopped growing, so that what was sent before this call is in it.

        Raises TimedOut when traffic goes on, and what `capture` raises.
        """
        sizes = [-1]

        def unchanged() -> bytes:
            now = self.capture()
            sizes.append(len(now))
            assert sizes[-1] == sizes[-2], f"the capture grew from {sizes[-2]} to {sizes[-1]} bytes"
            return now

        return eventually(unchanged, within=within, every=0.2, subject=f"capture in pod {self.namespace}/{self.pod} not at rest", clock=clock)


def analyse(pcap: bytes, port: int, nonce: bytes, *, peer: str | None = None) -> WireEvidence:
    """Read what a capture holds of TCP `port`; with `peer`, only of connections with that IP address.

    The bytes of each direction are put together by sequence number first: a nonce or a TLS record may be cut by a segment's
    end, sent twice, or arrive out of order. Raises CaptureError for something else than a pcap file, ValueError for no nonce.
    """
    if not nonce:
        raise ValueError("an empty nonce is found everywhere")
    segments = [segment for segment in _segments(pcap) if port in segment.ports and (peer is None or peer in segment.addresses)]
    runs = [stream.runs() for stream in _streams(segments)]
    records = [_tls_records(pieces) for pieces in runs]
    return WireEvidence(
        segments=len(segments),
        payload_bytes=sum(len(piece.payload) for pieces in runs for piece in pieces),
        tls_records=sum(count for count, _ in records),
        plaintext_nonce_found=any(nonce in piece.payload for pieces in runs for piece in pieces),
        streams=len(runs),
        tls_streams=sum(whole for _, whole in records),
        missing_bytes=sum(piece.gap_before for pieces in runs for piece in pieces),
    )


@dataclass(frozen=True)
class _Segment:
    addresses: tuple[str, str]
    ports: tuple[int, int]
    sequence: int
    opens: bool
    payload: bytes

    @property
    def direction(self) -> tuple[str, int, str, int]:
        return (self.addresses[0], self.ports[0], self.addresses[1], self.ports[1])


@dataclass(frozen=True)
class _Run:
    """Payload without a hole, and how many bytes are missing between it and the one before."""

    gap_before: int
    payload: bytes


@dataclass
class _Stream:
    """One direction of one connection; offsets count from the first payload byte when its opening was captured."""

    first_sequence: int
    opened: bool
    parts: list[tuple[int, bytes]] = field(default_factory=list)

    def offset(self, sequence: int) -> int:
        """Return a sequence number's distance from the first one, negative for what came before it."""
        distance = (sequence - self.first_sequence) % SEQUENCE_SPACE
        return distance if distance < SEQUENCE_SPACE // 2 else distance - SEQUENCE_SPACE

    def runs(self) -> list[_Run]:
        ordered = sorted(self.parts)
        end = 0 if self.opened else ordered[0][0]
        runs: list[tuple[int, bytearray]] = []
        for offset, payload in ordered:
            fresh = payload[max(end - offset, 0) :]
            if offset > end or not runs:
                runs.append((max(offset - end, 0), bytearray()))
            runs[-1][1].extend(fresh)
            end = max(end, offset + len(payload))
        return [_Run(gap, bytes(payload)) for gap, payload in runs]


def _streams(segments: Sequence[_Segment]) -> list[_Stream]:
    current: dict[tuple[str, int, str, int], _Stream] = {}
    every: list[_Stream] = []
    for segment in segments:
        stream = current.get(segment.direction)
        first = (segment.sequence + segment.opens) % SEQUENCE_SPACE
        # Another opening with the same four numbers is another connection, unless it is the same one sent again.
        if stream is None or (segment.opens and (not stream.opened or stream.first_sequence != first)):
            stream = current[segment.direction] = _Stream(first, opened=segment.opens)
            every.append(stream)
        if segment.payload:
            stream.parts.append((stream.offset(first), segment.payload))
    return [stream for stream in every if stream.parts]


def _tls_records(runs: Sequence[_Run]) -> tuple[int, bool]:
    """Count the TLS records from a stream's first byte on; say whether all of its bytes belong to them.

    A last record may be cut off by the capture's end. Behind a hole nothing is known of where a record begins.
    """
    if runs[0].gap_before:
        return 0, False
    payload, at, count = runs[0].payload, 0, 0
    while at < len(payload):
        header = payload[at : at + TLS_HEADER_BYTES]
        if header[0] not in TLS_CONTENT_TYPES or header[1:2] not in {b"", bytes([TLS_MAJOR])}:
            return count, False
        if len(header) < TLS_HEADER_BYTES:
            break
        length = int.from_bytes(header[3:])
        if header[2] > 4 or not 0 < length <= TLS_LONGEST:  # noqa: PLR2004  # TLS 1.3 is version 3.4
            return count, False
        at += TLS_HEADER_BYTES + length
        count += at <= len(payload)
    return count, len(runs) == 1 and count > 0


def _segments(pcap: bytes) -> Iterator[_Segment]:
    for link, frame in _frames(pcap):
        packet = _internet_packet(link, frame)
        if packet is None or not isinstance(packet.data, dpkt.tcp.TCP):
            continue
        tcp = packet.data
        yield _Segment(
            addresses=(_address(packet.src), _address(packet.dst)), ports=(tcp.sport, tcp.dport),
            sequence=tcp.seq, opens=bool(tcp.flags & dpkt.tcp.TH_SYN), payload=bytes(tcp.data),
        )


def _frames(pcap: bytes) -> Iterator[tuple[int, bytes]]:
    """Read frames; dpkt's own reader stumbles over a last packet that tcpdump is still writing."""
    byte_order = {b"\xd4\xc3\xb2\xa1": "<", b"\x4d\x3c\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\xa1\xb2\x3c\x4d": ">"}.get(pcap[:4])
    if byte_order is None or len(pcap) < PCAP_HEADER_BYTES:
        raise CaptureError(f"{len(pcap)} bytes beginning with {pcap[:4].hex() or 'nothing'} are not a pcap file")
    # The upper half of the field is for other things.
    link = struct.unpack_from(f"{byte_order}I", pcap, 20)[0] & 0xFFFF
    if link not in LINK_LAYERS and link not in RAW_LINK_LAYERS:
        raise CaptureError(f"link type {link} is not known here")
    at = PCAP_HEADER_BYTES
    while at + PACKET_HEADER_BYTES <= len(pcap):
        captured = struct.unpack_from(f"{byte_order}I", pcap, at + 8)[0]
        at += PACKET_HEADER_BYTES
        if at + captured > len(pcap):
            return
        yield link, pcap[at : at + captured]
        at += captured


def _internet_packet(link: int, frame: bytes) -> Any:  # noqa: ANN401  # dpkt publishes no types
    try:
        if link in RAW_LINK_LAYERS:
            return (dpkt.ip6.IP6 if frame[0] >> 4 == 6 else dpkt.ip.IP)(frame)  # noqa: PLR2004  # IP's version field
        packet = LINK_LAYERS[link](frame).data
    except (dpkt.UnpackError, IndexError):
        return None
    return packet if isinstance(packet, dpkt.ip.IP | dpkt.ip6.IP6) else None


def _address(raw: bytes) -> str:
    return str(ipaddress.ip_address(raw))
