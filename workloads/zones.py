"""Zones: pods placed on the nodes of three zones, or, where there are none, labelled as if they were."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# Those of the three-node cluster (clusters/kind.py). A manifest that names zones must name the same ones everywhere.
REGION = "local"
ZONES = ("zone-a", "zone-b", "zone-c")
NODES = "nodes"
LABEL = "label"

# Istio takes a pod's locality from this label before it asks the pod's node, for endpoints and for the proxy's own place
# alike; labels hold no slash, so dots stand for it (Istio 1.29, pkg/model/proxy.go, GetLocalityLabel). Its younger name,
# topology.istio.io/locality, is not known to every Istio that may be met.
LOCALITY_LABEL = "istio-locality"
REGION_OF_NODE = "topology.kubernetes.io/region"
ZONE_OF_NODE = "topology.kubernetes.io/zone"

Objects = list[dict[str, Any]]


@dataclass(frozen=True)
class Zones:
    """How pods come to be in a zone: by `nodes` of that zone, or by `label`."""

    placed_by: str

    def place(self, objects: Objects, zone: str) -> Objects:
        """Return the objects with the pods of their Deployments in `zone`; ValueError for a zone that is not one of ZONES."""
        if zone not in ZONES:
            raise ValueError(f"no zone {zone}; there are {', '.join(ZONES)}")
        for template in (each["spec"]["template"] for each in objects if each["kind"] == "Deployment"):
            if self.placed_by == NODES:
                template["spec"]["nodeSelector"] = {REGION_OF_NODE: REGION, ZONE_OF_NODE: zone}
            else:
                template["metadata"]["labels"][LOCALITY_LABEL] = f"{REGION}.{zone}"
        return objects


def zones_of(nodes: Iterable[Mapping[str, Any]]) -> Zones:
    """Return how to place pods on a cluster of these nodes: by node where every one of ZONES has a node, else by label.

    A cluster of somebody's has zones of other names, whose nodes may be full or reserved: there the label is used too.
    """
    labels = [node["metadata"].get("labels", {}) for node in nodes]
    present = {each.get(ZONE_OF_NODE) for each in labels if each.get(REGION_OF_NODE) == REGION}
    return Zones(NODES if present.issuperset(ZONES) else LABEL)
