"""The command line: doctor's answer in both forms, and one clear line for every mistake."""

import json

import jsonschema
import pytest

from clusters import __main__ as cli
from clusters import engine, host
from clusters.errors import UserError
from clusters.host import Finding

ANSWER = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "fit", "findings"],
    "properties": {
        "schema": {"const": 1},
        "fit": {"type": "boolean"},
        "findings": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["id", "verdict", "expected", "seen", "hint"],
                "properties": {
                    "id": {"type": "string", "pattern": "^host\\.[a-z]+(-[a-z]+)*$"},
                    "verdict": {"enum": ["ok", "warn", "fail"]},
                    "expected": {"type": "string", "minLength": 1},
                    "seen": {"type": "string", "minLength": 1},
                    "hint": {"type": "string"},
                },
            },
        },
    },
}
WARNED = Finding("host.inotify", "warn", "512 instances", "128 instances", "sysctl [-w] fs.inotify.max_user_instances=512")
FAILED = Finding("host.cores", "fail", "2 or more", "1", "give the machine more cores")


@pytest.fixture
def found(monkeypatch):
    """What doctor finds."""
    findings: list[Finding] = []
    monkeypatch.setattr(host, "examine", lambda _ports: findings)
    return findings


def test_this_hosts_json_is_of_the_published_form(monkeypatch, capsys):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")

    code = cli.main(["doctor", "--json"])

    answer = json.loads(capsys.readouterr().out)
    jsonschema.validate(answer, ANSWER)
    assert code == 2
    assert answer["fit"] is False
    assert len({finding["id"] for finding in answer["findings"]}) == len(answer["findings"])


@pytest.mark.parametrize(("findings", "code", "fit"), [([WARNED], 0, True), ([WARNED, FAILED], 2, False), ([FAILED, WARNED], 2, False)])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_only_a_failed_finding_makes_the_host_unfit(found, capsys, findings, code, fit, form):
    found.extend(findings)

    assert cli.main(["doctor", *form]) == code

    printed = capsys.readouterr().out
    if form:
        assert json.loads(printed) == {"schema": 1, "fit": fit, "findings": [finding.to_json() for finding in findings]}
    for finding in findings:
        assert finding.id in printed
        assert finding.hint in printed


@pytest.mark.parametrize(
    ("argv", "seen"),
    [
        (["doctr"], "seen doctr"),
        ([], "seen no command"),
        (["doctor", "--jsn"], "--jsn"),
        (["doctor", "--port", "http"], "'http'"),
        (["doctor", "more"], "more"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(capsys, argv, seen):
    try:
        code = cli.main(argv)
    except SystemExit as leaving:
        code = leaving.code

    printed = capsys.readouterr()
    assert code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert seen in printed.err
    assert "hint: python -m clusters" in printed.err


def test_a_users_error_inside_a_command_is_one_line_too(monkeypatch, capsys):
    def broken(_ports: object) -> list[Finding]:
        raise UserError("host", expected="this", seen="that\nand that", hint="do so")

    monkeypatch.setattr(host, "examine", broken)

    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "host: expected this, seen that and that; hint: do so\n"


def test_ctrl_c_is_not_a_stack_trace(monkeypatch, capsys):
    def interrupted(_ports: object) -> list[Finding]:
        raise KeyboardInterrupt

    monkeypatch.setattr(host, "examine", interrupted)

    assert cli.main(["doctor"]) == cli.INTERRUPTED
    assert capsys.readouterr().err.count("\n") == 1


def test_doctor_needs_no_other_command_to_be_importable():
    assert cli._needed(["doctor", "--json"]) == ["clusters.host"]
    assert cli._needed(["--help"]) == list(cli.OFFERS)


def test_doctor_builds_the_wrapper_when_asked(found, monkeypatch, tmp_path):
    built: list[str] = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engine, "build_runtime", lambda _say: built.append("built"))
    found.append(WARNED)

    assert cli.main(["doctor", "--build-runtime"]) == 0
    assert built == ["built"]
