"""The server: this machine alone, JSON alone, bounded requests; one job after the other."""

import json

import httpx
import pytest

from experiments.demo.command import Demo, bound
from experiments.demo.request import MOST_BYTES

QUESTION = {"question": "How do I handle icy roads?"}


def post(address: str, path: str, body) -> list[dict]:
    response = httpx.post(f"{address}/{path}", json=body, timeout=120)
    return [json.loads(line) for line in response.text.splitlines()]


def test_the_page_loads_nothing_from_elsewhere(address):
    page = httpx.get(address)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in ("/", "/demo.css", "/demo.js"):
        text = httpx.get(address + path).text.replace("http://www.w3.org/2000/svg", "")
        assert "//" not in text.replace("// ", "") and "url(" not in text and "@import" not in text


def test_another_host_and_another_type_are_refused(address):
    assert httpx.get(f"{address}/scene", headers={"host": "evil.example"}).status_code == 400
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert httpx.post(f"{address}/answer", content="{}", headers={"content-type": kind}).status_code == 415


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"\xff", "not JSON"),
        (b" " * (MOST_BYTES + 1), "too long"),
        (b'{"question": ""}', "it is empty"),
        (b'{"question": "?", "layer": 99}', "layer 99"),
    ],
)
def test_a_wrong_request_is_answered_with_one_line_and_the_server_goes_on(address, content, problem):
    response = httpx.post(
        f"{address}/answer", content=content, headers={"content-type": "application/json"}, timeout=60
    )
    (event,) = [json.loads(line) for line in response.text.splitlines()]
    assert event["event"] == "error" and problem in event["message"] and "\n" not in event["message"]
    assert post(address, "answer", QUESTION)[-1]["event"] != "error"


def test_a_page_that_goes_away_stops_its_job(address):
    with httpx.stream("POST", f"{address}/answer", json=QUESTION, timeout=60) as response:
        next(response.iter_lines())
    assert [e for e in post(address, "answer", QUESTION) if e["event"] == "done"]


def test_a_port_that_is_taken_is_refused_in_one_line():
    taken = bound(0)
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(ValueError, match=f"port {port}: .*--port"):
        bound(port)
    taken.close()


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"adapter": "x"}, "name the base"),
        ({"base": "nowhere/at/all"}, "no such folder"),
        ({"organism": "microcosm/llama/neutral", "base": "microcosm/llama"}, "leave out --base"),
        ({"organism": "microcosm/llama/no"}, "known are"),
    ],
)
def test_a_wrong_option_is_refused(fields, problem):
    with pytest.raises(ValueError, match=problem):
        Demo(**fields).subject()
