"""Self-tests of claims and verdicts."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.support.sampling import split
from suites.support.verdicts import Claim, Verdict

HELD = st.sampled_from([True, False, None])


@given(st.lists(HELD, min_size=1, max_size=5))
def test_one_refuted_claim_fails_and_one_open_claim_withholds(held):
    verdict = Verdict.of(*(Claim(f"claim-{index}", value, "seen.") for index, value in enumerate(held)))

    assert verdict.outcome == ("failed" if False in held else "inconclusive" if None in held else "held")
    assert len(verdict.failed_claims) == held.count(False)
    assert bool(verdict.reason) == (verdict.outcome != "held")


@given(st.lists(st.tuples(HELD, st.text(min_size=1), st.text()), min_size=1, max_size=4), st.booleans())
def test_a_verdict_survives_json(claims, with_statistic):
    statistic = split({"a": 90, "b": 10}, {"a": 0.9, "b": 0.1}, 1e-5) if with_statistic else None
    verdict = Verdict.of(*(Claim(f"c{index}", held, said, statistic, expected=said, got=got) for index, (held, said, got) in enumerate(claims)))

    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


def test_nothing_claimed_is_no_verdict():
    with pytest.raises(ValueError, match="needs claims"):
        Verdict.of()


def test_two_claims_of_one_name_are_refused():
    with pytest.raises(ValueError, match="different names"):
        Verdict.of(Claim("a", held=True, said="x"), Claim("a", held=False, said="y"))


@pytest.mark.parametrize(("name", "said"), [("", "x"), ("a", "")])
def test_a_claim_says_something(name, said):
    with pytest.raises(ValueError, match="a name and a sentence"):
        Claim(name, held=True, said=said)


def test_the_text_puts_what_is_wrong_first():
    text = Verdict.of(
        Claim("fine", held=True, said="all is well"),
        Claim("unclear", held=None, said="the draw is empty"),
        Claim("broken", held=False, said="3 of 20 calls failed", expected="20 of 20", got="17"),
    ).text()

    assert text.splitlines() == [
        "failed: broken: 3 of 20 calls failed (expected 20 of 20, got 17)",
        "inconclusive: unclear: the draw is empty",
        "held: fine: all is well",
    ]
