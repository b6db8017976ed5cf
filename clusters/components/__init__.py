"""The parts that are installed on a cluster; each is an installer, a readiness and a client."""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from clusters.errors import UserError
from clusters.kube import Kube
from clusters.provider import Cluster
from clusters.timeouts import Timeouts


class Component(Protocol):
    """What every component offers. Installing is idempotent: a half-finished installation is finished by the next."""

    @property
    def name(self) -> str:
        """What --components calls it."""

    @property
    def namespace(self) -> str:
        """Where it is installed."""

    @property
    def requires(self) -> tuple[str, ...]:
        """The components that must be there first."""

    def input_key(self) -> str:
        """Return a digest of everything that `install` applies; a kept cluster with another digest is installed again."""

    def install(self, cluster: Cluster, timeouts: Timeouts, log: Path) -> None:
        """Apply the component; what the installer prints goes to `log`."""

    def await_ready(self, kube: Kube, timeouts: Timeouts) -> None:
        """Return when the component does its work, not merely when its pods run."""

    def detect(self, kube: Kube) -> str | None:
        """Return the version that runs on a cluster that somebody else installed, or None."""


def in_order(names: Iterable[str], known: dict[str, Component]) -> list[Component]:
    """Return the named components with what they require, requirements first.

    Raises:
        UserError: a name is unknown.

    """
    ordered: list[Component] = []

    def visit(name: str) -> None:
        if name not in known:
            raise UserError("--components", expected=f"some of {', '.join(sorted(known))}", seen=name, hint="names are separated by commas")
        for needed in known[name].requires:
            visit(needed)
        if known[name] not in ordered:
            ordered.append(known[name])

    for name in names:
        visit(name)
    return ordered
