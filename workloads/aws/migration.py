"""From App Mesh to Istio, setting by setting: what an account has registered, and what says the same to the mesh.

AWS ended App Mesh on 2026-09-30. Its client is still in boto3 and its settings are still declared somewhere; each of them has to be said
otherwise, or is lost.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workloads.aws.account import Account

END_OF_LIFE = "2026-09-30"
NOTHING = "nothing"
Plain = Mapping[str, Any]
_TARGETS = "httpRoute.action.weightedTargets"

_RETRY_ON = {
    "server-error": "5xx", "gateway-error": "gateway-error", "client-error": "retriable-4xx", "stream-error": "refused-stream", "connection-error": "connect-failure",
}
_OUTBOUND = {"DROP_ALL": "REGISTRY_ONLY", "ALLOW_ALL": "ALLOW_ANY"}


@dataclass(frozen=True)
class Row:
    """One setting of one resource: its path and value there, and the kind, path and value in Istio that say the same; NOTHING where nothing does."""

    resource: str
    setting: str
    value: str
    kind: str
    path: str
    wanted: Any

    def to_json(self) -> dict[str, Any]:
        """Return the row as evidence keeps it."""
        return dict(vars(self))


def _duration(told: Plain) -> str:
    return f"{told['value']}{told['unit']}"


def _events(told: Sequence[str]) -> str:
    return ",".join(_RETRY_ON[event] for event in told)


def _host(told: Plain) -> str:
    return f"{told['serviceName']}.{told['namespaceName']}"


def _same(told: object) -> object:
    return told


_Rule = tuple[str, str, Callable[[Any], Any]]
# By the kind of resource and the setting's path: the kind, the path and the value in Istio.
_RULES: Mapping[tuple[str, str], _Rule] = {
    ("Mesh", "egressFilter.type"): ("Sidecar", "outboundTrafficPolicy.mode", lambda told: _OUTBOUND[told]),
    ("VirtualNode", "listeners.portMapping.port"): ("ServiceEntry", "ports.0.number", _same),
    ("VirtualNode", "listeners.portMapping.protocol"): ("ServiceEntry", "ports.0.protocol", lambda told: str(told).upper()),
    ("VirtualNode", "listeners.connectionPool.http.maxConnections"): ("DestinationRule", "trafficPolicy.connectionPool.tcp.maxConnections", _same),
    ("VirtualNode", "listeners.connectionPool.http.maxPendingRequests"): ("DestinationRule", "trafficPolicy.connectionPool.http.http1MaxPendingRequests", _same),
    ("VirtualNode", "listeners.connectionPool.http2.maxRequests"): ("DestinationRule", "trafficPolicy.connectionPool.http.http2MaxRequests", _same),
    ("VirtualNode", "listeners.outlierDetection.maxServerErrors"): ("DestinationRule", "trafficPolicy.outlierDetection.consecutive5xxErrors", _same),
    ("VirtualNode", "listeners.outlierDetection.interval"): ("DestinationRule", "trafficPolicy.outlierDetection.interval", _duration),
    ("VirtualNode", "listeners.outlierDetection.baseEjectionDuration"): ("DestinationRule", "trafficPolicy.outlierDetection.baseEjectionTime", _duration),
    ("VirtualNode", "listeners.outlierDetection.maxEjectionPercent"): ("DestinationRule", "trafficPolicy.outlierDetection.maxEjectionPercent", _same),
    ("VirtualNode", "serviceDiscovery.awsCloudMap"): ("ServiceEntry", "hosts.0", _host),
    ("VirtualRouter", "listeners.portMapping.port"): ("VirtualService", "http.0.route.0.destination.port.number", _same),
    ("VirtualRouter", "listeners.portMapping.protocol"): ("ServiceEntry", "ports.0.protocol", lambda told: str(told).upper()),
    ("Route", "httpRoute.match.prefix"): ("VirtualService", "http.0.match.0.uri.prefix", _same),
    ("Route", _TARGETS): ("VirtualService", "http.0.route.0.destination.host", lambda told: told[0]["virtualNode"]),
    ("Route", "httpRoute.timeout.perRequest"): ("VirtualService", "http.0.timeout", _duration),
    ("Route", "httpRoute.retryPolicy.maxRetries"): ("VirtualService", "http.0.retries.attempts", _same),
    ("Route", "httpRoute.retryPolicy.httpRetryEvents"): ("VirtualService", "http.0.retries.retryOn", _events),
    ("Route", "httpRoute.retryPolicy.perRetryTimeout"): ("VirtualService", "http.0.retries.perTryTimeout", _duration),
    ("Function", "ReservedConcurrentExecutions"): ("DestinationRule", "trafficPolicy.connectionPool.http.http2MaxRequests", _same),
    ("Instance", "AWS_INSTANCE_IPV4"): ("ServiceEntry", "endpoints.{index}.address", _same),
    ("Instance", "AWS_INSTANCE_PORT"): ("ServiceEntry", "endpoints.{index}.ports.http", int),
}
# Values that belong together: they are one setting.
_WHOLE = frozenset({"serviceDiscovery.awsCloudMap", _TARGETS, "httpRoute.retryPolicy.httpRetryEvents"})


def registered(account: Account, mesh: str, functions: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return what the account has of a mesh and of every Cloud Map namespace, and of `functions`, as it says itself: kind, name, settings."""
    client, discovery = account.client("appmesh"), account.client("servicediscovery")
    found = [{"kind": "Mesh", "name": mesh, "settings": client.describe_mesh(meshName=mesh)["mesh"]["spec"]}]
    for node in client.list_virtual_nodes(meshName=mesh)["virtualNodes"]:
        name = node["virtualNodeName"]
        found.append({"kind": "VirtualNode", "name": name, "settings": client.describe_virtual_node(meshName=mesh, virtualNodeName=name)["virtualNode"]["spec"]})
    for router in client.list_virtual_routers(meshName=mesh)["virtualRouters"]:
        where = {"meshName": mesh, "virtualRouterName": router["virtualRouterName"]}
        found.append({"kind": "VirtualRouter", "name": where["virtualRouterName"], "settings": client.describe_virtual_router(**where)["virtualRouter"]["spec"]})
        for route in client.list_routes(**where)["routes"]:
            name = route["routeName"]
            found.append({"kind": "Route", "name": name, "settings": client.describe_route(**where, routeName=name)["route"]["spec"]})
    for function in functions:
        reserved = account.client("lambda").get_function_concurrency(FunctionName=function).get("ReservedConcurrentExecutions")
        found.append({"kind": "Function", "name": function, "settings": {} if reserved is None else {"ReservedConcurrentExecutions": reserved}})
    for service in discovery.list_services()["Services"]:
        told = discovery.list_instances(ServiceId=service["Id"])["Instances"]
        found += [{"kind": "Instance", "name": one["Id"], "settings": one["Attributes"]} for one in sorted(told, key=lambda one: str(one["Id"]))]
    return found


def rows(found: Iterable[Plain]) -> list[Row]:
    """Return a row for every setting of every resource, in order."""
    listed = list(found)
    hosts = {one["name"]: _host(one["settings"]["serviceDiscovery"]["awsCloudMap"]) for one in listed if "awsCloudMap" in one["settings"].get("serviceDiscovery", {})}
    made: list[Row] = []
    for one in listed:
        for setting, value in _settings(one["settings"]):
            kind, path, convert = _RULES.get((one["kind"], setting), (NOTHING, "", _same))
            wanted = None if kind == NOTHING else convert(value)
            if setting == _TARGETS:
                # A target is named as the virtual node is; to Istio it is the node's host.
                wanted = hosts.get(wanted, "")
            index = [other["name"] for other in listed if other["kind"] == "Instance"].index(one["name"]) if one["kind"] == "Instance" else 0
            made.append(Row(f"{one['kind']} {one['name']}", setting, _text(value), kind, path.format(index=index), wanted))
    return made


def table(made: Iterable[Row]) -> str:
    """Return rows as people read them, one a line."""
    lines = [("App Mesh, Cloud Map, Lambda", "setting", "value", "Istio"), *(
        (row.resource, row.setting, row.value, NOTHING if row.kind == NOTHING else f"{row.kind} {row.path}: {row.wanted}") for row in made
    )]
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    return "\n".join("  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[3]]) for line in lines)


def at(document: Any, path: str) -> Any:  # noqa: ANN401  # JSON has no narrower type
    """Return what a document has at a dotted path, list items counted from 0; None where it has nothing there."""
    for step in path.split("."):
        if isinstance(document, Mapping):
            document = document.get(step)
        elif isinstance(document, Sequence) and not isinstance(document, str) and step.isdigit() and int(step) < len(document):
            document = document[int(step)]
        else:
            return None
    return document


def _settings(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # JSON has no narrower type
    """Yield every setting below a value with its path; of lists, each item's under the list's own."""
    if path in _WHOLE or (isinstance(value, Mapping) and value.keys() == {"unit", "value"}):
        yield path, value
    elif isinstance(value, Mapping):
        for name, below in value.items():
            yield from _settings(below, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for below in value:
            yield from _settings(below, path)
    elif value is not None:
        yield path, value


def _text(value: Any) -> str:  # noqa: ANN401  # JSON has no narrower type
    if isinstance(value, Mapping):
        return " ".join(f"{name}={_text(one)}" for name, one in value.items())
    return ", ".join(map(_text, value)) if isinstance(value, list) else str(value)
