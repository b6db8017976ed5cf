"""The function that resizes images, the pictures by which it is judged, and what the classic watchdog leaves behind; hermetic."""

import base64
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusters.paths import CHECKOUT
from workloads.image_processor import pictures
from workloads.image_processor.client import as_told, forks, printed, requests_of, runs, without
from workloads.records import CallRecord, Draw

APP = CHECKOUT / "workloads" / "image_processor" / "app"


def processed(content, query=""):
    """Start the function as the watchdog does and return its exit code, what it wrote, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "processor"], input=content, cwd=APP, env={**os.environ, "Http_Query": query}, capture_output=True, check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


def test_an_image_is_written_in_the_size_that_is_asked_for():
    code, out, said = processed(pictures.quartered(64, 48), "width=32&height=24&format=ppm")

    assert (code, said) == (0, "")
    assert pictures.read(out) == pictures.Picture(32, 24, pictures.QUARTERS)


def test_without_a_size_and_a_format_it_keeps_its_own_as_png():
    code, out, _ = processed(pictures.quartered(8, 4))

    assert (code, out[:8]) == (0, b"\x89PNG\r\n\x1a\n")
    assert (int.from_bytes(out[16:20]), int.from_bytes(out[20:24])) == (8, 4)


@pytest.mark.parametrize(("content", "query", "said"), [
    (b"this is no image", "", "not an image"), (b"", "", "not an image"), (pictures.quartered(8, 8)[:40], "", "not an image"),
    (pictures.quartered(8, 8), "width=0", "width is '0'"), (pictures.quartered(8, 8), "height=-3", "height is '-3'"),
    (pictures.quartered(8, 8), "width=many", "width is 'many'"), (pictures.quartered(8, 8), "format=gif", "format is GIF"),
    (pictures.quartered(8, 8), "width=4000&height=4000", "8 x 8 to 4000 x 4000: more than 4000000 pixels"),
])
def test_what_cannot_be_done_ends_it_with_one_line(content, query, said):
    code, out, told = processed(content, query)

    assert (code, out, told.count("\n")) == (1, b"", 1)
    assert told.startswith(f"image-processor: {said}")


EVEN = st.integers(1, 30).map(lambda half: 2 * half)


@given(width=EVEN, height=EVEN)
def test_a_picture_is_read_as_it_was_made(width, height):
    assert pictures.read(pictures.quartered(width, height)) == pictures.Picture(width, height, pictures.QUARTERS)


@settings(max_examples=20, deadline=None)
@given(width=EVEN, height=EVEN, cut=st.integers(1, 40))
def test_what_is_no_whole_picture_is_none(width, height, cut):
    whole = pictures.quartered(width, height)

    assert pictures.read(whole[:-cut]) is None
    assert pictures.read(whole + b"x") is None
    assert pictures.read(b"") is None


def test_a_picture_that_was_turned_is_another():
    upright = pictures.quartered(2, 2)
    turned = upright[:-12] + bytes(upright[-6:]) + bytes(upright[-12:-6])

    assert pictures.read(turned).quarters != pictures.QUARTERS


def test_a_picture_has_even_sides():
    with pytest.raises(ValueError, match="even sides"):
        pictures.quartered(3, 2)


OWN = "2026/11/30 18:38:02 "
ENVIRONMENT = "PATH=/bin\nHOSTNAME=pod-1\nfprocess=env\nHttp_X_Request_Id={}\nHttp_X_Call_Id=c\nHttp_Method=POST\n"


def test_each_process_is_read_from_what_it_was_told():
    log = f"{OWN}Forking fprocess.\n{OWN}Query  a=b\n{ENVIRONMENT.format('r1')}{OWN}Duration: 0.1s\n{OWN}Forking fprocess.\n"

    assert forks(log) == 2
    assert runs(log) == [{"x-request-id": "r1", "x-call-id": "c", "method": "POST"}]


def test_processes_that_end_together_are_told_apart():
    log = f"{OWN}Forking fprocess.\n{OWN}Forking fprocess.\n{ENVIRONMENT.format('r1')}{ENVIRONMENT.format('r2')}{OWN}Duration: 0.1s\n"

    assert [one["x-request-id"] for one in runs(log)] == ["r1", "r2"]
    assert (runs(""), forks("")) == ([], 0)


def test_what_was_printed_is_what_the_watchdog_did_not_say():
    assert printed(f"{OWN}Forking fprocess.\nr1\nr2\n{OWN}Duration: 0.1s\n\n") == ["r1", "r2"]


def test_metrics_are_counted_by_status_and_method():
    text = 'x 1\nhttp_requests_total{code="200",method="post"} 7\nhttp_requests_total{code="500",method="get"} 1e+00\nhttp_requests_total_other 3\n'

    assert requests_of(text) == {"200 post": 7, "500 get": 1}
    assert without({"200 post": 7, "500 get": 1}, {"200 post": 2, "500 get": 1}) == {"200 post": 5}


def draw(*bodies):
    records = tuple(CallRecord(at, 200, "", 1.0, 0.0, body=base64.b64encode(body.encode()).decode()) for at, body in enumerate(bodies))
    return Draw("u", "GET", len(records), 1, records, "", 1.0)


def test_an_environment_is_read_as_a_greeter_s_answer():
    (told, other) = as_told(draw(ENVIRONMENT.format("r1"), "upstream connect error"), "f").records

    assert (told.version, told.pod, told.seen["x-request-id"], told.body) == ("f", "pod-1", ["r1"], "")
    assert (other.version, other.pod, other.seen, other.body) == ("", "", {}, "")
