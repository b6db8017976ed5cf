"""The provider for a cluster that is somebody's: nothing is installed, and only the run's own namespaces are used."""

from dataclasses import dataclass
from pathlib import Path

from clusters.errors import UserError
from clusters.kube import Kube
from clusters.provider import Cluster

# What a run creates, and so what it must be allowed to: verb, API group, resource.
NEEDED_RIGHTS = (
    ("create", "", "namespaces"),
    ("delete", "", "namespaces"),
    ("create", "apps", "deployments"),
    ("create", "", "services"),
    ("create", "", "serviceaccounts"),
    ("create", "", "pods/exec"),
    ("create", "", "pods/proxy"),
    ("get", "", "pods/log"),
    ("create", "networking.istio.io", "virtualservices"),
    ("create", "networking.istio.io", "gateways"),
    ("create", "security.istio.io", "peerauthentications"),
)


@dataclass(frozen=True)
class ExistingProvider:
    """A cluster behind a kubeconfig, which is read and never written."""

    kubeconfig: Path
    context: str | None = None

    def connect(self) -> tuple[Cluster, Kube]:
        """Return the cluster after asking it for every right that a run needs.

        Raises:
            UserError: the kubeconfig, the context, the server or the rights are not fit.

        """
        kube = Kube.from_kubeconfig(self.kubeconfig, self.context)
        version = kube.server_version()
        missing = [f"{verb} {resource}.{group}".rstrip(".") for verb, group, resource in NEEDED_RIGHTS if not kube.can(verb, group, resource)]
        if missing:
            raise UserError(
                f"rights on context {kube.server.origin.context}", expected=f"all {len(NEEDED_RIGHTS)} that a run needs",
                seen=f"missing {', '.join(missing)}", hint="ask the cluster's owner for them, or use another context",
            )
        cluster = Cluster(
            name=kube.server.origin.context, provider="existing", kubeconfig=self.kubeconfig, context=kube.server.origin.context, owned=False,
            origin="existing", facts={"kubernetes": version},
        )
        return cluster, kube
