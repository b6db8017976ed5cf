"""Self-tests of replay, comparison and their command line, on small runs made here."""

import json
import os

import pytest

from clusters.errors import UserError
from suites.__main__ import main
from suites.support import replay, requirements
from suites.support.report import Kill, RunReport

AREA = '''\
"""A small area."""

from suites.support import judges
from suites.support.requirements import requirement
from suites.support.verdicts import Verdict

DECLARED = {"standard": 0.9, "backup": 0.1}


def judge(evidence):
    return Verdict.of(
        judges.no_failures("every-call-answered", evidence["rest"]),
        judges.split("shares", evidence["rest"], declared=DECLARED, alpha=1e-5),
    )


@requirement("routing.weighted-split", level="MUST", judge=judge, alpha=1e-5)
def test_shares():
    """Requests are shared 90 to 10."""
'''


def draw(standard, backup):
    records = [{"index": index, "status": 200, "version": version} for index, version in enumerate(["standard"] * standard + ["backup"] * backup)]
    return {"count": len(records), "records": records}


@pytest.fixture
def suites(tmp_path):
    folder = tmp_path / "suites"
    (folder / "routing").mkdir(parents=True)
    (folder / "routing" / "test_weighted_split.py").write_text(AREA)
    return folder


@pytest.fixture(autouse=True)
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("FAASMESH_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def save(folder, evidence, *, mutant=None, verdict=None):
    file = folder / "evidence" / f"routing.weighted-split{'+' + mutant if mutant else ''}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    plain = {"schema": 1, "requirement": "routing.weighted-split", "mutant": mutant, "evidence": {"rest": evidence}}
    file.write_text(json.dumps(plain | ({"verdict": verdict.to_json()} if verdict else {})))
    return file


@pytest.fixture
def a_run(suites, runs):
    """Make a run as the suites leave it: report, evidence, page."""

    def make(name="one", standard=1800, backup=200, versions=None):
        entry = requirements.discover(suites)["routing.weighted-split"]
        report = RunReport.begin(runs / name, command=["pytest"], profile="full", provider="kind", image_origin="source", versions=versions or {"istio": "1.29.1"})
        report.expect(entry)
        verdict = requirements.judge(entry, {"rest": draw(standard, backup)})
        save(report.folder, draw(standard, backup))
        report.record(entry.id, verdict, evidence=f"evidence/{entry.id}.json")
        report.finish()
        return report

    return make


def test_a_replay_says_what_the_run_said(a_run, suites, capsys):
    report = a_run()

    assert main(["replay", str(report.folder), "--suites", str(suites)]) == 0
    out = capsys.readouterr().out
    assert "routing.weighted-split" in out
    assert out.splitlines()[-1] == "replay: 1 as recorded, 0 different"


def test_a_failed_verdict_that_is_replayed_as_failed_is_no_difference(a_run, suites):
    assert main(["replay", str(a_run(standard=1700, backup=300).folder), "--suites", str(suites)]) == 0


def test_evidence_that_was_changed_is_a_difference(a_run, suites, capsys):
    report = a_run()
    save(report.folder, draw(1700, 300))

    assert main(["replay", str(report.folder), "--suites", str(suites)]) == 1
    assert "verdict held -> failed; shares held -> failed" in capsys.readouterr().out


def test_a_judge_that_was_changed_is_a_difference(a_run, suites, capsys):
    report = a_run()
    file = suites / "routing" / "test_weighted_split.py"
    file.write_text(AREA.replace('"every-call-answered"', '"all-answered"'))

    assert main(["replay", str(report.folder), "--suites", str(suites)]) == 1
    assert "all-answered absent -> held; every-call-answered held -> absent" in capsys.readouterr().out


def test_a_mutants_evidence_is_compared_with_its_own_verdict(a_run, suites):
    report = a_run()
    entry = requirements.discover(suites)["routing.weighted-split"]
    verdict = requirements.judge(entry, {"rest": draw(1700, 300)})
    save(report.folder, draw(1700, 300), mutant="weights-85-15", verdict=verdict)

    replayed = {each.saved.mutant: each for each in replay.rejudge(report.folder, {entry.id: entry})}

    assert (replayed["weights-85-15"].recorded, replayed["weights-85-15"].verdict.outcome, replayed["weights-85-15"].differs) == ("failed", "failed", False)
    assert replayed[None].recorded == "held"


def test_evidence_without_a_recorded_verdict_is_judged_and_differs_from_nothing(suites, runs, capsys):
    file = save(runs / "bare", draw(1800, 200))

    assert main(["replay", str(file), "--suites", str(suites)]) == 0
    assert "1 judged, none had been recorded" in capsys.readouterr().out


def test_latest_is_the_youngest_run(a_run, suites, capsys):
    old, new = a_run("zz-old"), a_run("aa-new", 1700, 300)
    os.utime(old.folder / "report.json", (1, 1))

    assert replay.resolve("latest") == new.folder
    assert replay.resolve("zz-old") == old.folder
    assert main(["replay", "latest", "--suites", str(suites)]) == 0
    assert "failed" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "message"), [
    ("{", "expected JSON"),
    ("{}", "expected schema 1 with requirement"),
    ('{"schema": 2, "requirement": "routing.weighted-split", "mutant": null, "evidence": {}}', "seen schema 2"),
    ('{"schema": 1, "requirement": "routing.gone", "mutant": null, "evidence": {}}', "expected a requirement of this checkout, seen 'routing.gone'"),
    ('{"schema": 1, "requirement": "routing.weighted-split", "mutant": null, "evidence": {}}', "KeyError: 'rest'"),
    ('{"schema": 1, "requirement": "routing.weighted-split", "mutant": null, "evidence": {"rest": 5}}', "expected a draw"),
    ('{"schema": 1, "requirement": "routing.weighted-split", "mutant": null, "evidence": {"rest": {}}, "verdict": {"claims": [{}]}}', "expected a verdict"),
])
def test_a_damaged_evidence_file_is_one_line_and_exit_code_2(a_run, suites, capsys, text, message):
    folder = a_run().folder
    (folder / "evidence" / "routing.weighted-split.json").write_text(text)

    assert main(["replay", str(folder), "--suites", str(suites)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("argv", [["replay", "nowhere"], ["replay", "latest"], ["report", "nowhere"], ["validate", "nowhere"], ["diff", "nowhere", "latest"]])
def test_a_path_that_is_not_there_is_one_line_and_exit_code_2(capsys, argv):
    assert main(argv) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_without_evidence_is_named(tmp_path):
    with pytest.raises(UserError, match="expected evidence in"):
        replay.rejudge(tmp_path, {})


def test_report_renders_the_page_again(a_run, capsys):
    report = a_run()
    (report.folder / "report.html").unlink()

    assert main(["report", "one"]) == 0
    assert (report.folder / "report.html").exists()
    assert capsys.readouterr().out.splitlines()[-1] == "requirements: 1 held, 0 failed, 0 not run"


def test_validate(a_run, capsys):
    report = a_run()
    report.kill(Kill("routing.weighted-split", "m", "shares", "killed", ("shares",)))

    assert main(["validate", str(report.folder)]) == 0
    assert "valid, faasmesh/report version 1" in capsys.readouterr().out


def test_diff_tells_regressed_fixed_and_versions(a_run, capsys):
    good, bad = a_run("good"), a_run("bad", 1700, 300, versions={"istio": "1.30.0", "envoy": "1.38"})

    assert main(["diff", str(good.folder), str(bad.folder)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "regressed:", "  routing.weighted-split: held -> failed", "versions:", "  envoy: none -> 1.38", "  istio: 1.29.1 -> 1.30.0",
        "diff: 1 regressed, 0 fixed, 0 no longer run, 2 versions changed",
    ]
    assert main(["diff", str(bad.folder), str(good.folder)]) == 0
    assert "fixed:\n  routing.weighted-split: failed -> held" in capsys.readouterr().out
    assert main(["diff", str(good.folder), str(good.folder)]) == 0


def test_diff_tells_apart_what_is_no_longer_run(a_run, runs, capsys):
    good = a_run("good")
    empty = RunReport.begin(runs / "empty", command=["pytest"], profile="full", provider="kind", image_origin="source")

    assert main(["diff", str(good.folder), str(empty.folder)]) == 0
    assert "routing.weighted-split: held -> not-run (absent)" in capsys.readouterr().out
    assert main(["diff", "--enforce", str(good.folder), str(empty.folder)]) == 1


def test_requirements_are_written_and_checked(suites, capsys):
    assert main(["requirements", "--check", "--suites", str(suites)]) == 1
    assert main(["requirements", "--write", "--suites", str(suites)]) == 0
    assert main(["requirements", "--check", "--suites", str(suites)]) == 0
    (suites / "requirements.md").write_text("old")
    assert main(["requirements", "--check", "--suites", str(suites)]) == 1
    assert main(["requirements", "--suites", str(suites)]) == 0
    assert "`routing.weighted-split`" in capsys.readouterr().out


def test_a_misplaced_requirement_is_one_line(suites, capsys):
    (suites / "routing" / "test_weighted_split.py").write_text(AREA.replace("routing.weighted", "security.weighted"))

    assert main(["requirements", "--suites", str(suites)]) == 2
    assert "security.weighted-split lies in folder routing" in capsys.readouterr().err


def test_no_command_is_a_mistake():
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
