"""wiretap: tcpdump beside a function, in its pod's network namespace, to show what the bytes on the wire are."""

from pathlib import Path
from typing import Any

import yaml

CONTAINER = "wiretap"
CAPTURE = "/captures/wire.pcap"
_PARTS = Path(__file__).parent / "container.yaml"


def tap(pod: dict[str, Any], *, port: int) -> None:
    """Add the listener to a pod's spec, for TCP to and from `port`; it listens from the pod's start."""
    parts = yaml.safe_load(_PARTS.read_text())
    parts["container"]["args"][-1] = str(port)
    pod["containers"].append(parts["container"])
    pod.setdefault("volumes", []).append(parts["volume"])
