"""From Cloud Map to the mesh: the instances of a service as boto3 discovers them, in the words of a ServiceEntry."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from workloads.aws.account import Account


@dataclass(frozen=True)
class Instance:
    """One instance of a service, with the address that it was registered with."""

    id: str
    address: str
    port: int

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """Read what `discover_instances` says of one; ValueError for one without an address: the mesh could send nothing there."""
        attributes = told["Attributes"]
        if missing := [name for name in ("AWS_INSTANCE_IPV4", "AWS_INSTANCE_PORT") if not attributes.get(name)]:
            raise ValueError(f"instance {told['InstanceId']} has no {' and no '.join(missing)}")
        return cls(told["InstanceId"], attributes["AWS_INSTANCE_IPV4"], int(attributes["AWS_INSTANCE_PORT"]))

    def to_json(self) -> dict[str, Any]:
        """Return the instance as evidence keeps it."""
        return dict(vars(self))


def discover(account: Account, namespace: str, service: str, attributes: Iterable[Mapping[str, str]] = ()) -> list[Instance]:
    """Return the healthy instances of a service with these attributes (as a virtual node lists them), by their ids."""
    wanted = {"QueryParameters": {one["key"]: one["value"] for one in attributes}} if attributes else {}
    told = account.client("servicediscovery").discover_instances(NamespaceName=namespace, ServiceName=service, HealthStatus="HEALTHY", **wanted)
    return sorted(map(Instance.of, told["Instances"]), key=lambda one: one.id)


def endpoints(instances: Iterable[Instance]) -> str:
    """Return instances as the `endpoints` of a ServiceEntry whose port is called http, in JSON, which is YAML as well."""
    return json.dumps([{"address": one.address, "ports": {"http": one.port}} for one in instances])
