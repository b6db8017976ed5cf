"""Witnesses: who is asked, how long, what becomes of one that says nothing, and whether they contradict one another."""

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suites.support.witnesses import Statement, Watch, agree, lag, saw_all

REQUESTS = ("one", "two")


class Silent(Exception):  # noqa: N818  # states what happened
    """The witness does not answer."""


def told(request: str, said: Any = "something", *, after_s: float = 0.1, missing: str = "") -> dict[str, Any]:
    return Statement(request, after_s, None if missing else said, missing).to_json()


def test_each_witness_is_asked_until_it_tells() -> None:
    looks = {"quick": 0, "slow": 0}

    def quick(request: str) -> str:
        looks["quick"] += 1
        return f"quick saw {request}"

    def slow(request: str) -> str:
        looks["slow"] += 1
        assert looks["slow"] > 2, "nothing yet"
        return f"slow saw {request}"

    watch = Watch({"quick": quick, "slow": slow}, within=5)
    watch.expect("one")
    statements = watch.finish()

    assert looks == {"quick": 1, "slow": 3}
    assert statements["quick"][0].told == "quick saw one"
    assert statements["slow"][0].told == "slow saw one"
    assert statements["quick"][0].after_s < statements["slow"][0].after_s


def test_what_a_witness_said_last_is_kept_where_it_never_tells() -> None:
    def empty(_: str) -> str:
        raise AssertionError("0 lines in the store")

    def silent(_: str) -> str:
        raise Silent("store logging/store: no pod")

    watch = Watch({"empty": empty, "silent": silent}, within=0.1, silences=(Silent,))
    watch.expect("one")
    statements = watch.finish()

    assert statements["empty"] == [Statement("one", 0.0, missing="0 lines in the store")]
    assert statements["silent"] == [Statement("one", 0.0, missing="Silent: store logging/store: no pod")]


def test_a_slow_witness_does_not_delay_another() -> None:
    hold = threading.Event()

    def stuck(_: str) -> bool:
        return hold.wait(5)

    watch = Watch({"stuck": stuck, "prompt": lambda _: True}, within=5)
    for request in ("one", "two", "three"):
        assert watch.expect(request)["prompt"].result(timeout=2).told
    hold.set()

    assert [one.told for one in watch.finish()["stuck"]] == [True, True, True]


def test_a_mistake_of_ours_is_not_taken_for_silence() -> None:
    watch = Watch({"broken": lambda _: {}["no such thing"]}, within=5)
    watch.expect("one")

    with pytest.raises(KeyError):
        watch.finish()


def test_a_witness_of_all_requests_holds_and_says_how_long_it_took() -> None:
    claim = saw_all("trace", [told("one", after_s=0.1), told("two", after_s=0.3)], REQUESTS)

    assert claim.held
    assert "median 200 ms" in claim.said


@given(st.lists(st.booleans(), min_size=1, max_size=8))
def test_a_witness_is_missing_exactly_where_it_lacks_a_request(seen: list[bool]) -> None:
    names = [str(index) for index in range(len(seen))]
    claim = saw_all("trace", [told(name, missing="" if there else "0 spans") for name, there in zip(names, seen, strict=True)], names)

    assert claim.held is all(seen)
    if not claim.held:
        assert f"the witness trace is missing for {seen.count(False)} of {len(seen)} requests, the first of them {seen.index(False)}" in claim.said
        assert "last: 0 spans" in claim.said


def test_a_request_that_nobody_asked_for_is_missing_too() -> None:
    claim = saw_all("trace", [told("one")], REQUESTS)

    assert claim.held is False
    assert "last: it was not asked" in claim.said


def test_without_a_request_nothing_is_claimed() -> None:
    assert saw_all("trace", [], []).held is None
    assert agree("one-status", {"a": [], "b": []}, {"a": str, "b": str}, "status").held is None


@pytest.mark.parametrize(("other", "held"), [("200", True), ("503", False)])
def test_witnesses_must_not_contradict_one_another(other: str, held: bool) -> None:  # noqa: FBT001  # a table's column
    statements = {"log": [told("one", {"status": "200"})], "trace": [told("one", {"status": other})], "metric": [told("one", missing="none")]}
    claim = agree("one-status", statements, dict.fromkeys(statements, lambda said: said["status"]), "status")

    assert claim.held is held


def test_one_witness_alone_cannot_contradict() -> None:
    claim = agree("one-status", {"log": [told("one", 200)], "trace": [told("two", 503)]}, {"log": int, "trace": int}, "status")

    assert claim.held is None


def test_lags_leave_out_who_said_nothing() -> None:
    assert lag([told("one", missing="none")]) == "none"
    assert lag([told("one", after_s=0.25), told("two", missing="none")]).startswith("median 250 ms")
