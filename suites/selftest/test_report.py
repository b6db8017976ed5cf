"""Self-tests of the report: its schema, its arithmetic across the run, its exit code and its page."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from rich.console import Console

from clusters.errors import UserError
from suites.support import report as reports
from suites.support import sampling
from suites.support.report import KILLED, SURVIVED, WRONG_CLAIM, Kill, Propagation, Result, RunReport
from suites.support.requirements import Requirement
from suites.support.verdicts import Claim, Verdict

DECLARED = {"standard": 0.9, "backup": 0.1}


def entry(requirement_id="routing.a", level="MUST", alpha=0.0):
    return Requirement(requirement_id, level, "A fact <b>of</b> the mesh.", lambda _: HELD, alpha, None, Path("suites/routing/test_a.py"), "test_a")


def split_claim(backup, alpha=1e-5, name="shares"):
    statistic = sampling.split({"standard": 2000 - backup, "backup": backup}, DECLARED, alpha)
    return Claim(name, held=not statistic.rejected, said=statistic.seen, statistic=statistic, expected=statistic.expected, got=statistic.seen)


HELD = Verdict.of(Claim("answered", held=True, said="all 20 calls were answered"))
FAILED = Verdict.of(Claim("answered", held=False, said="3 calls [failed] & <script>alert(1)</script>", expected="20", got="17"))
OPEN = Verdict.of(Claim("answered", held=None, said="the draw is empty"))


@pytest.fixture
def run(tmp_path):
    return RunReport.begin(
        tmp_path / "20990101-120000", command=["pytest", "-k", "routing"], profile="full", provider="kind", image_origin="source",
        environment={"cores": 2, "memory": "24 GiB"}, versions={"istio": "1.29.1"},
    )


def filled(run):
    run.expect(entry(alpha=1e-5), entry("routing.b"), entry("routing.c", "SHOULD"), entry("security.d"))
    with run.phase("kind create"):
        pass
    run.record(
        "routing.a", Verdict.of(*HELD.claims, split_claim(200)), timings={"setup": 1.5, "draw": 2.25}, propagation=[Propagation("VirtualService", "a", 1.2, 4)],
        evidence="evidence/routing.a.json", combinations=31,
    )
    run.record("routing.b", FAILED, artefacts=["failures/b/events.txt"])
    run.record("routing.c", OPEN)
    run.not_run("security.d", "nightly; --profile=full")
    run.skip("suites/x.py::test_y", "takes minutes")
    run.kill(Kill("routing.a", "weights-85-15", "shares", KILLED, ("shares",)))
    return run


def read(run):
    return json.loads((run.folder / "report.json").read_text())


def test_the_published_schema_is_a_schema():
    Draft202012Validator.check_schema(json.loads(reports.SCHEMA_FILE.read_text()))


def test_every_object_of_the_schema_is_closed():
    def objects(node):
        if isinstance(node, dict):
            if node.get("type") == "object" and "properties" in node:
                yield node
            for value in node.values():
                yield from objects(value)
        elif isinstance(node, list):
            for value in node:
                yield from objects(value)

    assert all(node["additionalProperties"] is False for node in objects(json.loads(reports.SCHEMA_FILE.read_text())))


def test_a_report_fits_its_schema_at_every_step_and_loads_as_it_was(run):
    reports.validate(read(run), run.folder)
    filled(run)
    reports.validate(read(run), run.folder)
    assert read(run)["complete"] is False
    run.finish()
    reports.validate(read(run), run.folder)

    assert read(run)["complete"] is True
    assert RunReport.load(run.folder).to_json() == read(run)
    assert RunReport.load(run.folder / "report.json").results["routing.a"].claims == run.results["routing.a"].claims


@pytest.mark.parametrize(("change", "message"), [
    ({"version": 2}, "schema faasmesh/report version 1, seen 'faasmesh/report' version 2"),
    ({"seconds": -1}, r"\$\.seconds"),
    ({"surprise": 1}, "surprise"),
    ({"requirements": [{}]}, r"\$\.requirements\[0\]"),
])
def test_a_report_that_does_not_fit_is_named_by_its_field(run, change, message):
    file = run.folder / "report.json"
    file.write_text(json.dumps(read(run) | change))

    with pytest.raises(UserError, match=message):
        RunReport.load(file)


def test_a_result_that_holds_without_a_claim_does_not_fit(run):
    filled(run)
    plain = read(run)
    plain["requirements"][0] |= {"claims": [], "statistics": []}

    with pytest.raises(UserError, match="claims"):
        reports.validate(plain, run.folder)


@pytest.mark.parametrize(("text", "message"), [("{", "expected JSON"), ("[]", "expected a JSON object"), (None, "expected a readable file")])
def test_a_damaged_report_is_one_line(run, text, message):
    file = run.folder / "report.json"
    file.unlink() if text is None else file.write_text(text)

    with pytest.raises(UserError, match=message) as error:
        RunReport.load(run.folder)
    assert "\n" not in str(error.value)


def test_a_crash_while_writing_leaves_the_former_report(run, monkeypatch):
    before = read(run)
    monkeypatch.setattr(reports.os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))

    with pytest.raises(OSError, match="disk full"):
        run.skip("a", "b")

    assert read(run) == before
    assert [file.name for file in run.folder.iterdir()] == ["report.json"]


def test_who_reads_while_a_report_is_written_reads_the_former_one(run):
    with (run.folder / "report.json").open() as reader:
        before = read(run)
        run.skip("a", "b")

        assert json.load(reader) == before


@pytest.mark.parametrize(("verdicts", "enforce", "code"), [
    ([], False, 1),
    ([("MUST", None)], False, 1),
    ([("MUST", None), ("MUST", None)], True, 1),
    ([("MUST", HELD)], True, 0),
    ([("MUST", HELD), ("MUST", None)], False, 0),
    ([("MUST", HELD), ("MUST", None)], True, 1),
    ([("MUST", HELD), ("SHOULD", None)], True, 0),
    ([("MUST", HELD), ("MUST", FAILED)], False, 1),
    ([("MUST", HELD), ("MUST", OPEN)], False, 1),
    ([("MUST", HELD), ("SHOULD", FAILED), ("SHOULD", OPEN)], True, 0),
    ([("SHOULD", HELD)], True, 0),
    ([("SHOULD", FAILED)], False, 1),
])
def test_the_exit_code(run, verdicts, enforce, code):
    for index, (level, verdict) in enumerate(verdicts):
        run.expect(entry(f"routing.a{index}", level))
        if verdict is not None:
            run.record(f"routing.a{index}", verdict)

    assert reports.exit_code(run, enforce=enforce) == code


@pytest.mark.parametrize(("fates", "code"), [([KILLED], 0), ([KILLED, SURVIVED], 1), ([WRONG_CLAIM], 1), (["not-run", KILLED], 1)])
def test_the_exit_code_of_a_mutation_run(run, fates, code):
    for index, fate in enumerate(fates):
        run.kill(Kill("routing.a", f"m{index}", "shares", fate))
    run.expect(entry("routing.left-out"))

    assert reports.exit_code(run) == code


def test_a_broken_check_is_inconclusive_and_fails_the_run(run):
    run.expect(entry(), entry("routing.b"))
    run.record("routing.b", HELD)
    run.broken("routing.a", "NeverReached: image cannot be pulled")

    assert reports.exit_code(run) == 1
    assert read(run)["summary"] == {"held": 1, "failed": 0, "inconclusive": 1, "not-run": 0}


def test_the_last_line(run):
    run.expect(entry(), entry("routing.b"))
    assert reports.last_line(run) == "requirements: 0 held, 0 failed, 2 not run"
    run.record("routing.a", HELD)
    run.record("routing.b", FAILED)
    assert reports.last_line(run) == "requirements: 1 held, 1 failed, 0 not run"
    run.record("routing.b", OPEN)
    assert reports.last_line(run) == "requirements: 1 held, 0 failed, 0 not run, 1 inconclusive"


def test_holm_turns_red_what_a_small_alpha_let_pass(run):
    run.expect(entry(alpha=1e-5), entry("routing.b"))
    run.record("routing.b", HELD)
    # 270 of 2000 has p about 5e-7: below the budget across a run of one test, above its own alpha of 1e-7.
    run.record("routing.a", Verdict.of(split_claim(270, alpha=1e-7)))

    result = {each.id: each for each in run.settled()}["routing.a"]

    assert run.results["routing.a"].outcome == "held"
    assert result.outcome == "failed"
    assert "refuted by Holm across the run" in result.reason
    assert result.claims[0].held is True
    assert read(run)["false_alarm"]["holm_rejected"] == [{"requirement": "routing.a", "claim": "shares"}]
    assert reports.exit_code(run) == 1
    assert reports.last_line(run).endswith("1 held, 1 failed, 0 not run")


def test_a_claim_that_stayed_open_is_no_part_of_the_family(run):
    claim = split_claim(270, alpha=1e-7)
    run.expect(entry(alpha=1e-5))
    run.record("routing.a", Verdict.of(Claim("shares", held=None, said="calls were lost", statistic=claim.statistic)))

    assert run.settled()[0].outcome == "inconclusive"
    assert read(run)["false_alarm"]["family"] == 0


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-7, 1e-5)), min_size=1, max_size=10))
@example([(8e-5, 9e-5), (0.5, 1e-6)])
@settings(max_examples=60)
def test_what_is_red_across_the_run_is_exactly_what_holm_rejects(family):
    def result(index, p, alpha):
        statistic = sampling.Statistic("t", 10, {}, {}, p, alpha, {}, {}, 0.99, None, "", "")
        verdict = Verdict.of(Claim("c", held=p > alpha, said="s", statistic=statistic))
        return Result(f"a.b{index}", "MUST", "s", "f", alpha, verdict.outcome, verdict.reason, verdict.claims)

    settled = reports.settle([result(index, p, alpha) for index, (p, alpha) in enumerate(family)])

    for each in settled:
        # The union is Holm's own set, so its level is the union's level; at the level itself rounding decides.
        if each.outcome == "failed":
            assert each.holm["c"] <= 1e-4 * (1 + 1e-9)
        else:
            assert each.holm["c"] > 1e-4 * (1 - 1e-9)


class Page(HTMLParser):
    """Collect the tags, what they refer to, and the text."""

    def __init__(self):
        super().__init__()
        self.tags, self.refers, self.text, self.open = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.refers += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in ("meta", "rect", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, _attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_stands_alone_and_escapes_what_it_shows(run):
    filled(run).finish()
    text = (run.folder / "report.html").read_text()
    page = Page()
    page.feed(text)
    shown = " ".join("".join(page.text).split())

    assert page.open == []
    assert page.refers == []
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert not re.search(r"https?://|@import|url\(", text)
    assert "<script>alert(1)</script>" in shown
    assert "A fact <b>of</b> the mesh." in shown
    assert "1 held, 1 failed, 1 not run, 1 inconclusive" in shown
    assert "mutants: 1 killed, 0 survived" in shown
    assert "svg" in page.tags
    assert "a (VirtualService) reached 4 proxies after 1.20 s" in shown
    assert "istio1.29.1" in shown
    assert "prefers-color-scheme: dark" in text


def test_an_empty_run_has_a_page_too(run):
    run.finish()

    assert "No requirement was tried" in (run.folder / "report.html").read_text()


def test_the_tables_show_every_requirement_and_mutant(run):
    filled(run)
    console = Console(width=200, record=True, file=(run.folder / "out").open("w"))
    console.print(reports.table(run))
    console.print(reports.kill_table(run))
    text = console.export_text()

    assert [word for word in ("routing.a", "routing.b", "routing.c", "security.d", "weights-85-15") if word not in text] == []
    assert "3 calls [failed]" in text
    assert "5.0%" in text
    console.file.close()


def test_what_is_known_after_the_verdict_is_attached(run):
    filled(run)
    run.attach("routing.b", artefacts=["failures/b/logs.txt"], timings={"judge": 0.5})

    assert run.results["routing.b"].artefacts == ("failures/b/events.txt", "failures/b/logs.txt")
    assert run.results["routing.b"].timings == {"judge": 0.5}


def test_false_alarms_are_summed_by_area(run):
    run.expect(entry(alpha=1e-5), entry("routing.b", alpha=2e-6), entry("security.d"))

    assert read(run)["false_alarm"]["by_area"] == {"routing": pytest.approx(1.2e-5), "security": 0}
    assert "1.2e-05 declared of 0.0001 (routing 1.2e-05, security 0)" in reports.figures(run)[0]


def test_propagation_is_summed_up_by_the_kinds_that_were_applied_together(run):
    run.expect(entry(), entry("routing.b"))
    both = "DestinationRule+VirtualService"
    run.record("routing.a", HELD, propagation=[Propagation("VirtualService", "a", 0.5, 2, {"x": 0.4, "y": 0.5}), Propagation(both, "b", 1.0, 2)])
    run.record("routing.b", HELD, propagation=[Propagation("VirtualService", "c", 1.5, 1), Propagation("VirtualService", "d", 0.7, 1)])

    assert read(run)["propagation"] == [
        {"kind": both, "applied": 1, "median": 1.0, "longest": 1.0},
        {"kind": "VirtualService", "applied": 3, "median": 0.7, "longest": 1.5},
    ]
    assert RunReport.load(run.folder).results["routing.a"].propagation[0].by_proxy == {"x": 0.4, "y": 0.5}
    assert "VirtualService 0.7 s (3 times, longest 1.5 s)" in reports.figures(run)[1]


def test_combinations_are_summed_up_by_area_and_come_back(run):
    run.expect(entry(), entry("routing.b"), entry("security.d"))
    run.record("routing.b", HELD)
    run.record("security.d", HELD, combinations=40)
    run.write()

    assert reports.figures(run)[0] == "combinations of caller, target and request tried: security 40"
    assert RunReport.load(run.folder).results["security.d"].combinations == 40


def parts(run, **recorded):
    for name, (requirement_id, verdict) in recorded.items():
        part = RunReport.begin(run.folder, command=["pytest"], profile="full", provider="kind", image_origin="source", part=name)
        # Every process collects every check.
        part.expect(entry(), entry("routing.b"), entry("routing.c"))
        part.record(requirement_id, verdict)
        part.skip("suites/x.py::test_y", "takes minutes")
        part.kill(Kill(requirement_id, f"{name}-mutant", "answered", KILLED))


def test_the_parts_of_a_parallel_run_are_joined_and_then_gone(run):
    parts(run, gw0=("routing.a", HELD), gw1=("routing.b", FAILED))

    run.gather()
    run.gather()

    assert {each: result.outcome for each, result in run.results.items()} == {"routing.a": "held", "routing.b": "failed", "routing.c": "not-run"}
    assert [kill.mutant for kill in run.mutation] == ["gw0-mutant", "gw1-mutant"]
    assert len(run.skips) == 1
    run.finish()
    assert sorted(file.name for file in run.folder.iterdir()) == ["report.html", "report.json"]
    assert read(run)["summary"]["held"] == 1


def test_why_a_process_left_a_check_out_is_not_lost(run):
    parts(run, gw0=("routing.a", HELD), gw1=("routing.b", HELD))
    part = RunReport.load(run.folder / "report.part-gw0.json")
    part.part = "gw0"
    part.not_run("routing.c", "the host has no way in")

    run.gather()
    run.gather()

    assert run.results["routing.c"].reason == "the host has no way in"
    assert run.results["routing.b"].outcome == "held"


def test_a_run_in_one_process_has_no_parts_to_join(run):
    filled(run)
    before = read(run)["requirements"]

    run.gather()

    assert read(run)["requirements"] == before
