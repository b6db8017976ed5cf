"""The pytest side of the suites: profiles, mutants, the recording of verdicts, evidence on failure, the report."""

import os
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import pytest
from filelock import ReadWriteLock
from rich.console import Console

from clusters import evidence, progress
from clusters.bringup import Testbed
from clusters.components.istio.client import IstioClient
from clusters.errors import EXIT_FAILED, UserError
from clusters.fixtures import TESTBED, leave, worker_of
from clusters.paths import runs_root
from suites.support import mutants, requirements
from suites.support.environment import environment_facts
from suites.support.manifests import Manifests
from suites.support.mutants import Mutant
from suites.support.report import (
    KILLED,
    SURVIVED,
    WRONG_CLAIM,
    Kill,
    Phase,
    Propagation,
    RunReport,
    exit_code,
    figures,
    kill_line,
    kill_table,
    last_line,
    table,
)
from suites.support.requirements import Requirement
from suites.support.scheduling import AreaScheduling
from suites.support.verdicting import CheckFailed, CheckInconclusive, Decide
from suites.support.verdicts import FAILED, INCONCLUSIVE
from workloads.fixtures import World
from workloads.ingress import Ingress

RUN = pytest.StashKey["Run"]()
STANDARD_ERROR = 2
FOLDER = pytest.StashKey[Path]()
TERMINAL = pytest.StashKey[TextIO]()
DECIDED = pytest.StashKey[Decide]()
MANIFESTS = pytest.StashKey[Manifests]()
MISTAKE = pytest.StashKey[UserError]()
REFUSED = pytest.StashKey[bool]()
TIMINGS = pytest.StashKey[dict[str, float]]()
# A profile is a bound on what a check costs: `quick` leaves the slow ones out, `nightly` adds those that take minutes.
PROFILES = ("quick", "full", "nightly")


@dataclass
class Run:
    """One run of the suites and the report it builds."""

    report: RunReport
    mutating: bool
    enforce: bool
    # Seconds of phases that are not to be charged to a check, so far.
    charged: float = 0.0


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of a run."""
    group = parser.getgroup("faasmesh suites", "faasmesh: what is judged, and how it is reported")
    group.addoption("--profile", choices=PROFILES, default="full", help="quick: no check marked slow; full: all but nightly ones; nightly: all")
    group.addoption("--mutation", action="store_true", help="try every declared mutant of the mesh instead; each must turn its check red")
    group.addoption("--enforce", action="store_true", help="a MUST that was not run fails the run")
    group.addoption("--run-folder", default=None, help="where the report and the evidence go (default: a new folder below .faasmesh/runs)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, name the run's folder, and let progress reach the terminal past pytest's capture."""
    config.stash[FOLDER] = _folder_of(config)
    # pytest's own JUnit writer looks at its option right after this; self-tests and plans are no runs.
    planned = config.getoption("collectonly") or config.getoption("setupplan")
    hermetic = all("selftest" in argument for argument in config.args)
    if config.option.xmlpath is None and not planned and not hermetic:
        config.option.xmlpath = str(config.stash[FOLDER] / "junit.xml")
    config.addinivalue_line("markers", "requirement(entry): the requirement that a check shows")
    config.addinivalue_line("markers", "slow: takes more than 20 s; left out by --profile=quick")
    config.addinivalue_line("markers", "nightly: takes minutes; run by --profile=nightly only")
    if worker_of(config):
        return
    if not hermetic:
        # Capture replaces descriptor 2; its copy still is the terminal.
        terminal: TextIO = os.fdopen(os.dup(STANDARD_ERROR), "w", buffering=1)
        config.stash[TERMINAL] = terminal
        progress.redirect(terminal)


def _folder_of(config: pytest.Config) -> Path:
    if worker_of(config):
        return Path(config.workerinput["faasmesh_run_folder"])  # type: ignore[attr-defined]  # xdist's
    chosen = config.getoption("run_folder")
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return Path(chosen) if chosen else runs_root() / f"{stamp}-{os.getpid()}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every check once, or once for each of its mutants."""
    marker = next(metafunc.definition.iter_markers("requirement"), None)
    if marker is None or "mutant" not in metafunc.fixturenames:
        return
    if metafunc.config.getoption("mutation"):
        try:
            tried = mutants.of(marker.args[0])
        except UserError as error:
            # Whoever leaves during collection leaves a stack trace behind.
            metafunc.config.stash[MISTAKE] = error
            return
        metafunc.parametrize("mutant", tried, ids=[mutant.name for mutant in tried], indirect=True, scope="function")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the profile leaves out, and open the report for what remains."""
    if MISTAKE in config.stash:
        # A worker would still hand in what it has collected, and the cluster would be brought up for it.
        items.clear()
        leave(config, config.stash[MISTAKE])
    left_out = list(_beyond(config.getoption("profile"), items))
    skipped = {item for item, _ in left_out}
    items[:] = [item for item in items if item not in skipped]
    if worker_of(config):
        items[:] = longest_first(items)
    config.hook.pytest_deselected(items=list(skipped))
    chosen = {entry.id: entry for item in items if (entry := requirement_of(item)) is not None}
    if not chosen or config.getoption("collectonly") or config.getoption("setupplan", default=False):
        return
    try:
        requirements.budget(chosen.values())
        requirements.refuse_misplaced(chosen.values())
    except UserError as error:
        items.clear()
        leave(config, error)
    run = _open(config)
    if not run.mutating:
        run.report.expect(*chosen.values())
    for item, why in left_out:
        if (entry := requirement_of(item)) is not None:
            run.report.expect(entry)
            run.report.not_run(entry.id, why)
        run.report.skip(item.nodeid, why)


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests with each area's long files first, and last those that nothing may run beside.

    A parallel run hands out an area's files in this order: a long one at the end would keep one process waiting for the other. Areas stay apart,
    for their namespaces go when a process comes to another.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    alone = {item.path for item in items if (entry := requirement_of(item)) is not None and entry.alone}
    areas = list(dict.fromkeys(item.path.parent for item in items))
    return sorted(items, key=lambda item: (areas.index(item.path.parent), item.path in alone, item.path not in slow))


def _beyond(profile: str, items: Iterable[pytest.Item]) -> Iterator[tuple[pytest.Item, str]]:
    """Yield the tests that cost more than a profile allows, and why."""
    for item in items:
        if profile != "nightly" and item.get_closest_marker("nightly"):
            yield item, f"takes minutes; --profile={profile}"
        elif profile == "quick" and item.get_closest_marker("slow"):
            yield item, "slow; --profile=quick"


def _open(config: pytest.Config) -> Run:
    folder = config.stash[FOLDER]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        leave(config, UserError(
            f"run folder {folder}", expected="a folder that can be written", seen=error.strerror or str(error), hint="give another with --run-folder",
        ))
    mutating = bool(config.getoption("mutation"))
    run = Run(
        RunReport.begin(
            folder, command=["pytest", *config.invocation_params.args], profile=config.getoption("profile"),
            provider=config.getoption("cluster"), image_origin=config.getoption("images"), part=worker_of(config),
        ),
        mutating, bool(config.getoption("enforce")),
    )
    config.stash[RUN] = run
    return run


def requirement_of(item: pytest.Item) -> Requirement | None:
    """Return the requirement that a test shows, if it shows one."""
    marker = item.get_closest_marker("requirement")
    return marker.args[0] if marker else None


@pytest.fixture(scope="session")
def run_folder(request: pytest.FixtureRequest) -> Path:
    """Where the run keeps what it leaves behind."""
    return request.config.stash[FOLDER].resolve()


@pytest.fixture
def mutant(request: pytest.FixtureRequest) -> Mutant | None:
    """The fault under which this check runs; None in an ordinary run."""
    return getattr(request, "param", None)


@pytest.fixture
def manifests(request: pytest.FixtureRequest, world: World, istio: IstioClient, ingress: Ingress, mutant: Mutant | None) -> Iterator[Manifests]:
    """The manifests beside the test; what it applies is removed when it ends."""
    beside = Manifests(request.path.parent, world, istio, ingress, mutant)
    request.node.stash[MANIFESTS] = beside
    yield beside
    beside.remove()


@pytest.fixture
def decide(request: pytest.FixtureRequest, world: World, mutant: Mutant | None) -> Decide:
    """Take the evidence of the check, once."""
    run = request.config.stash[RUN]
    entry = requirement_of(request.node)
    if entry is None:
        raise UserError(request.node.nodeid, expected="a @requirement", seen="none", hint="a verdict belongs to a requirement")
    taken = Decide(entry, run.report.folder, mutant.name if mutant else None, world.state)
    request.node.stash[DECIDED] = taken
    return taken


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Turn a mutant's red into green and its green into red; time the body of every check."""
    mutant = pyfuncitem.funcargs.get("mutant")
    began = time.monotonic()
    try:
        if not isinstance(mutant, Mutant):
            return (yield)
        try:
            yield
        except CheckInconclusive as inconclusive:
            _kill(pyfuncitem, mutant, SURVIVED, (), str(inconclusive))
            raise
        except CheckFailed as failed:
            names = tuple(claim.name for claim in failed.verdict.failed_claims)
            outcome = KILLED if mutant.kills in names else WRONG_CLAIM
            _kill(pyfuncitem, mutant, outcome, names)
            if outcome != KILLED:
                raise
            return True
        _kill(pyfuncitem, mutant, SURVIVED, ())
        pytest.fail(f"mutant {mutant.name} survived: the check held although {mutant.target} was changed", pytrace=False)
    finally:
        pyfuncitem.stash.setdefault(TIMINGS, {})["call"] = time.monotonic() - began


def _kill(item: pytest.Item, mutant: Mutant, outcome: str, names: tuple[str, ...], reason: str = "") -> None:
    entry = requirement_of(item)
    item.config.stash[RUN].report.kill(Kill(entry.id if entry else "", mutant.name, mutant.kills, outcome, names, reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record how each check ended; on a red, collect evidence before its fixtures take the world down."""
    made = yield
    run, entry = item.config.stash.get(RUN, None), requirement_of(item)
    if run is None or entry is None:
        return made
    item.stash.setdefault(TIMINGS, {})[call.when] = call.duration
    red = made.failed and call.when in ("setup", "call")
    artefacts = _collect(item, run) if red else ()
    made.sections += [("what the cluster looked like", str(run.report.folder / artefact)) for artefact in artefacts]
    if run.mutating:
        if red and call.excinfo is not None and not isinstance(call.excinfo.value, CheckFailed) and "survived" not in str(call.excinfo.value):
            mutant = getattr(item, "callspec", None) and item.callspec.params.get("mutant")  # type: ignore[attr-defined]  # pytest.Function
            if isinstance(mutant, Mutant):
                run.report.kill(Kill(entry.id, mutant.name, mutant.kills, "not-run", (), made.longreprtext[-400:]))
        return made
    if call.when == "call":
        _record(item, run, entry, call, artefacts)
    elif call.when == "setup" and made.skipped:
        run.report.not_run(entry.id, str(made.longrepr[2]) if isinstance(made.longrepr, tuple) else "skipped")
    elif red:
        run.report.broken(entry.id, _why(call), artefacts=artefacts)
    return made


def _record(item: pytest.Item, run: Run, entry: Requirement, call: pytest.CallInfo[None], artefacts: tuple[str, ...]) -> None:
    timings = item.stash[TIMINGS]
    decided, applied = item.stash.get(DECIDED, None), item.stash.get(MANIFESTS, None)
    verdict = decided.verdict if decided else None
    spread = [] if applied is None else [
        Propagation(
            kind="+".join(one.kinds), name=name, seconds=round(one.seconds, 3), proxies=len(one.by_proxy),
            by_proxy={proxy: round(seconds, 3) for proxy, seconds in one.by_proxy.items()},
        )
        for name, one in applied.propagation
    ]
    settle = sum(one.seconds for one in spread)
    judge = decided.judge_seconds if decided else 0.0
    told = {
        "setup": round(max(0.0, timings.get("setup", 0.0) - _new_phases(item, run)), 3), "settle": round(settle, 3),
        "draw": round(max(0.0, timings.get("call", 0.0) - settle - judge), 3), "judge": round(judge, 3),
    }
    if verdict is None or decided is None:
        reason = _why(call) if call.excinfo else "the check ended without deciding"
        run.report.broken(entry.id, reason, timings=told, artefacts=artefacts)
    else:
        run.report.record(
            entry.id, verdict, timings=told, propagation=spread, evidence=str(decided.file.relative_to(run.report.folder)), artefacts=artefacts,
            combinations=decided.combinations,
        )


def _new_phases(item: pytest.Item, run: Run) -> float:
    """Return the seconds of phases since the last check: the first check of a run would otherwise be charged for the cluster."""
    bed = item.config.stash.get(TESTBED, None)
    total = sum(seconds for _, seconds in bed.phases) if bed is not None else 0.0
    new, run.charged = total - run.charged, total
    return new


def _why(call: pytest.CallInfo[None]) -> str:
    if call.excinfo is None:
        return "unknown"
    return f"{call.excinfo.typename}: {str(call.excinfo.value)[:600]}"


def _collect(item: pytest.Item, run: Run) -> tuple[str, ...]:
    """Save what the namespace looked like when the check turned red; trouble while saving never hides the red."""
    world = getattr(item, "funcargs", {}).get("world")
    expected_red = run.mutating
    if not isinstance(world, World) or expected_red:
        return ()
    into = run.report.folder / "failures" / item.name
    with suppress(Exception):
        evidence.collect(world.kube, [world.namespace, "istio-system"], into)
        return (str(into.relative_to(run.report.folder)),)
    return ()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Close the report and give the run its exit code: 0 only when every MUST held."""
    run = session.config.stash.get(RUN, None)
    if run is None:
        return
    bed: Testbed | None = session.config.stash.get(TESTBED, None)
    if worker_of(session.config):
        if bed is not None:
            run.report.phases += [Phase(name, round(seconds, 3)) for name, seconds in bed.phases]
        run.report.write()
        return
    run.report.gather()
    if bed is not None:
        _describe(run.report, bed)
    run.report.finish()
    if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        # The requirements decide, not pytest: a red SHOULD fails no run. An error beside the requirements does.
        beside = exitstatus and not any(result.outcome in (FAILED, INCONCLUSIVE) for result in run.report.results.values())
        session.exitstatus = EXIT_FAILED if beside else exit_code(run.report, enforce=run.enforce)


def _describe(report: RunReport, bed: Testbed) -> None:
    report.versions.update(bed.versions | {f"detected {name}": version for name, version in bed.detected.items()})
    if bed.cluster is not None:
        report.image_origin = bed.cluster.origin
    report.environment.update(environment_facts(bed))
    report.phases += [Phase(name, round(seconds, 3)) for name, seconds in bed.phases]


# In a run of several processes each keeps a part of the report; the first of them joins the parts.


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> AreaScheduling | None:  # noqa: ANN401  # xdist publishes no types
    """Let every process of a parallel run stay in its area, unless another distribution is asked for."""
    return AreaScheduling(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401  # xdist publishes no types
    """Tell a worker where the run's evidence goes."""
    node.workerinput["faasmesh_run_folder"] = str(node.config.stash[FOLDER].resolve())


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:  # noqa: ANN401  # xdist publishes no types
    """Open the report that the workers' parts are joined in."""
    if RUN not in node.config.stash and not all(one.startswith("suites/selftest/") for one in ids):
        _open(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:  # noqa: ANN401  # xdist publishes no types
    """Say why a worker left: its own words never reach the terminal."""
    refused = getattr(node, "workeroutput", {}).get("faasmesh_refused")
    if refused and not node.config.stash.get(REFUSED, False):
        node.config.stash[REFUSED] = True
        progress.say(refused)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Join the parts as checks end, so that a run that is killed leaves what all of its processes knew."""
    run = getattr(getattr(report, "node", None), "config", None)
    if run is not None and report.when == "teardown" and RUN in run.stash:
        run.stash[RUN].report.gather()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Keep a check that changes the whole cluster apart from those of other processes of the run."""
    if not worker_of(item.config):
        return (yield)
    folder = Path(item.config.workerinput["faasmesh"]["folder"])  # type: ignore[attr-defined]  # xdist's
    lock = ReadWriteLock(folder / "alone.db")
    entry = requirement_of(item)
    with lock.write_lock() if entry is not None and entry.alone else lock.read_lock():
        return (yield)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:  # noqa: ANN401  # pytest does not export its type
    """Print the table, where the files are, and the last line."""
    run = config.stash.get(RUN, None)
    if run is None:
        return
    terminalreporter.ensure_newline()
    console = Console(file=terminalreporter._tw._file, width=None if sys.stdout.isatty() else 160, highlight=False)  # noqa: SLF001  # its stream has no public name
    console.print(kill_table(run.report) if run.mutating else table(run.report))
    for line in () if run.mutating else figures(run.report):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"report: {run.report.folder / 'report.html'}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the last line last, below pytest's own."""
    run = config.stash.get(RUN, None)
    if run is not None and not worker_of(config):
        sys.stdout.write((kill_line(run.report) if run.mutating else last_line(run.report)) + "\n")
        sys.stdout.flush()
    if TERMINAL in config.stash:
        progress.redirect(sys.__stderr__)
        config.stash[TERMINAL].close()


