"""Records: evidence is read back as it was written, and what is no record is refused."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workloads.records import CallRecord, Draw, RecordError, with_flags

TEXT = st.text(max_size=8)
HEADERS = st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=3)
MILLISECONDS = st.floats(min_value=0, max_value=1e6)
RECORDS = st.builds(
    CallRecord,
    index=st.integers(0, 10), status=st.sampled_from([0, 200, 404, 499, 500, 503]), error=TEXT, latency_ms=MILLISECONDS, started_ms=MILLISECONDS,
    version=TEXT, pod=TEXT, request_id=TEXT, headers=HEADERS, seen=HEADERS, connection=TEXT, flags=TEXT,
)  # fmt: skip


def draw_of(*records: CallRecord) -> Draw:
    return Draw("http://f/", "GET", len(records), 1, records, "2026-01-01T00:00:00Z", 0.5)


def call(status: int, version: str = "", pod: str = "") -> CallRecord:
    return CallRecord(0, status, "", 1.0, 0.0, version=version, pod=pod)


@given(st.lists(RECORDS, max_size=5))
def test_a_draw_survives_its_json(records: list[CallRecord]) -> None:
    draw = draw_of(*records)

    assert Draw.from_json(json.loads(json.dumps(draw.to_json()))) == draw


@given(RECORDS)
def test_a_record_survives_its_json(record: CallRecord) -> None:
    assert CallRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_record_in_a_draw_reads_as_it_does_alone() -> None:
    assert draw_of(call(200)).to_json()["records"] == [call(200).to_json()]


@given(st.lists(RECORDS, max_size=20))
def test_counts_add_up_and_failures_are_the_unanswered_and_the_5xx(records: list[CallRecord]) -> None:
    draw = draw_of(*records)

    assert draw.statuses().total() == draw.versions().total() == draw.pods().total() == len(records)
    assert len(draw.failures) == sum(count for status, count in draw.statuses().items() if status in {0, 500, 503})


def test_counters_count_by_their_name() -> None:
    draw = draw_of(call(200, "v1", "a"), call(200, "v1", "b"), call(503, "v2", "b"))

    assert (draw.statuses(), draw.versions(), draw.pods()) == ({200: 2, 503: 1}, {"v1": 2, "v2": 1}, {"a": 1, "b": 2})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "200"}, "status is '200', a str"),
        ({"status": True}, "status is True, a bool"),
        ({"colour": "red"}, "does not know colour"),
        ({"headers": []}, "headers is [], a list"),
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(RecordError, match=said.replace("[", r"\[")):
        CallRecord.from_json({**call(200).to_json(), **change})


def test_a_missing_field_is_named() -> None:
    document = draw_of(call(200)).to_json()
    del document["began"], document["seconds"]

    with pytest.raises(RecordError, match="draw: lacks began, seconds"):
        Draw.from_json(document)


def test_a_document_of_another_kind_is_refused() -> None:
    with pytest.raises(RecordError, match="expected an object, seen list"):
        Draw.from_json([])  # type: ignore[arg-type]  # what a file may hold


ID = "0f3c9d52-7d1e-4b0a-9c55-3a1f6f1f2b10"


def test_flags_are_joined_by_request_id_even_where_envoy_wrote_its_tracing_decision_into_it() -> None:
    plain, traced, unlogged = (replace(call(503), request_id=ID.replace("0f3c", start)) for start in ("0001", "0002", "0003"))
    rewritten = traced.request_id[:14] + "9" + traced.request_id[15:]
    entries = [{"request_id": plain.request_id, "response_flags": "-"}, {"request_id": rewritten, "response_flags": "UF,URX"}, {"response_flags": "NR"}]

    joined = with_flags(draw_of(plain, traced, unlogged, call(503)), entries)

    assert [record.flags for record in joined.records] == ["-", "UF,URX", "", ""]
