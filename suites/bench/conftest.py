"""What the benchmarks measure: one function, asked in several ways in one run, so that the ratios hold on any machine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clusters.manifests import load_manifest
from workloads.fixtures import World
from workloads.greeter import greeter


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the sizes of measurements."""
    group = parser.getgroup("faasmesh-bench", "faasmesh: the benchmarks")
    group.addoption("--cold-starts", type=int, default=20, metavar="N", help="rounds of cold starts, each with every arm (default: %(default)s)")
    group.addoption("--cold-start-arms", default="", metavar="NAMES", help="some of the arms, separated by commas; all when none is named")


@pytest.fixture(scope="module")
def target(world: World) -> str:
    """A function in the mesh; returns its address."""
    world.deploy({"bench-function": greeter("bench-function", "v1")})
    return "http://bench-function/bench"


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], None]]:
    """Collect figures as (name, value) and print them as a table at the end, past pytest's capture."""
    collected: list[tuple[str, str]] = []
    yield lambda name, value: collected.append((name, value))
    capture = request.config.pluginmanager.getplugin("capturemanager")
    width = max((len(name) for name, _ in collected), default=0)
    with capture.global_and_fixture_disabled():
        for name, value in collected:
            print(f"\n{name:<{width}}  {value}", end="")  # noqa: T201  # a benchmark's result is what it prints
        print()  # noqa: T201  # see above


@pytest.fixture(scope="module")
def fortio(world: World) -> str:
    """The pod of another load generator in the same mesh."""
    world.deploy({"fortio": [document.body for document in load_manifest(Path(__file__).parent / "fortio.yaml")]})
    return world.pod("fortio")
