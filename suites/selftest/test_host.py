"""Host: facts are judged totally, a failed fact wins, and preparation does only what it may."""

import dataclasses
import socket
import string
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from clusters import engine, host, hostfacts
from clusters.errors import UserError
from clusters.host import GIB, PREPARABLE, Finding, judge_host, plan, require
from clusters.hostfacts import Disk, Engine, HostFacts, TakenPort, parse_kernel_config

FULL = (1 << 41) - 1
WITHOUT_SYS_RESOURCE = FULL & ~(1 << 24)
RUNNING = Engine(present=True, running=True, version="28.0", api="1.48", runtime="runc", runtime_path="runc", cgroup=2, pid=7, bounding=FULL)
FIT = HostFacts(
    system="Linux", distribution="Debian GNU/Linux 12", debian=True, root=True, systemd=False, engine=RUNNING, bounding=FULL, capabilities=40,
    cgroup=2, cores=4, memory_total=16 * GIB, memory_available=12 * GIB, disks=(Disk("cache", "/c", 50 * GIB), Disk("engine", "/e", 60 * GIB)),
    redirection=dict.fromkeys(hostfacts.REDIRECTION, True), inotify_instances=512, inotify_watches=524_288, open_files=65_536,
    clock=1.8e9, clock_floor=1.7e9,
)  # fmt: skip
ABSENT = dataclasses.replace(FIT, engine=Engine())
STOPPED = dataclasses.replace(FIT, engine=Engine(present=True, error="no such file"))


def reduced(facts: HostFacts, **changes: object) -> HostFacts:
    answering = dataclasses.replace(facts.engine, bounding=WITHOUT_SYS_RESOURCE) if facts.engine.running else facts.engine
    return dataclasses.replace(facts, bounding=WITHOUT_SYS_RESOURCE, engine=answering, **changes)


def with_engine(facts: HostFacts, **changes: object) -> HostFacts:
    return dataclasses.replace(facts, engine=dataclasses.replace(facts.engine, **changes))


def verdict(facts: HostFacts, name: str) -> str:
    return next(finding.verdict for finding in judge_host(facts) if finding.id == f"host.{name}")


sizes = st.integers(0, 1 << 45)
engines = st.builds(
    Engine, present=st.booleans(), running=st.booleans(), api=st.sampled_from(["", "1.40", "1.41", "1.100", "x.y"]), error=st.text(),
    runtime=st.sampled_from(["", "runc", "runc-bounded", "crun"]), cgroup=st.sampled_from([None, 1, 2]), containers=st.integers(0, 3),
    bounding=st.one_of(st.none(), st.integers(0, FULL)),
)
any_facts = st.builds(
    HostFacts, system=st.sampled_from(["Linux", "Darwin"]), distribution=st.text(), debian=st.booleans(), root=st.booleans(), systemd=st.booleans(),
    engine=engines, bounding=st.integers(0, FULL), capabilities=st.integers(30, 40), cgroup=st.sampled_from([1, 2]), cores=st.integers(1, 99),
    memory_total=sizes, memory_available=sizes, disks=st.tuples(st.builds(Disk, purpose=st.text(), path=st.text(), free=sizes)),
    redirection=st.fixed_dictionaries({name: st.sampled_from([True, False, None]) for name in hostfacts.REDIRECTION}),
    inotify_instances=st.one_of(st.none(), sizes), inotify_watches=st.one_of(st.none(), sizes), open_files=sizes,
    clock=st.floats(0, 4e9), clock_floor=st.floats(0, 4e9), ports_asked=st.just((80,)), ports_taken=st.sampled_from([(), (TakenPort(80),)]),
)  # fmt: skip


@given(any_facts)
def test_every_host_gets_the_same_findings_each_with_a_hint_where_it_is_needed(facts):
    findings = judge_host(facts)

    assert [finding.id for finding in findings] == [finding.id for finding in judge_host(FIT)]
    for finding in findings:
        assert finding.verdict in {"ok", "warn", "fail"}
        assert (finding.hint == "") == (finding.verdict == "ok")
        assert finding.expected
        assert finding.seen


@given(any_facts)
def test_the_first_failed_finding_wins(facts):
    findings = judge_host(facts)
    failed = [finding.id for finding in findings if finding.verdict == "fail"]

    if failed:
        with pytest.raises(UserError) as caught:
            require(findings)
        assert caught.value.what == failed[0]
    else:
        require(findings)


@given(st.builds(Finding, id=st.text(), verdict=st.sampled_from(["ok", "warn", "fail"]), expected=st.text(), seen=st.text(), hint=st.text()))
def test_a_finding_survives_json(finding):
    assert Finding.from_json(finding.to_json()) == finding


@given(any_facts, st.sampled_from(host.MODES), st.booleans())
def test_a_host_is_touched_only_where_that_is_allowed(facts, mode, ours):
    try:
        actions = plan(facts, mode=mode, ours=ours)
    except UserError:
        return
    if actions:
        assert mode == "auto"
    if "start" in actions and not facts.engine.running:
        assert facts.root
    if "install" in actions:
        assert facts.debian
        assert not facts.engine.present
    if "stop" in actions:
        assert ours
        assert facts.engine.containers == 0
    if "start" in actions:
        assert ("wrap" in actions) == facts.reduced


def test_a_fit_host_has_nothing_to_say():
    assert {finding.verdict for finding in judge_host(FIT)} == {"ok"}
    assert plan(FIT, mode="never", ours=False) == ()


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("os", {"system": "Darwin"}, "fail"),
        ("os", {"debian": False}, "warn"),
        ("cores", {"cores": 2}, "ok"),
        ("cores", {"cores": 1}, "fail"),
        ("memory", {"memory_total": 8 * GIB}, "ok"),
        ("memory", {"memory_total": 8 * GIB - 1}, "warn"),
        ("memory", {"memory_total": 7 * GIB}, "warn"),
        ("memory", {"memory_total": 7 * GIB - 1}, "fail"),
        ("memory", {"memory_available": 4 * GIB - 1}, "warn"),
        ("memory", {"memory_available": 2 * GIB - 1}, "fail"),
        ("disk", {"disks": (Disk("cache", "/c", 15 * GIB), Disk("engine", "/e", 15 * GIB))}, "ok"),
        ("disk", {"disks": (Disk("cache", "/c", 99 * GIB), Disk("engine", "/e", 15 * GIB - 1))}, "warn"),
        ("disk", {"disks": (Disk("cache", "/c", 10 * GIB - 1), Disk("engine", "/e", 99 * GIB))}, "fail"),
        ("cgroup-version", {"cgroup": 1}, "warn"),
        ("kernel-redirection", {"redirection": {"nat": True, "owner": None}}, "warn"),
        ("kernel-redirection", {"redirection": {"nat": False, "owner": None}}, "fail"),
        ("ports", {"ports_asked": (80,), "ports_taken": (TakenPort(80, "nginx (pid 3)"),)}, "fail"),
        ("inotify", {"inotify_instances": 511}, "warn"),
        ("inotify", {"inotify_instances": 127}, "fail"),
        ("inotify", {"inotify_watches": None}, "warn"),
        ("inotify", {"inotify_watches": 8_191}, "fail"),
        ("file-limits", {"open_files": 8_191}, "warn"),
        ("file-limits", {"open_files": 1_023}, "fail"),
        ("clock", {"clock": 0.0, "clock_floor": 0.0}, "fail"),
        ("clock", {"clock": 1.8e9, "clock_floor": 1.8e9 + 90_000}, "fail"),
        ("clock", {"clock": 1.8e9, "clock_floor": 1.8e9 + 80_000}, "ok"),
    ],
)
def test_each_bound_lies_where_it_is_declared(name, changes, expected):
    assert verdict(dataclasses.replace(FIT, **changes), name) == expected


@pytest.mark.parametrize(("api", "expected"), [("1.40", "fail"), ("1.41", "ok"), ("1.100", "ok"), ("2.0", "ok"), ("", "fail")])
def test_the_engine_version_is_compared_as_numbers(api, expected):
    assert verdict(with_engine(FIT, api=api), "engine-version") == expected


def test_plain_runc_fails_only_where_the_engine_is_known_to_lack_a_capability():
    assert verdict(FIT, "engine-runtime") == "ok"
    assert verdict(reduced(FIT), "engine-runtime") == "fail"
    assert verdict(with_engine(reduced(FIT), runtime="runc-bounded", runtime_path="/c/runc-bounded"), "engine-runtime") == "ok"
    assert verdict(with_engine(reduced(FIT), runtime="mine", runtime_path="/opt/runc-bounded"), "engine-runtime") == "ok"
    assert verdict(with_engine(reduced(FIT), runtime="crun", runtime_path="/usr/bin/crun"), "engine-runtime") == "warn"
    # The engine's process is not visible: it may be outside this container, with every capability.
    assert verdict(with_engine(reduced(FIT), bounding=None), "engine-runtime") == "warn"
    # We are reduced, the engine is not.
    assert verdict(dataclasses.replace(FIT, bounding=WITHOUT_SYS_RESOURCE), "engine-runtime") == "ok"


def test_a_capability_that_the_kernel_does_not_know_is_not_missing():
    old_kernel = with_engine(dataclasses.replace(FIT, capabilities=37, bounding=(1 << 38) - 1), bounding=(1 << 38) - 1)
    assert not old_kernel.reduced


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (ABSENT, ("install", "start")),
        (reduced(ABSENT), ("install", "wrap", "start")),
        (STOPPED, ("start",)),
        (reduced(STOPPED), ("wrap", "start")),
        (dataclasses.replace(STOPPED, systemd=True, debian=False), ("start",)),
    ],
)
def test_root_on_debian_gets_what_is_missing(facts, expected):
    assert plan(facts, mode="auto", ours=False) == expected


@pytest.mark.parametrize(
    ("facts", "mode", "what", "hint"),
    [
        (ABSENT, "never", "host.engine-present", "--prepare-host=auto"),
        (STOPPED, "never", "host.engine-running", "--prepare-host=auto"),
        (dataclasses.replace(ABSENT, root=False), "auto", "host.engine-present", "as root on Debian"),
        (dataclasses.replace(ABSENT, debian=False), "auto", "host.engine-present", "Debian only"),
        (reduced(STOPPED, systemd=True), "auto", "host.engine-running", "daemon.json"),
        (with_engine(STOPPED, address="tcp://10.0.0.1:2375"), "auto", "host.engine-running", "DOCKER_HOST"),
        (with_engine(STOPPED, error="Permission denied (unix:///var/run/docker.sock)"), "auto", "host.engine-running", "group docker"),
        (reduced(FIT), "auto", "host.engine-runtime", "daemon.json"),
        (reduced(FIT), "never", "host.engine-runtime", "daemon.json"),
    ],
)
def test_what_may_not_be_done_is_said_in_one_line(facts, mode, what, hint):
    with pytest.raises(UserError) as caught:
        plan(facts, mode=mode, ours=False)

    assert caught.value.what == what
    assert hint in caught.value.hint
    assert "\n" not in str(caught.value)


def test_an_engine_of_ours_is_restarted_only_while_it_is_idle():
    assert plan(reduced(FIT), mode="auto", ours=True) == ("wrap", "stop", "start")
    with pytest.raises(UserError, match="2 containers"):
        plan(with_engine(reduced(FIT), containers=2), mode="auto", ours=True)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and an engine that is only told about."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "faasmesh"


@pytest.fixture
def world(cache, monkeypatch):
    """A host whose actions are written down and take effect on its facts only."""
    done: list[str] = []
    state = {"facts": STOPPED}
    label = f"{engine.LABEL}={cache}"

    def started(*_args: object, **_kwargs: object) -> None:
        done.append("start")
        state["facts"] = with_engine(FIT, labels=(label,))

    def terminated(_engine: Engine) -> None:
        done.append("terminate")
        state["facts"] = STOPPED

    monkeypatch.setattr(host, "gather", lambda _ports=(): state["facts"])
    monkeypatch.setattr(engine, "look_at_engine", lambda: state["facts"].engine)
    monkeypatch.setattr(engine, "install", lambda _say: done.append("install"))
    monkeypatch.setattr(engine, "build_runtime", lambda _say: done.append("wrap"))
    monkeypatch.setattr(engine, "start", started)
    monkeypatch.setattr(engine, "_terminate", terminated)
    monkeypatch.setattr(engine, "_systemctl", lambda verb: done.append(f"systemctl {verb}"))
    state["done"] = done
    return state


def test_a_run_stops_what_it_started(world):
    prepared = host.prepare("auto", lambda _: None)
    assert world["done"] == ["start"]

    prepared.undo()
    prepared.undo()

    assert world["done"] == ["start", "terminate"]


def test_an_engine_of_the_users_own_is_never_stopped(world):
    world["facts"] = FIT
    prepared = host.prepare("auto", lambda _: None)

    prepared.undo()

    assert prepared.did == ()
    assert world["done"] == []


def test_an_engine_with_containers_stays(world):
    said: list[str] = []
    prepared = host.prepare("auto", said.append)
    world["facts"] = with_engine(world["facts"], containers=1)

    prepared.undo()

    assert world["done"] == ["start"]
    assert "1 container" in said[-1]


def test_an_engine_that_another_live_run_uses_stays_until_that_run_is_gone(world, monkeypatch):
    prepared = host.prepare("auto", lambda _: None)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with monkeypatch.context() as theirs:
            theirs.setattr(engine.psutil, "Process", lambda _pid=None, process=engine.psutil.Process: process(_pid or other.pid))
            engine.lease()
        prepared.undo()
        assert world["done"] == ["start"]
        other.kill()

    assert host.stop_engine(lambda _: None)
    assert world["done"] == ["start", "terminate"]


def test_an_unfit_host_is_refused_before_anything_is_touched(world):
    world["facts"] = dataclasses.replace(STOPPED, cores=1)

    with pytest.raises(UserError, match=r"host\.cores"):
        host.prepare("auto", lambda _: None)

    assert world["done"] == []


def test_what_was_started_is_stopped_when_preparation_fails_after_it(world, monkeypatch):
    def unfit(_ports: object = ()) -> list[Finding]:
        return [Finding("host.disk", "fail", "more", "less", "free some")]

    monkeypatch.setattr(host, "examine", unfit)

    with pytest.raises(UserError, match=r"host\.disk"):
        host.prepare("auto", lambda _: None)

    assert world["done"] == ["start", "terminate"]


def test_an_unknown_mode_is_a_users_mistake(world):
    with pytest.raises(UserError, match="auto or never"):
        host.prepare("sometimes", lambda _: None)
    assert world["done"] == []


def test_a_host_that_another_process_prepares_is_waited_for(world, cache):
    path = cache / "locks" / "host.lock"
    path.parent.mkdir(parents=True)

    with FileLock(str(path)), pytest.raises(TimeoutError):
        host.lock(timeout=0.0).acquire()
    host.prepare("auto", lambda _: None)

    assert world["done"] == ["start"]


def test_apt_is_quoted_when_it_answers_no(tmp_path, monkeypatch):
    program = tmp_path / "apt-get"
    program.write_text("#!/bin/sh\necho 'Reading lists'\necho 'W: old' >&2\necho 'E: Unable to locate package docker.io' >&2\nexit 100\n")
    program.chmod(0o755)
    monkeypatch.setattr(engine, "SYSTEM_PATH", f"{tmp_path}:/bin")

    with pytest.raises(UserError) as caught:
        engine._apt("install", "docker.io")

    assert caught.value.seen == "exit 100: E: Unable to locate package docker.io"


def test_a_taken_port_names_its_process():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert hostfacts._taken(port)
        assert "pid" in hostfacts._holder(port)
    assert not hostfacts._taken(port)


@given(st.lists(st.text(string.printable, max_size=40)))
def test_any_kernel_configuration_can_be_read(lines):
    assert set(parse_kernel_config(lines)) == {option for option, _, _ in hostfacts.REDIRECTION.values()}


def test_a_kernel_feature_is_known_from_whichever_source_names_it():
    config = parse_kernel_config(["CONFIG_NF_NAT=y", "CONFIG_NF_CONNTRACK=m", "# CONFIG_NETFILTER_XT_MATCH_OWNER is not set"])
    assert config == {
        "CONFIG_NF_NAT": "y", "CONFIG_NF_CONNTRACK": "m", "CONFIG_NETFILTER_XT_MATCH_OWNER": "n", "CONFIG_NETFILTER_XT_TARGET_REDIRECT": "n",
    }  # fmt: skip
    has = hostfacts._has_feature
    assert has(option="y", loaded=False, shipped=False) is True
    assert has(option="m", loaded=False, shipped=True) is True
    assert has(option=None, loaded=True, shipped=False) is True
    assert has(option="m", loaded=False, shipped=False) is None
    assert has(option=None, loaded=False, shipped=False) is None
    assert has(option="n", loaded=False, shipped=False) is False


def test_a_folder_that_is_not_there_yet_is_measured_where_it_will_be(tmp_path):
    assert hostfacts._disk("cache", tmp_path / "not" / "yet").free > 0


def test_looking_at_this_machine_yields_facts_that_can_be_judged(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    facts = hostfacts.gather()

    assert not facts.engine.running
    assert facts.engine.error
    assert verdict(facts, "engine-running") == "fail"
    assert facts.bounding > 0
    assert {"host.engine-present", "host.engine-running"} <= PREPARABLE
    assert Path(facts.disks[0].path).name == "faasmesh"


def test_the_last_run_to_leave_removes_what_keeps_the_engine_busy_and_no_other_does(world, monkeypatch):
    prepared = host.prepare("auto", lambda _: None)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with monkeypatch.context() as theirs:
            theirs.setattr(engine.psutil, "Process", lambda _pid=None, process=engine.psutil.Process: process(_pid or other.pid))
            engine.lease()
        prepared.undo(lambda: world["done"].append("registry"))
        assert world["done"] == ["start"]
        other.kill()

    host.leave(lambda: world["done"].append("registry"), lambda _: None)

    assert world["done"] == ["start", "registry", "terminate"]
