"""Self-tests of the load generator: a real Locust, in its own process, against a server on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.kube import ProxyResponse
from clusters.paths import CHECKOUT
from clusters.waiting import NeverReached
from suites.support import judges
from workloads.load import CONSTANT, POISSON, WARM_UP, LoadProfile, OpenProfile, Persona, Stage, bursts, results, steady, steps
from workloads.load.cluster import MASTER, WORKER, ClusterLoad, locust
from workloads.load.generator import LoadBroken, Tail, following, load

PROFILE = LoadProfile(users=3, calls_per_s=20, longest_s=30)


class Function(BaseHTTPRequestHandler):
    """Answers as a sample function does; /fail answers 503, /close nothing, /stall nothing of what comes in the first second for that second."""

    protocol_version = "HTTP/1.1"
    # Answers leave in two pieces; the second must not wait for the first one's acknowledgement.
    disable_nagle_algorithm = True
    stalled_until = 0.0

    def do_GET(self):
        if self.path == "/stall":
            Function.stalled_until = Function.stalled_until or time.monotonic() + 1
            threading.Event().wait(max(0.0, Function.stalled_until - time.monotonic()))
        if self.path == "/slow":
            threading.Event().wait(0.5)
        if self.path == "/close":
            self.close_connection = True
            return
        body = json.dumps({"headers": {name.lower(): [value] for name, value in self.headers.items()}}).encode()
        self.send_response(503 if self.path == "/fail" else 200)
        self.send_header("x-version", "v1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Function) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_every_call_of_a_load_is_a_record_with_its_persona_and_its_fate(url, tmp_path):
    """One Locust for all of it: it takes a second to start."""
    with load(url, "function.example", "/", folder=tmp_path / "answered", personas=[Persona("b", {"cookie": "group=b"}), Persona("a")], profile=PROFILE, keep_seen=["host", "cookie"]) as running:
        began = running.elapsed_ms()
        running.await_calls(30)

    drawn = running.draw()

    assert drawn.count == len(drawn.records) > 30
    assert {record.status for record in drawn.records} == {200}
    assert {record.version for record in drawn.records} == {"v1"}
    assert {(*record.seen["x-persona"], *record.seen.get("cookie", [])) for record in drawn.records} == {("a",), ("b", "group=b")}
    assert all(record.seen["host"] == ["function.example"] for record in drawn.records)
    assert 0 < drawn.records[0].started_ms < began
    assert [record.started_ms for record in drawn.records] == sorted(record.started_ms for record in drawn.records)


@pytest.mark.parametrize(("path", "status"), [("/fail", 503), ("/close", 0)])
def test_a_call_that_fails_is_seen_to_fail(url, tmp_path, path, status):
    with load(url, "function.example", path, folder=tmp_path, profile=PROFILE) as running:
        running.await_calls(5)

    drawn = running.draw()

    assert {record.status for record in drawn.records} == {status}
    assert all(bool(record.error) == (status == 0) for record in drawn.records)


def test_a_load_whose_generator_was_killed_is_no_evidence(url, tmp_path):
    with load(url, "function.example", "/", folder=tmp_path, profile=PROFILE) as running:
        running.process.kill()
        with pytest.raises(NeverReached, match="Locust ended"):
            running.await_calls(10_000)

    with pytest.raises(LoadBroken, match="counted None calls"):
        running.draw()


def test_load_ends_with_the_process_that_ordered_it(url, tmp_path):
    """A killed run must not go on calling."""
    script = (
        "import pathlib, sys; from workloads.load import LoadProfile; from workloads.load.generator import load\n"
        "with load(sys.argv[1], 'x', '/', folder=pathlib.Path(sys.argv[2]), profile=LoadProfile(1, 5, 60)) as running:\n"
        "    print(running.process.pid, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, url, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        locust = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()

    for _ in range(100):
        try:
            os.kill(locust, 0)
        except ProcessLookupError:
            break
        threading.Event().wait(0.1)
    else:
        os.kill(locust, signal.SIGKILL)
        pytest.fail("Locust outlived the run that started it")


@pytest.mark.parametrize("wrong", [{"users": 0}, {"calls_per_s": 0}, {"longest_s": -1}, {"timeout_s": 0}])
def test_a_load_that_never_begins_or_never_ends_is_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        LoadProfile(**{"users": 1, "calls_per_s": 1.0, "longest_s": 1.0, **wrong})


PROFILES = st.builds(
    lambda stages, arrivals, seed: OpenProfile(tuple(Stage(f"s{number}", *one) for number, one in enumerate(stages)), arrivals=arrivals, seed=seed),
    st.lists(st.tuples(st.floats(0.1, 5), st.floats(1, 80), st.booleans()), min_size=1, max_size=4).filter(lambda stages: any(one[2] for one in stages)),
    st.sampled_from([CONSTANT, POISSON]), st.integers(0, 9),
)


@given(PROFILES)
def test_arrivals_come_in_order_each_within_its_stage_and_the_same_in_every_process(profile):
    arrivals = list(profile.schedule())
    ends = [sum(stage.seconds for stage in profile.stages[: index + 1]) for index in range(len(profile.stages))]

    assert [arrival.number for arrival in arrivals] == list(range(len(arrivals)))
    assert arrivals == sorted(arrivals, key=lambda arrival: arrival.due_s) == list(OpenProfile.from_json(json.loads(json.dumps(profile.to_json()))).schedule())
    # Half an interval is what rounding to whole calls may add at the end of a stage.
    assert all(ends[one.stage] - profile.stages[one.stage].seconds - 1e-9 <= one.due_s <= ends[one.stage] + 0.5 / profile.stages[one.stage].rate_per_s for one in arrivals)


def test_constant_arrivals_are_exact_and_poisson_ones_are_so_many_on_average():
    assert [arrival.due_s for arrival in steady(4, 1).schedule()] == [0, 0.25, 0.5, 0.75]
    counts = [len(list(steady(50, 4, arrivals=POISSON, seed=seed).schedule())) for seed in range(200)]

    # 200 loads of 200 on average: the sum's standard deviation is 200, five of them are never seen with these seeds.
    assert abs(sum(counts) - 200 * 200) < 1000
    assert len(set(counts)) > 20


def test_named_profiles_are_the_stages_they_say():
    assert [(one.name, one.seconds, one.rate_per_s) for one in steps([1, 20], 5).stages] == [("step-1", 5, 1), ("step-2", 5, 20)]
    assert [(one.name, one.seconds, one.rate_per_s) for one in bursts(2, 3, 1, gap_s=60).stages] == [("burst-1", 1, 3), ("gap-1", 60, 0), ("burst-2", 1, 3)]
    assert [(one.name, one.counted) for one in steady(5, 1).warmed_up(2, 5).stages] == [(WARM_UP, False), ("steady", True)]


@pytest.mark.parametrize("wrong", [
    {"stages": ()}, {"stages": (Stage("a", 1, 0),)}, {"stages": (Stage("a", 1, 5, counted=False),)}, {"stages": (Stage("a", 0, 5),)}, {"stages": (Stage("a", 1, -5), Stage("b", 1, 1))},
    {"stages": (Stage("a", 1, 5), Stage("a", 1, 5))}, {"arrivals": "sometimes"}, {"users": 0}, {"users": 2000}, {"timeout_s": 0},
])
def test_an_open_load_that_nobody_arrives_in_or_that_never_ends_is_refused(wrong):
    with pytest.raises(ValueError, match=r"open load|every stage|stages are"):
        OpenProfile(**{"stages": (Stage("a", 1, 5),), **wrong})


def test_an_open_load_is_made_as_planned_and_its_warm_up_is_not_counted(url, tmp_path):
    """One Locust for all of it; two stages, so that every record knows its own."""
    profile = steps([20, 40], 1, users=20).warmed_up(0.5, 20)
    with load(url, "function.example", "/", folder=tmp_path, profile=profile) as running:
        running.await_end()

    drawn, fared = running.draw(), running.fared()

    assert (drawn.count, len(drawn.records), drawn.warm_up) == (60, 60, 10)
    assert [record.stage for record in drawn.records] == 20 * ["step-1"] + 40 * ["step-2"]
    begun = drawn.records[0].started_ms
    assert [record.started_ms - begun for record in drawn.records] == pytest.approx([*range(0, 1000, 50), *range(1000, 2000, 25)], abs=0.1)
    assert all(record.latency_ms >= record.late_ms >= 0 for record in drawn.records)
    assert (fared.planned, fared.begun, fared.exhausted) == (60, 60, 0)
    assert 0 < fared.cpu < 1
    assert len((tmp_path / "calls.jsonl").read_text().splitlines()) == 70
    assert "<html" in (tmp_path / "locust.html").read_text()
    assert json.loads((tmp_path / "result.json").read_text())["generator"]["begun"] == 60


def test_what_a_stalled_function_keeps_waiting_is_in_its_latency(url, tmp_path):
    """Coordinated omission: every call that was due while the function stalled waited for the rest of the second, not only those under way."""
    Function.stalled_until = 0.0
    with load(url, "function.example", "/stall", folder=tmp_path, profile=steady(20, 2, users=30)) as running:
        running.await_end()

    drawn = running.draw()

    waited = [record.latency_ms for record in drawn.records[:16]]
    assert all(ms > 150 for ms in waited)
    assert waited[0] > 800
    assert max(record.latency_ms for record in drawn.records[30:]) < 500


def test_calls_that_find_every_user_busy_count_from_when_they_were_due_and_the_load_is_no_evidence(url, tmp_path):
    with load(url, "function.example", "/slow", folder=tmp_path, profile=steady(10, 1, users=2)) as running:
        running.await_end()

    drawn, fared = running.draw(), running.fared()

    # Two at a time, half a second each: the last two begin after two seconds, and were due within the first.
    assert len(drawn.records) == drawn.count == 10
    assert fared.exhausted >= 6
    assert drawn.records[-1].latency_ms > 1500
    assert drawn.records[-1].latency_ms - drawn.records[-1].late_ms < 1200
    assert "found every user busy" in drawn.saturated
    claim = judges.no_failures("x", json.loads(json.dumps(drawn.to_json())))
    assert claim.held is None
    assert "saturated" in claim.said


def test_an_open_load_that_is_ended_early_promises_only_what_was_due(url, tmp_path):
    with load(url, "function.example", "/", folder=tmp_path, profile=steady(20, 60)) as running:
        running.await_calls(20)

    drawn = running.draw()

    assert 20 <= len(drawn.records) == drawn.count < 200
    assert not running.fared().planned - running.fared().begun


def test_steady_load_marks_its_warm_up(url, tmp_path):
    with load(url, "function.example", "/", folder=tmp_path, profile=LoadProfile(users=3, calls_per_s=20, longest_s=30, warm_up_s=1)) as running:
        running.await_calls(150)
        with pytest.raises(LoadBroken, match="only an open load"):
            running.await_end()

    drawn = running.draw()

    # Three users at 20 calls a second for a second; a busy machine makes fewer, never more.
    assert 0 < drawn.warm_up <= 70
    assert all(record.stage == "" for record in drawn.records)


def call(number, late_ms=0.0, *, found_free=True, stage="steady"):
    return {"number": number, "late_ms": late_ms, "found_free": found_free, "stage": stage, "started_at": 100 + number, "latency_ms": 1 + late_ms,
            "status": 200, "error": "", "version": "", "pod": "", "seen": {}}


def fared(calls, cpu=(), profile=None, ended=300.0):
    ticks = [{"at": 101 + number, "cpu": share, "lag_ms": 0} for number, share in enumerate(cpu)]
    return results.generator(profile or steady(1, 100), calls, ticks, began=100.0, ended=ended)


@pytest.mark.parametrize(("generator", "said"), [
    (fared([call(n) for n in range(100)], cpu=[0.5] * 10), ""),
    (fared([call(n) for n in range(99)]), "1 of 100 arrivals never began"),
    (fared([call(n, found_free=n > 1) for n in range(100)]), "2 of 100 arrivals found every user busy"),
    (fared([call(n, found_free=n > 0) for n in range(100)]), ""),
    (fared([call(n, late_ms=51 * (n < 2)) for n in range(100)]), "2 of 100 arrivals began more than 50 ms late"),
    (fared([call(n, late_ms=51 * (n < 1)) for n in range(100)]), ""),
    (fared([call(n, late_ms=500 * (n < 9)) for n in range(100)], profile=steady(1, 100, late_ms=500)), ""),
    (fared([call(n, late_ms=501 * (n < 9)) for n in range(100)], profile=steady(1, 100, late_ms=500)), "9 of 100 arrivals began more than 500 ms late"),
    (fared([call(n) for n in range(100)], cpu=[0.95, 0.91, *[0.2] * 8]), "had 90% of a core or more in 20% of the time"),
    (fared([call(n) for n in range(100)], cpu=[0.95, *[0.2] * 9]), ""),
    # Ended after half a minute: what was due later was never to begin.
    (fared([call(n) for n in range(30)], ended=130.0), ""),
    (fared([call(n) for n in range(29)], ended=130.0), "1 of 30 arrivals never began"),
    # What happens in the warm-up is no matter.
    (fared([call(n, 90, found_free=False, stage=WARM_UP) for n in range(10)] + [call(n) for n in range(10, 110)], [1] * 9 + [0.2], steady(1, 100).warmed_up(10, 1)), ""),
])
def test_a_generator_says_what_it_could_not_keep_up_with(generator, said):
    assert said in generator.saturated
    assert bool(generator.saturated) == bool(said)


@given(st.lists(st.floats(0, 500), min_size=1, max_size=300))
@settings(deadline=None)
def test_a_hundredth_part_at_most_is_later_than_the_hundredth_parts_bound(late):
    seen = fared([call(n, ms) for n, ms in enumerate(late)], profile=steady(1, len(late))).late_p99_ms

    assert sum(ms > seen + 0.001 for ms in late) <= 0.01 * len(late)
    assert sum(ms >= seen - 0.001 for ms in late) >= 0.01 * len(late)


def test_a_growing_file_is_read_line_by_line_and_once(tmp_path):
    file = tmp_path / "calls.jsonl"
    tail = Tail(file)
    assert tail.read().calls == 0
    file.write_text('{"status": 200}\n{"status": 503}\n{"status": ')
    assert (tail.read().calls, tail.failures) == (2, 1)
    with file.open("a") as more:
        more.write("0}\n")

    assert (tail.read().calls, tail.failures) == (3, 2)


def test_a_load_that_lasts_says_how_it_goes(tmp_path, monkeypatch):
    said, noted = [], threading.Event()
    monkeypatch.setattr("workloads.load.generator.FIRST_WORD_S", 0.01)
    monkeypatch.setattr("workloads.load.generator.NEXT_LINE_S", 0.01)
    monkeypatch.setattr("clusters.progress.say", lambda text: (said.append(text), noted.set() if "a second" in text else None))
    file = tmp_path / "calls.jsonl"
    file.write_text('{"status": 200}\n{"status": 0}\n')

    with following("load on f", Tail(file)):
        assert noted.wait(10)

    assert any("2 calls, 0 a second, 1 failed" in line for line in said)
    assert any("2 calls, 1 failed" in line for line in said)


class Pods:
    """Agents on this machine in place of pods: each a process with a folder and a port of its own."""

    def __init__(self, folder, names):
        self.ports = {name: free_port() for name in names}
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-m", "workloads.load.agent"],
                env={**os.environ, "PYTHONPATH": str(CHECKOUT), "LOAD_FOLDER": str(folder / name), "CONTROL_PORT": str(port)},
            )
            for name, port in self.ports.items()
        ]

    def request(self, pod, _namespace, _port, method, path, body=None):
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(method, f"http://127.0.0.1:{self.ports[pod]}{path}", data=body, timeout=10)
        return ProxyResponse(answer.status_code, {}, answer.content)

    def end(self):
        for process in self.processes:
            process.terminate()
            process.wait(30)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture
def pods(tmp_path):
    made = Pods(tmp_path / "pods", ["master", "worker-0", "worker-1"])
    for port in made.ports.values():
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            threading.Event().wait(0.05)
    yield made
    made.end()


def test_master_and_workers_make_one_load_together(pods, url, tmp_path):
    """Locust's own master and workers, the agents and the way home, without a cluster: one test for all of it, they take seconds to start."""
    together = ClusterLoad(pods, "ns", "master", ["worker-0", "worker-1"], master_host="127.0.0.1", locust_port=free_port())
    profile = steady(40, 1, users=20, arrivals=POISSON).warmed_up(0.5, 20)

    finished = together.put(url, "/", profile, folder=tmp_path / "home", personas=[Persona("a")], keep_seen=["host"])

    drawn = finished.draw()
    planned = list(profile.schedule())
    assert sorted(call["number"] for call in finished.calls) == [arrival.number for arrival in planned]
    assert len(drawn.records) == drawn.count == sum(profile.stages[arrival.stage].counted for arrival in planned)
    assert all(record.status == 200 and record.seen["x-persona"] == ["a"] for record in drawn.records)
    by_worker = [len((tmp_path / "home" / name / "calls.jsonl").read_text().splitlines()) for name in ("worker-0", "worker-1")]
    assert abs(by_worker[0] - by_worker[1]) <= 1
    assert "<html" in (tmp_path / "home" / "master" / "locust.html").read_text()
    due = [arrival.due_s for arrival in planned if profile.stages[arrival.stage].counted]
    assert [record.started_ms for record in drawn.records] == pytest.approx([1000 * one for one in due], abs=1)


def test_a_locust_that_breaks_says_why(pods, url, tmp_path, monkeypatch):
    together = ClusterLoad(pods, "ns", "master", ["worker-0"], master_host="127.0.0.1", locust_port=free_port())
    monkeypatch.setattr("workloads.load.cluster.order_of", lambda *_, **__: {"folder": "unfinished"})

    with pytest.raises(NeverReached, match=r"(?s)ended with exit code 1.*KeyError"):
        together.put(url, "/", steady(5, 1), folder=tmp_path / "home")


def test_master_and_workers_are_told_apart_and_only_workers_carry_sidecars():
    objects = locust(workers=3)
    master, workers = objects[MASTER][-1], objects[WORKER][-1]

    assert (master["spec"]["replicas"], workers["spec"]["replicas"]) == (1, 3)
    assert objects[MASTER][1]["spec"]["selector"] == master["spec"]["selector"]["matchLabels"] == {"app": MASTER}
    assert master["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert "sidecar.istio.io/inject" not in workers["spec"]["template"]["metadata"]["labels"]
    assert locust(workers=1, inject=False)[WORKER][-1]["spec"]["template"]["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    with pytest.raises(ValueError, match="needs a worker"):
        locust(workers=0)


def test_the_image_holds_the_locust_that_runs_on_the_host_and_every_wheel_is_locked():
    locked = [line for line in (CHECKOUT / "workloads" / "load" / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["dependency-groups"]["run"]

    assert {line.split()[0] for line in locked} >= {one for one in pinned if one.split("==")[0] in ("locust", "psutil", "requests")}
    assert all(len(line.partition("--hash=sha256:")[2]) == 64 for line in locked)
