"""A kubelet that is told to rotate logs, and has its own configuration back whatever happens; without a node."""

import base64
import contextlib
from types import SimpleNamespace

import pytest
import yaml

from clusters import kubelet
from clusters.errors import UserError

OWN = {"kind": "KubeletConfiguration", "containerLogMaxSize": "256Mi", "serializeImagePulls": False}


class Node:
    """A node's files, and how often its kubelet was started anew."""

    name = "one-control-plane"

    def __init__(self, *, broken=""):
        self.files = {"/var/lib/kubelet/config.yaml": yaml.safe_dump(OWN)}
        self.starts = []
        self.broken = broken

    def exec_run(self, argv):
        if argv[0] == self.broken:
            return SimpleNamespace(exit_code=1, output=b"no\n")
        answer = getattr(self, argv[0])(argv)
        return SimpleNamespace(exit_code=0 if answer is not None else 1, output=(answer or "").encode())

    def cat(self, argv):
        return self.files.get(argv[1])

    def sh(self, argv):
        self.files[argv[5]] = base64.b64decode(argv[4]).decode()
        return ""

    def test(self, argv):
        return "" if argv[2] in self.files else None

    def rm(self, argv):
        for name in argv[2:]:
            self.files.pop(name, None)
        return ""

    def systemctl(self, argv):
        if argv[1:] == ["restart", "kubelet"]:
            self.starts.append(sorted(self.files))
        return ""

    def curl(self, _):
        return "ok"

    def ls(self, argv):
        return "0.log\n0.log.20260101-000000\n" if argv[1] == "/var/log/pods/ns_p_u/c" else None


@pytest.fixture
def node(monkeypatch):
    made = Node()
    monkeypatch.setattr(kubelet, "_container", lambda _: contextlib.nullcontext(made))
    return made


def test_logs_are_rotated_in_the_block_and_as_before_after_it(node):
    with kubelet.rotating(["one"], "256Ki"):
        told = yaml.safe_load(node.files[kubelet._OURS])
        assert kubelet._OURS in node.files[kubelet._DROP_IN]

    assert told == {**OWN, "containerLogMaxSize": "256Ki", "containerLogMonitorInterval": "3s"}
    assert set(node.files) == {"/var/lib/kubelet/config.yaml"}
    assert len(node.starts) == 2


def test_a_block_that_fails_leaves_the_kubelet_as_it_was(node):
    with pytest.raises(ZeroDivisionError), kubelet.rotating(["one"], "256Ki"):
        raise ZeroDivisionError

    assert set(node.files) == {"/var/lib/kubelet/config.yaml"}


def test_a_kubelet_that_is_as_it_was_is_left_alone(node):
    kubelet.restore(node)

    assert node.starts == []


def test_a_node_that_refuses_is_named(node):
    node.broken = "cat"

    with pytest.raises(UserError, match=r"cat /var/lib/kubelet/config\.yaml in node one-control-plane: expected exit code 0, seen 1: no"), kubelet.rotating(["one"], "1Mi"):
        pass


def test_the_log_files_of_a_container_are_listed(node):
    assert kubelet.log_files("one", "ns", "p", "u", "c") == ["0.log", "0.log.20260101-000000"]
