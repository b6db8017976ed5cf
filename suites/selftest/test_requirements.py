"""Self-tests of the register of requirements, its catalogue and its false-alarm budget."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusters.errors import UserError
from suites.support import requirements, sampling
from suites.support.requirements import FALSE_ALARM_BUDGET, Requirement, requirement
from suites.support.verdicts import Claim, Verdict

AREA = '''\
"""A small area."""

from suites.support import judges
from suites.support.requirements import requirement
from suites.support.verdicts import Verdict


def judge(evidence):
    return Verdict.of(judges.every_status("all-answered", evidence["rest"], 200))


@requirement("routing.all-answered", level="MUST", judge=judge)
def test_all_answered():
    """Every call is answered. The rest says why.

    And more.
    """
'''


def held(_evidence):
    return Verdict.of(Claim("c", held=True, said="seen"))


def entry(requirement_id="routing.a", *, alpha=0.0, detects=None, judge=held, level="MUST", file="suites/routing/test_a.py"):
    return Requirement(requirement_id, level, "A fact.", judge, alpha, detects, Path(file), "test_a")


def test_the_catalogue_lists_what_needs_the_cluster_for_itself():
    assert "in a parallel run too: none." in requirements.render([entry()])
    assert "in a parallel run too: `routing.b`." in requirements.render([entry(), replace(entry("routing.b"), alone=True)])


@pytest.fixture(autouse=True)
def register():
    with requirements.collecting() as own:
        yield own


@pytest.fixture
def area(tmp_path):
    """A suites folder with one area and one requirement."""
    folder = tmp_path / "suites" / "routing"
    folder.mkdir(parents=True)
    (folder / "test_all_answered.py").write_text(AREA)
    return folder


def test_a_declared_test_is_marked_and_registered(register):
    @requirement("routing.weighted-split", level="SHOULD", judge=held, alpha=1e-5, detects=0.05)
    def test_shares():
        """Requests are shared 90 to 10 by both functions, e.g. one. Because of this.

        More.
        """

    found = register["routing.weighted-split"]
    assert found.sentence == "Requests are shared 90 to 10 by both functions, e.g. one."
    assert (found.level, found.alpha, found.detects, found.area, found.function) == ("SHOULD", 1e-5, 0.05, "routing", "test_shares")
    assert found.path == Path(__file__)
    assert test_shares.pytestmark[0].args == (found,)


@pytest.mark.parametrize(("declared", "message"), [
    ({"requirement_id": "weighted-split"}, r"an id such as routing\.weighted-split"),
    ({"requirement_id": "routing.Weighted"}, "an id such as"),
    ({"requirement_id": "routing.weighted_split"}, "an id such as"),
    ({"level": "MAY"}, "level MUST or SHOULD, seen 'MAY'"),
    ({"alpha": 0.05}, "alpha in 0"),
    ({"detects": 5}, "detects between 0 and 1"),
])
def test_a_bad_declaration_is_refused(declared, message):
    def test_fact():
        """A fact."""

    with pytest.raises(UserError, match=message):
        requirement(declared.pop("requirement_id", "routing.fact"), **{"level": "MUST", "judge": held, **declared})(test_fact)


def test_a_test_without_a_sentence_is_refused():
    def test_fact():
        pass

    with pytest.raises(UserError, match="a docstring that states the requirement"):
        requirement("routing.fact", level="MUST", judge=held)(test_fact)


def test_one_id_is_one_test():
    def test_one():
        """One."""

    def test_two():
        """Two."""

    requirement("routing.fact", level="MUST", judge=held)(test_one)
    requirement("routing.fact", level="MUST", judge=held)(test_one)
    with pytest.raises(UserError, match=r"one test per id, seen .*::test_one has it"):
        requirement("routing.fact", level="MUST", judge=held)(test_two)


@given(st.lists(st.floats(0, 1e-4), max_size=8))
def test_the_budget_is_the_sum(alphas):
    chosen = [entry(f"routing.a{index}", alpha=alpha) for index, alpha in enumerate(alphas)]

    if sum(alphas) <= FALSE_ALARM_BUDGET:
        assert requirements.budget(chosen) == pytest.approx(sum(alphas))
    elif sum(alphas) > FALSE_ALARM_BUDGET * 1.001:
        with pytest.raises(UserError, match="false-alarm budget of the run"):
            requirements.budget(chosen)


def test_ten_alphas_of_a_tenth_fit_the_budget():
    assert requirements.budget([entry(f"routing.a{index}", alpha=1e-5) for index in range(10)]) == pytest.approx(1e-4)


def test_an_id_outside_its_folder_is_a_problem():
    assert requirements.problems([entry(), entry("security.b")]) == ["security.b lies in folder routing, its area is security: suites/routing/test_a.py::test_a"]


def test_judging_holds_a_judge_to_its_declared_false_alarm():
    statistic = sampling.split({"a": 900, "b": 100}, {"a": 0.9, "b": 0.1}, 1e-5)

    def judge(_evidence):
        return Verdict.of(Claim("shares", held=True, said="agree", statistic=statistic))

    assert requirements.judge(entry(alpha=1e-5, judge=judge), {}).outcome == "held"
    assert requirements.judge(entry(alpha=1e-6, judge=judge), {}).open_claims[0].name == "declared-false-alarm"
    assert requirements.judge(entry(alpha=1e-5, detects=0.08, judge=judge), {}).outcome == "held"
    assert requirements.judge(entry(alpha=1e-5, detects=0.05, judge=judge), {}).open_claims[0].name == "declared-power"
    assert requirements.judge(entry(detects=0.05), {}).open_claims[0].name == "declared-power"


def test_evidence_that_a_judge_cannot_read_is_a_damaged_file():
    with pytest.raises(UserError, match=r"evidence of routing\.a: .*KeyError: 'rest'"):
        requirements.judge(entry(judge=lambda evidence: evidence["rest"]), {})


def test_discovery_imports_areas_and_leaves_the_register_alone(area, register):
    (area.parent / "selftest").mkdir()
    (area.parent / "selftest" / "test_not_an_area.py").write_text("raise AssertionError('imported')")

    found = requirements.discover(area.parent)

    assert list(found) == ["routing.all-answered"]
    assert found["routing.all-answered"].sentence == "Every call is answered."
    assert found["routing.all-answered"].judge({"rest": {"records": [{"status": 200}]}}).outcome == "held"
    assert not register


def test_a_file_that_cannot_be_imported_is_named(area):
    (area / "test_broken.py").write_text("import no_such_module")

    with pytest.raises(UserError, match=r"import of .*test_broken\.py: .*ModuleNotFoundError"):
        requirements.discover(area.parent)


def test_the_catalogue_names_id_bounds_mutants_and_test(area):
    (area / "all_answered.yaml").write_text("kind: VirtualService\nmetadata: {name: a}\nspec: {x: 1}\n")
    (area / "all_answered.mutants.yaml").write_text(
        json.dumps([{"name": "x-2", "target": "VirtualService/a", "patch": [{"op": "replace", "path": "/spec/x", "value": 2}], "kills": "all-answered"}]),
    )

    text = requirements.render([*requirements.discover(area.parent).values(), entry("routing.b", alpha=1e-5, detects=0.05)])

    rows = text.splitlines()[-2:]
    assert rows[0] == f"| `routing.all-answered` | MUST | Every call is answered. | exact | any | `x-2` | `{area / 'test_all_answered.py'}::test_all_answered` |"
    assert rows[1] == "| `routing.b` | MUST | A fact. | 1e-05 | 5 points | none | `suites/routing/test_a.py::test_a` |"


def test_the_checked_in_catalogue_is_what_the_tests_say():
    found = requirements.discover().values()

    assert requirements.problems(found) == []
    assert requirements.CATALOGUE.read_text() == requirements.render(found), "python -m suites requirements --write"
    requirements.budget(found)


def test_every_requirement_declares_a_mutant_that_kills_it():
    spared = [found.id for found in requirements.discover().values() if not requirements.mutants.of(found)]

    assert spared == []
