"""Self-tests of runs in several processes: what they tell each other, and how they end before there is a cluster."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusters.bringup import Options, Testbed
from clusters.paths import CHECKOUT
from clusters.provider import Cluster
from clusters.timeouts import Timeouts
from suites.support.plugin import longest_first
from suites.support.scheduling import area_of, next_file

KUBECONFIG = {
    "apiVersion": "v1", "kind": "Config", "current-context": "kind-a",
    "clusters": [{"name": "kind-a", "cluster": {"server": "https://127.0.0.1:1"}}], "users": [{"name": "kind-a", "user": {"token": "t"}}],
    "contexts": [{"name": "kind-a", "context": {"cluster": "kind-a", "user": "kind-a"}}],
}


@pytest.fixture
def invited(tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    bed = Testbed(Options(), Timeouts())
    bed.cluster = Cluster("a", "kind", kubeconfig, "kind-a", owned=True, gateway_url="http://127.0.0.1:30080", origin="source", nodes=("a-control-plane",))
    bed.invite(tmp_path)
    return bed


def test_a_worker_finds_the_cluster_that_another_process_has_brought_up(invited, tmp_path):
    bed = Testbed.attached(Options(images="auto"), Timeouts(), tmp_path)

    assert bed.cluster == invited.cluster
    assert bed.kube is not None
    # Asking again whether a registry answers could end otherwise than it did for the first.
    assert bed.options.images == "source"


def test_a_worker_takes_nothing_down(invited, tmp_path):
    bed = Testbed.attached(Options(), Timeouts(), tmp_path)

    bed.close()

    assert bed.memory == 0
    assert (tmp_path / "kubeconfig").exists()


def test_nobody_attaches_uninvited(tmp_path):
    with pytest.raises(FileNotFoundError):
        Testbed.attached(Options(), Timeouts(), tmp_path)


class Item:
    """A test as pytest has it: its file, its markers."""

    def __init__(self, path, *, slow=False, alone=False):
        self.path, self.slow, self.alone = Path(path), slow, alone

    def get_closest_marker(self, name):
        marker = SimpleNamespace(args=[SimpleNamespace(alone=self.alone)])
        return marker if name == "requirement" or (name == "slow" and self.slow) else None


def test_long_files_come_first_and_lonely_ones_last_within_their_area():
    items = [
        Item("b/test_a.py", alone=True, slow=True), Item("b/test_b.py"), Item("b/test_c.py"), Item("b/test_c.py", slow=True), Item("a/test_a.py"), Item("a/test_b.py", slow=True),
    ]

    assert [str(item.path) for item in longest_first(items)] == ["b/test_c.py", "b/test_c.py", "b/test_b.py", "b/test_a.py", "a/test_b.py", "a/test_a.py"]


FILES = ["a/1", "a/2", "b/1", "b/2", "b/3", "c/1"]


@pytest.mark.parametrize(("waiting", "own", "others", "handed"), [
    (FILES, "", [], "a/1"), (FILES, "", ["a"], "b/1"), (FILES[1:], "b", ["a"], "b/1"), (["a/2", "b/3"], "c", ["a", "b"], "a/2"),
    (["a/2", "b/2", "b/3"], "c", ["a", "b"], "b/2"), (["a/2", "c/1"], "b", ["a"], "c/1"), (["a/2"], "a", ["a"], "a/2"),
])
def test_a_process_stays_in_its_area_then_begins_one_of_its_own_then_helps_where_most_is_left(waiting, own, others, handed):
    assert next_file(waiting, own, others) == handed


@given(st.lists(st.builds("{}/{}".format, st.sampled_from("abcd"), st.integers(0, 9)), unique=True, min_size=1), st.integers(1, 4), st.randoms())
def test_every_file_is_handed_out_once_and_no_process_leaves_an_area_with_work_left(files, processes, chance):
    waiting, areas, handed = list(files), [""] * processes, []
    while waiting:
        who = chance.randrange(processes)
        file = next_file(waiting, areas[who], areas[:who] + areas[who + 1:])
        assert area_of(file) == areas[who] or areas[who] not in map(area_of, waiting)
        areas[who] = area_of(file)
        waiting.remove(file)
        handed.append(file)

    assert sorted(handed) == sorted(files)


def run(tmp_path, *arguments):
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, env={**os.environ, "FAASMESH_RUNS": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["one-process", "two-workers"])
def test_what_is_missing_is_said_in_one_line_whoever_notices(tmp_path, processes):
    done = run(tmp_path, "suites/routing/test_weighted_split.py", "--cluster=existing", *processes)

    assert done.returncode == 2, done.stdout[-2_000:] + done.stderr[-2_000:]
    assert "--cluster=existing: expected --kubeconfig=FILE, seen none" in done.stdout
    assert "requirements: 0 held, 0 failed, 1 not run" in done.stdout


def test_hermetic_tests_run_side_by_side_without_a_cluster(tmp_path):
    done = run(tmp_path, "suites/selftest/test_timeouts.py", "-n", "2")

    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    assert list(tmp_path.iterdir()) == []
