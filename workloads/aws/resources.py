"""What is declared of an account, as YAML beside a check, made and unmade through boto3: functions, buckets, App Mesh, Cloud Map.

A resource is a document of the group `aws.faasmesh.dev`; its `spec` is what boto3 is given, with its name filled in.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from clusters.errors import UserError
from clusters.manifests import Document
from workloads.aws import ACCOUNT, REGION, code
from workloads.aws.account import Account

GROUP = "aws.faasmesh.dev"


def declared(document: Document) -> bool:
    """Tell whether a document is a resource of AWS, and not an object of the cluster."""
    return str(document.body["apiVersion"]).partition("/")[0] == GROUP


def function_arn(name: str) -> str:
    """Return the ARN of a function."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


@dataclass
class Resources:
    """Makes resources in an account, and unmakes them, last first."""

    account: Account
    role: str
    # What Cloud Map gave to what was made, by kind and name: it knows its own by id.
    ids: dict[tuple[str, str], str] = field(default_factory=dict)
    _undo: ExitStack = field(default_factory=ExitStack)
    _made: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)

    def apply(self, documents: Iterable[Document]) -> None:
        """Make what is not there yet and update what this made before, in order.

        Raises:
            UserError: the kind is unknown, or AWS refused the resource; the message names file and line.

        """
        for document in documents:
            make = _MAKERS.get(document.kind)
            if make is None:
                raise UserError(document.where, expected=f"one of {', '.join(_MAKERS)}", seen=document.kind, hint=f"kinds of {GROUP} are those of workloads/aws/resources.py")
            before = self._made.get((document.kind, document.name))
            if before == document.body:
                continue
            try:
                make(self, document.name, document.body, before)
            except ClientError as refused:
                said = refused.response["Error"]
                raise UserError(
                    document.where, expected="to be taken by AWS", seen=f"{said.get('Code')}: {said.get('Message')}", hint="the spec is what boto3 is given",
                ) from refused
            self._made[document.kind, document.name] = document.body

    def code(self, function: str) -> dict[str, bytes]:
        """Return the files of a function as they are declared now."""
        return code.files(**self._made["Function", function]["code"])

    def remove(self) -> None:
        """Unmake everything."""
        self._undo.close()
        self._made.clear()
        self.ids.clear()

    def remove_one(self, kind: str, name: str) -> None:
        """Unmake one resource now, such as an instance that leaves while its callers call."""
        _REMOVERS[kind](self, name)
        self._made.pop((kind, name), None)

    # One maker for each kind: it is told the name, the whole document, and what was declared before under the name, if anything was.

    def _function(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        client = self.account.client("lambda")
        package = code.package(code.files(**body["code"]))
        if before is None:
            client.create_function(FunctionName=name, Role=self.role, Code={"ZipFile": package}, **body["spec"])
            self._undo.callback(self._gone, client.delete_function, FunctionName=name)
        else:
            client.update_function_configuration(FunctionName=name, **body["spec"])
            client.update_function_code(FunctionName=name, ZipFile=package)
        if body.get("concurrency") is not None:
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=body["concurrency"])

    def _bucket(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        client = self.account.client("s3")
        if before is None:
            client.create_bucket(Bucket=name)
            self._undo.callback(self._emptied, name)
        notifications = [{**one, "LambdaFunctionArn": function_arn(one["LambdaFunctionArn"])} for one in body["spec"].get("LambdaFunctionConfigurations", [])]
        client.put_bucket_notification_configuration(Bucket=name, NotificationConfiguration={"LambdaFunctionConfigurations": notifications})

    def _mesh(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        client = self.account.client("appmesh")
        (client.update_mesh if before else client.create_mesh)(meshName=name, spec=body["spec"])
        if before is None:
            self._undo.callback(self._gone, client.delete_mesh, meshName=name)

    def _virtual_node(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        client = self.account.client("appmesh")
        where = {"meshName": body["mesh"], "virtualNodeName": name}
        (client.update_virtual_node if before else client.create_virtual_node)(**where, spec=body["spec"])
        if before is None:
            self._undo.callback(self._gone, client.delete_virtual_node, **where)

    def _virtual_router(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        client = self.account.client("appmesh")
        where = {"meshName": body["mesh"], "virtualRouterName": name}
        (client.update_virtual_router if before else client.create_virtual_router)(**where, spec=body["spec"])
        if before is None:
            self._undo.callback(self._gone, client.delete_virtual_router, **where)

    def _route(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        client = self.account.client("appmesh")
        where = {"meshName": body["mesh"], "virtualRouterName": body["router"], "routeName": name}
        (client.update_route if before else client.create_route)(**where, spec=body["spec"])
        if before is None:
            self._undo.callback(self._gone, client.delete_route, **where)

    def _namespace(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        if before is not None:
            raise ValueError(f"namespace {name} is not changed once it is made")
        client = self.account.client("servicediscovery")
        operation = client.create_private_dns_namespace(Name=name, **body["spec"])["OperationId"]
        made = client.get_operation(OperationId=operation)["Operation"]["Targets"]["NAMESPACE"]
        self.ids["Namespace", name] = made
        self._undo.callback(self._gone, client.delete_namespace, Id=made)

    def _service(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        if before is not None:
            raise ValueError(f"service {name} is not changed once it is made")
        client = self.account.client("servicediscovery")
        made = client.create_service(Name=name, NamespaceId=self.ids["Namespace", body["namespace"]], **body["spec"])["Service"]["Id"]
        self.ids["Service", name] = made
        self._undo.callback(self._gone, client.delete_service, Id=made)

    def _instance(self, name: str, body: Mapping[str, Any], before: Mapping[str, Any] | None) -> None:
        self.ids["Instance", name] = self.ids["Service", body["service"]]
        # Registering again replaces what was registered under the name.
        self.account.client("servicediscovery").register_instance(ServiceId=self.ids["Instance", name], InstanceId=name, Attributes=body["spec"]["Attributes"])
        if before is None:
            self._undo.callback(self._deregistered, name)

    def _deregistered(self, name: str) -> None:
        service = self.ids.pop(("Instance", name), None)
        if service is not None:
            self.account.client("servicediscovery").deregister_instance(ServiceId=service, InstanceId=name)

    def _emptied(self, bucket: str) -> None:
        client = self.account.client("s3")
        for one in client.list_objects_v2(Bucket=bucket).get("Contents", []):
            client.delete_object(Bucket=bucket, Key=one["Key"])
        client.delete_bucket(Bucket=bucket)

    @staticmethod
    def _gone(delete: Callable[..., object], **which: str) -> None:
        """Delete one; a check may have done so before."""
        try:
            delete(**which)
        except ClientError as error:
            if "NotFound" not in str(error.response["Error"].get("Code")):
                raise


_Maker = Callable[[Resources, str, Mapping[str, Any], Mapping[str, Any] | None], None]
_MAKERS: Mapping[str, _Maker] = {
    "Function": Resources._function, "Bucket": Resources._bucket, "Mesh": Resources._mesh, "VirtualNode": Resources._virtual_node,  # noqa: SLF001  # one module
    "VirtualRouter": Resources._virtual_router, "Route": Resources._route, "Namespace": Resources._namespace, "Service": Resources._service,  # noqa: SLF001  # one module
    "Instance": Resources._instance,  # noqa: SLF001  # one module
}
_REMOVERS: Mapping[str, Callable[[Resources, str], None]] = {"Instance": Resources._deregistered}  # noqa: SLF001  # one module
