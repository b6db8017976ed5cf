"""A check's manifests: applied from beside the test, mutated when a mutant is tried, known to have arrived, and removed."""

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from clusters.components.istio.client import IstioClient, Propagation
from clusters.manifests import Document, load_manifest
from clusters.waiting import TimedOut
from suites.support import mutants
from suites.support.mutants import Mutant
from workloads.aws import resources
from workloads.fixtures import World
from workloads.ingress import Ingress


@dataclass
class Manifests:
    """Applies the manifests of one test to its namespace; `mutant` changes the file that it was declared for."""

    folder: Path
    world: World
    istio: IstioClient
    ingress: Ingress
    mutant: Mutant | None = None
    propagation: list[tuple[str, Propagation]] = field(default_factory=list)
    _applied: dict[tuple[str, str], Document] = field(default_factory=dict)

    def apply(self, name: str, **values: str | int) -> list[Propagation]:
        """Apply a file, with `$namespace` and each `$name` of `values` filled in, and return when every proxy of the namespace holds it, the ingress gateway too where it is concerned.

        What an earlier check removed is gone from the proxies of the namespace by then as well: finding: a policy on its way out refused one of
        80 calls of the next check, which had applied nothing that is waited for as long.
        What is returned says how long it took to reach which proxy. Objects of an earlier file of this test that the new one names are replaced; others stay until the test ends.

        Raises:
            UserError: the API server refused an object; the message names file and line.
            TimedOut: a proxy did not get it; the message names the proxy and what it holds.

        """
        __tracebackhide__ = True
        documents = [document for document in self._documents(name, values) if not resources.declared(document)]
        # What this test has applied before, word for word, is where it belongs already.
        changed = [document for document in documents if getattr(self._applied.get((document.kind, document.name)), "body", None) != document.body]
        self._applied |= {(document.kind, document.name): document for document in documents}
        self.world.kube.apply(changed, self.world.namespace)
        at = time.monotonic()
        kinds = [document.kind for document in changed] or ["(nothing)"]
        pods = self.world.proxied_pods()
        leaving = self.world.leaving(pods)
        at_gateway = any(document.body.get("spec", {}).get("gateways") for document in documents) or "Gateway" in kinds
        # Side by side, or the gateway's time would be the sidecars' as well.
        with ThreadPoolExecutor(2) as pool:
            sidecars = pool.submit(self.istio.await_propagation, self.world.namespace, pods, kinds, at, leaving)
            gateway = pool.submit(self.istio.await_gateway, self.world.namespace, kinds, at, self._gateway_status) if at_gateway else None
            try:
                reached = [(name, sidecars.result()), *([(f"{name} at the ingress gateway", gateway.result())] if gateway else [])]
            except TimedOut as late:
                # The threads' own stack says nothing that the message does not.
                raise late.with_traceback(None) from None
        self.world.left(pods)
        self.propagation += reached
        return [one for _, one in reached]

    def of_aws(self, name: str, **values: str | int) -> list[Document]:
        """Return the resources of AWS that a file declares among the objects of the cluster, which `apply` leaves out; a mutant changes them too."""
        return [document for document in self._documents(name, values) if resources.declared(document)]

    def remove(self) -> None:
        """Remove what this test applied, last first."""
        self.world.kube.delete(list(self._applied.values()), self.world.namespace)
        self.world.removed(kind for kind, _ in self._applied)
        self._applied.clear()

    def _gateway_status(self, host: str) -> int:
        return self.ingress.draw(host, "/").records[0].status

    def _documents(self, name: str, values: Mapping[str, str | int]) -> list[Document]:
        """Return a file's documents with the names filled in and the mutant's changes made."""
        path = self.folder / name
        documents = load_manifest(path, namespace=self.world.namespace, **{key: str(value) for key, value in values.items()})
        if self.mutant is not None and self.mutant.file.name == f"{path.stem}.mutants.yaml":
            documents = self._mutated(documents, self.mutant)
        return documents

    def _mutated(self, documents: Iterable[Document], mutant: Mutant) -> list[Document]:
        """Return the documents with the fault in place; a document that the fault takes away is also removed from the cluster."""
        originals = list(documents)
        changed: list[Any] = mutants.apply(mutant, [document.body for document in originals])
        kept = {(body["kind"], body["metadata"]["name"]): body for body in changed}
        for gone in [document for document in originals if (document.kind, document.name) not in kept and not resources.declared(document)]:
            self.world.kube.delete([gone], self.world.namespace)
        return [
            replace(document, body=kept[document.kind, document.name])
            for document in originals if (document.kind, document.name) in kept
        ]
