"""What the host must have for a cluster: judged, reported by `doctor`, and prepared where that is wanted and possible."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

from filelock import FileLock
from rich import box
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from clusters import engine, progress
from clusters.engine import BOUNDED
from clusters.errors import EXIT_HELD, EXIT_USAGE, UserError
from clusters.hostfacts import HostFacts, gather
from clusters.paths import cache_root

VerdictWord = Literal["ok", "warn", "fail"]
Action = Literal["install", "wrap", "stop", "start"]
MODES = ("auto", "never")
# What preparation can change; everything else must hold before anything is touched.
PREPARABLE = frozenset({"host.engine-present", "host.engine-running", "host.engine-version", "host.engine-runtime"})

GIB = 1 << 30
# The API of Docker 20.10, the oldest engine this has run on.
OLDEST_API = (1, 41)
# The API server, istiod and the functions of one node want two cores to become ready within their timeouts.
FEWEST_CORES = 2
# A machine sold with 8 GiB shows less: kernel and firmware take their share first.
MEMORY_FAIL, MEMORY_OK = 7 * GIB, 8 * GIB
# The whole cluster takes 2 GiB, linking Kubernetes' largest binary about as much again.
AVAILABLE_FAIL, AVAILABLE_OK = 2 * GIB, 4 * GIB
# Go's build cache, the images and the node's copy of them.
DISK_FAIL, DISK_OK = 10 * GIB, 15 * GIB
# A node's systemd, containerd, kubelet and every pod's runtime hold instances of one user; 512 is what kind asks for.
INSTANCES_FAIL, INSTANCES_OK = 128, 512
WATCHES_FAIL, WATCHES_OK = 8_192, 65_536
FILES_FAIL, FILES_OK = 1_024, 8_192
# A clock before this was never set.
FIRST_YEAR = 2024
UNKNOWN = "not known while the engine does not answer"


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `expected` and `seen` in words, and what to do where the verdict is not ok."""

    id: str
    verdict: VerdictWord
    expected: str
    seen: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the finding as `doctor --json` prints it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read back what `to_json` wrote."""
        return cls(**data)


def examine(ports: Sequence[int] = ()) -> list[Finding]:
    """Look at this host and judge it; `ports` are the loopback ports that a cluster is going to need."""
    return judge_host(gather(ports))


def judge_host(facts: HostFacts) -> list[Finding]:
    """Judge every fact; always the same ids in the same order, whatever the host is like."""
    return [
        _os(facts), _engine_present(facts), _engine_running(facts), _engine_version(facts), _engine_runtime(facts),
        _capabilities(facts), _cgroup(facts), _cores(facts), _memory(facts), _disk(facts), _redirection(facts),
        _ports(facts), _inotify(facts), _file_limits(facts), _clock(facts),
    ]  # fmt: skip


def require(findings: Iterable[Finding]) -> None:
    """Accept a host without a failed finding.

    Raises:
        UserError: the first finding that failed.

    """
    for finding in findings:
        if finding.verdict == "fail":
            raise UserError(finding.id, expected=finding.expected, seen=finding.seen, hint=finding.hint)


@dataclass(frozen=True)
class Prepared:
    """A host that can carry a cluster; `did` says what had to be done, in the order it was done."""

    did: tuple[Action, ...]
    say: Callable[[str], None] = progress.say

    def undo(self, last: Callable[[], None] | None = None) -> None:
        """Stop the engine where faasmesh started it and nothing uses it any more; installed packages stay.

        `last` removes what would keep it busy; it is called where no other run uses the engine.
        """
        leave(last, self.say)


def prepare(mode: str = "auto", say: Callable[[str], None] = progress.say, ports: Sequence[int] = ()) -> Prepared:
    """Bring the host to where a cluster can be created, and say each thing that is done to it.

    Raises:
        UserError: the host is not fit, and `mode`, the user's rights or the kind of host forbid to change that.

    """
    if mode not in MODES:
        raise UserError("--prepare-host", expected=" or ".join(MODES), seen=mode, hint="auto prepares a Debian host when run as root")
    with lock():
        facts = gather(ports)
        require(finding for finding in judge_host(facts) if finding.id not in PREPARABLE)
        actions = plan(facts, mode=mode, ours=engine.is_ours(facts.engine))
        # From here on another run that ends leaves the engine alone.
        engine.lease()
        try:
            for action in actions:
                _act(action, facts, say)
            require(examine(ports) if actions else judge_host(facts))
        except BaseException:
            _leave(say)
            raise
        return Prepared(actions, say)


def leave(last: Callable[[], None] | None = None, say: Callable[[str], None] = progress.say) -> None:
    """Give the engine up: `last` is called when no other run uses it, then it is stopped where that is ours to do."""
    with lock():
        engine.release()
        if last is not None and not engine.leased():
            last()
        engine.stop(say)


def stop_engine(say: Callable[[str], None] = progress.say) -> bool:
    """Stop the engine that faasmesh started, unless a container or another run uses it; tell whether it was stopped."""
    with lock():
        return engine.stop(say)


def plan(facts: HostFacts, *, mode: str, ours: bool) -> tuple[Action, ...]:
    """Decide what preparation does to a host with these facts; `ours` tells whether faasmesh started the running engine.

    Raises:
        UserError: something would have to be done that may not be done.

    """
    if facts.engine.running:
        return _plan_running(facts, mode=mode, ours=ours)
    missing = _engine_running(facts) if facts.engine.present else _engine_present(facts)
    if "permission denied" in facts.engine.error.lower():
        raise _refusal(missing, "the engine runs, but not for this user: join the group docker, or run as root")
    if facts.engine.address != engine.DEFAULT_SOCKET:
        raise _refusal(missing, "start the engine that DOCKER_HOST names, or unset it")
    if mode == "never":
        raise _refusal(missing, "start Docker yourself, or allow it with --prepare-host=auto")
    if not facts.root:
        raise _refusal(missing, "install and start Docker, or run as root on Debian, where faasmesh does it")
    if not facts.engine.present and not facts.debian:
        raise _refusal(missing, "install Docker 20.10 or later; faasmesh installs it on Debian only")
    if facts.reduced and facts.systemd:
        raise _refusal(missing, _daemon_json_hint())
    install: tuple[Action, ...] = () if facts.engine.present else ("install",)
    wrap: tuple[Action, ...] = ("wrap",) if facts.reduced else ()
    return (*install, *wrap, "start")


def _plan_running(facts: HostFacts, *, mode: str, ours: bool) -> tuple[Action, ...]:
    runtime = _engine_runtime(facts)
    if runtime.verdict != "fail":
        return ()
    if mode == "never" or not ours or facts.systemd:
        raise _refusal(runtime, runtime.hint)
    if facts.engine.containers:
        raise _refusal(runtime, f"{facts.engine.containers} containers run on the engine that faasmesh started; remove them, then run again")
    return ("wrap", "stop", "start")


def _act(action: Action, facts: HostFacts, say: Callable[[str], None]) -> None:
    match action:
        case "install":
            engine.install(say)
        case "wrap":
            engine.build_runtime(say)
        case "stop":
            engine.stop(say, even_if_leased=True)
        case "start":
            engine.start(say, bounded=facts.reduced, systemd=facts.systemd)


def _leave(say: Callable[[str], None]) -> None:
    engine.release()
    engine.stop(say)


def _refusal(finding: Finding, hint: str) -> UserError:
    return UserError(finding.id, expected=finding.expected, seen=finding.seen, hint=hint)


def _daemon_json_hint() -> str:
    path = engine.runtime_path()
    settings = json.dumps({"runtimes": {BOUNDED: {"path": str(path)}}, "default-runtime": BOUNDED})
    built = "" if path.exists() else "build the wrapper with python -m clusters doctor --build-runtime, "
    return f"{built}put {settings} into /etc/docker/daemon.json and restart Docker; or stop Docker, and faasmesh starts it with the wrapper"


def lock(timeout: float = -1) -> FileLock:
    """Return the lock under which the host is prepared and left: one process at a time; a negative `timeout` (seconds) waits for ever."""
    path = cache_root() / "locks" / "host.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(str(path), timeout=timeout)


def _finding(subject: str, verdict: VerdictWord, *, expected: str, seen: str, hint: str = "") -> Finding:
    return Finding(f"host.{subject}", verdict, expected, seen, "" if verdict == "ok" else hint)


def _graded(value: float, *, fail_below: float, ok_from: float) -> VerdictWord:
    if value < fail_below:
        return "fail"
    return "ok" if value >= ok_from else "warn"


def _worst(*verdicts: VerdictWord) -> VerdictWord:
    return max(verdicts, key=("ok", "warn", "fail").index)


def _os(facts: HostFacts) -> Finding:
    verdict: VerdictWord = "fail" if facts.system != "Linux" else ("ok" if facts.debian else "warn")
    hint = "faasmesh needs a Linux host" if verdict == "fail" else "preparation is for Debian only: install and start Docker yourself"
    return _finding("os", verdict, expected="Linux, of Debian's family where it is to be prepared", seen=f"{facts.system}, {facts.distribution}", hint=hint)


def _engine_present(facts: HostFacts) -> Finding:
    present = facts.engine.present
    return _finding(
        "engine-present", "ok" if present else "fail", expected="Docker, installed or answering",
        seen=f"engine {facts.engine.version or 'dockerd'}" if present else f"no dockerd, and {facts.engine.address} does not answer",
        hint="install Docker 20.10 or later; as root on Debian, tox -e conformance does it",
    )


def _engine_running(facts: HostFacts) -> Finding:
    running = facts.engine.running
    return _finding(
        "engine-running", "ok" if running else "fail", expected=f"an engine that answers at {facts.engine.address}",
        seen="it answers" if running else facts.engine.error or "no answer", hint="start Docker; as root, tox -e conformance does it",
    )


def _engine_version(facts: HostFacts) -> Finding:
    oldest = ".".join(map(str, OLDEST_API))
    if not facts.engine.running:
        return _finding("engine-version", "warn", expected=f"API {oldest} or later", seen=UNKNOWN, hint="see host.engine-running")
    numbers = tuple(int(part) for part in facts.engine.api.split(".") if part.isdigit())
    return _finding(
        "engine-version", "ok" if numbers >= OLDEST_API else "fail", expected=f"API {oldest} or later",
        seen=f"API {facts.engine.api or 'unknown'} of Docker {facts.engine.version or 'unknown'}", hint="install Docker 20.10 or later",
    )


def _engine_runtime(facts: HostFacts) -> Finding:
    expected = f"{BOUNDED} as default runtime where capabilities are reduced, any where they are not"
    if not facts.engine.running:
        return _finding("engine-runtime", "warn", expected=expected, seen=UNKNOWN, hint="see host.engine-running")
    named = {facts.engine.runtime, Path(facts.engine.runtime_path).name}
    # An engine whose process we cannot see may have more capabilities than we have; only what is known to fail fails.
    known_to_fail = facts.engine.bounding is not None and "runc" in named
    verdict: VerdictWord = "ok" if not facts.reduced or BOUNDED in named else ("fail" if known_to_fail else "warn")
    return _finding(
        "engine-runtime", verdict, expected=expected,
        seen=f"{facts.engine.runtime or 'unknown'} with capabilities {'reduced' if facts.reduced else 'complete'}", hint=_daemon_json_hint(),
    )


def _capabilities(facts: HostFacts) -> Finding:
    return _finding(
        "capability-bounding-set", "warn" if facts.reduced else "ok", expected=f"{facts.full_set:#x}",
        seen=f"{facts.bounding if facts.engine.bounding is None else facts.engine.bounding:#x}",
        hint=f"privileged containers start through {BOUNDED} only, which faasmesh installs with the engine it starts",
    )


def _cgroup(facts: HostFacts) -> Finding:
    modern = 2
    return _finding(
        "cgroup-version", "ok" if facts.cgroup >= modern else "warn", expected="cgroup v2", seen=f"cgroup v{facts.cgroup}",
        hint="works, with the kubelet told so; Kubernetes and kind have deprecated v1",
    )


def _cores(facts: HostFacts) -> Finding:
    return _finding(
        "cores", "ok" if facts.cores >= FEWEST_CORES else "fail", expected=f"{FEWEST_CORES} or more", seen=str(facts.cores),
        hint="give the machine more cores",
    )


def _memory(facts: HostFacts) -> Finding:
    return _finding(
        "memory",
        _worst(
            _graded(facts.memory_total, fail_below=MEMORY_FAIL, ok_from=MEMORY_OK),
            _graded(facts.memory_available, fail_below=AVAILABLE_FAIL, ok_from=AVAILABLE_OK),
        ),
        expected=f"{_gib(MEMORY_OK)} or more, {_gib(AVAILABLE_OK)} of it available",
        seen=f"{_gib(facts.memory_total)}, {_gib(facts.memory_available)} available",
        hint="end what uses memory, or take a larger machine",
    )


def _disk(facts: HostFacts) -> Finding:
    tightest = min(facts.disks, key=lambda disk: disk.free)
    return _finding(
        "disk", _graded(tightest.free, fail_below=DISK_FAIL, ok_from=DISK_OK), expected=f"{_gib(DISK_OK)} free for cache and container engine",
        seen=", ".join(f"{_gib(disk.free)} at {disk.path} ({disk.purpose})" for disk in facts.disks),
        hint=f"free space for {tightest.path}; python -m clusters images clean removes built images",
    )


def _redirection(facts: HostFacts) -> Finding:
    absent = [feature for feature, there in facts.redirection.items() if there is False]
    unknown = [feature for feature, there in facts.redirection.items() if there is None]
    seen = [*(f"no {feature}" for feature in absent), *(f"{feature} not known" for feature in unknown)]
    return _finding(
        "kernel-redirection", "fail" if absent else ("warn" if unknown else "ok"), expected=f"netfilter with {', '.join(facts.redirection)}",
        seen=", ".join(seen) or "all of it", hint="Istio redirects pods' traffic with these: load the modules (xt_REDIRECT, xt_owner), or use another kernel",
    )


def _ports(facts: HostFacts) -> Finding:
    asked = ", ".join(map(str, facts.ports_asked))
    return _finding(
        "ports", "fail" if facts.ports_taken else "ok", expected=f"free on the loopback: {asked}" if asked else "none asked for",
        seen=", ".join(f"{taken.port} is taken by {taken.holder}" for taken in facts.ports_taken) or ("free" if asked else "none asked for"),
        hint="end that process, or choose another port",
    )


def _inotify(facts: HostFacts) -> Finding:
    expected = f"{INSTANCES_OK} instances and {WATCHES_OK} watches per user"
    hint = f"sysctl -w fs.inotify.max_user_instances={INSTANCES_OK} fs.inotify.max_user_watches=524288"
    if facts.inotify_instances is None or facts.inotify_watches is None:
        return _finding("inotify", "warn", expected=expected, seen="not known", hint=hint)
    return _finding(
        "inotify",
        _worst(
            _graded(facts.inotify_instances, fail_below=INSTANCES_FAIL, ok_from=INSTANCES_OK),
            _graded(facts.inotify_watches, fail_below=WATCHES_FAIL, ok_from=WATCHES_OK),
        ),
        expected=expected, seen=f"{facts.inotify_instances} instances, {facts.inotify_watches} watches", hint=hint,
    )


def _file_limits(facts: HostFacts) -> Finding:
    return _finding(
        "file-limits", _graded(facts.open_files, fail_below=FILES_FAIL, ok_from=FILES_OK), expected=f"{FILES_OK} open files or more",
        seen=str(facts.open_files), hint=f"ulimit -Hn {FILES_OK}, or raise the limit in /etc/security/limits.conf",
    )


def _clock(facts: HostFacts) -> Finding:
    # This file cannot be younger than now. A day of grace: a checkout may come from a machine in another mood.
    floor = max(datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp(), facts.clock_floor - 86_400)
    return _finding(
        "clock", "ok" if facts.clock >= floor else "fail", expected=f"not before {_day(floor)}", seen=_day(facts.clock),
        hint="set the clock: certificates that are issued now are not valid yet for a clock that lags",
    )


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Mount `doctor`."""
    words = "say what this host lacks for a cluster; exit 2 if anything that is needed is missing"
    parser = subparsers.add_parser("doctor", help=words, description=words)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--port", type=int, action="append", default=[], metavar="N", help="a loopback port that must be free; may be given again")
    parser.add_argument("--build-runtime", action="store_true", help=f"build {BOUNDED} into the cache first, where capabilities are reduced")
    parser.set_defaults(func=doctor)


def doctor(args: argparse.Namespace) -> int:
    """Print every finding, as a table or as `{"schema": 1, "fit": ..., "findings": [...]}`."""
    if args.build_runtime:
        with lock():
            engine.build_runtime(progress.say)
    findings = examine(args.port)
    fit = all(finding.verdict != "fail" for finding in findings)
    if args.json:
        # Not through rich, which would fold long lines at the terminal's width.
        json.dump({"schema": 1, "fit": fit, "findings": [finding.to_json() for finding in findings]}, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _show(findings, Console(highlight=False))
    return EXIT_HELD if fit else EXIT_USAGE


def _show(findings: Iterable[Finding], console: Console) -> None:
    table = Table(Column("check", no_wrap=True), "verdict", "seen", "expected", box=box.SIMPLE_HEAD)
    colours = {"ok": "green", "warn": "yellow", "fail": "bold red"}
    hints = []
    for finding in findings:
        # Rich reads square brackets as markup; these texts quote programs.
        table.add_row(finding.id, Text(finding.verdict, colours[finding.verdict]), Text(finding.seen), Text(finding.expected))
        if finding.hint:
            hints.append(f"{finding.id}: {finding.hint}")
    console.print(table)
    for hint in hints:
        console.print(hint, markup=False, soft_wrap=True)
