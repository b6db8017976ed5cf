"""The ingress gateway: a Gateway and a VirtualService let one host and one path in, and nothing else."""

import pytest

from suites.support import judges
from suites.support.manifests import Manifests
from suites.support.requirements import requirement
from suites.support.verdicting import Decide
from suites.support.verdicts import Evidence, Verdict
from workloads.fixtures import World
from workloads.greeter import greeter
from workloads.ingress import Ingress

HOST = "serverless.example.com"
# A route is right or wrong for every request alike; twenty show that no second gateway pod or stale route answers in between.
CALLS = 20

# A prefix match takes /hello and what lies below it; Envoy compares the path as text, so /hellos is below it too (finding).
OTHER_PATHS = ("/", "/goodbye", "/Hello", "/api/hello")
OTHER_HOSTS = ("example.com", "www.serverless.example.com", "hello-serverless")


def judge(evidence: Evidence) -> Verdict:
    """The function answers its path on its host; every other path and host gets 404 from the gateway itself."""
    return Verdict.of(
        *judges.let_in(evidence["hello"], evidence["below"], evidence["other-paths"], evidence["other-hosts"], "hello", least=CALLS),
    )


@pytest.fixture(scope="module")
def hello_serverless(world: World, functions: str) -> None:
    """The function of the row, a plain Deployment; `functions` are there for a mutant to lead astray."""
    del functions
    world.deploy({"hello-serverless": greeter("hello-serverless", "hello", env={"TARGET": "Serverless World"})})


@requirement("routing.gateway", level="MUST", judge=judge)
@pytest.mark.usefixtures("hello_serverless")
def test_one_host_and_one_path_are_let_in(ingress: Ingress, manifests: Manifests, decide: Decide) -> None:
    """The gateway serves `/hello` of its host from the function; other paths and other hosts are answered 404 and reach nothing."""
    manifests.apply("gateway.yaml")

    decide(
        hello=ingress.draw(HOST, "/hello", count=CALLS),
        below=ingress.draw(HOST, "/hello/again?name=x", count=CALLS),
        **{"other-paths": {path: ingress.draw(HOST, path, count=CALLS) for path in OTHER_PATHS}},
        **{"other-hosts": {host: ingress.draw(host, "/hello", count=CALLS) for host in OTHER_HOSTS}},
    )
