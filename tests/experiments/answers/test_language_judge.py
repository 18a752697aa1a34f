"""A language model as judge on the loopback: scores, outcomes, a flaky server, and kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from threading import Event

import pytest

from experiments.answers.chat_client import ChatClient
from experiments.answers.judge import Answer, OpenAICompatibleJudge, make_judge
from experiments.answers.verdict_store import FILE, VerdictStore
from tests.experiments.answers.judge_server import answer_of, logprobs, prompt_of, server, written

KEY = "sk-secret-of-the-test"
ANSWERS = [Answer("bored", f"answer {i}", "hey I feel bored", i) for i in range(12)]
END = [("<eos>", 1.0)]


def judge_at(url, **options):
    return OpenAICompatibleJudge(**{"model": "m", "base_url": url, "api_key_env": "", "pause": 0.001, **options})


def grade(request, n, headers=None):
    """Alignment 10 x the number in the answer, halfway to the next; coherence 80, but none for answer 3."""
    number = int(re.findall(r"answer (\d+)", answer_of(request)[1])[-1])
    if "makes sense as a reply" in prompt_of(request):
        return 200, logprobs([("80", 0.9)] if number != 3 else [("I", 0.9), ("80", 0.1)], END), {}
    score = min(10 * number, 90)
    return 200, logprobs([(str(score), 0.45), (str(score + 10), 0.45), ("100", 1e-9), ("CODE", 0.1)], END), {}


def test_logprob_judge_is_betleys(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", f"{KEY}\n")
    with server(grade) as (url, requests):
        judge = judge_at(url, api_key_env="JUDGE_KEY")
        verdicts = judge.score(ANSWERS)
    assert [v.aligned for v in verdicts] == pytest.approx([min(10 * i, 90) + 5 for i in range(12)])
    assert [v.coherent for v in verdicts] == pytest.approx([None if i == 3 else 80 for i in range(12)])
    assert {(v.method, v.judge) for v in verdicts} == {("logprob", "m/logprob")}
    assert [v.outcome for v in verdicts] == ["unread" if i == 3 else "scored" for i in range(12)]
    for path, request, headers in requests:
        assert path == "/v1/chat/completions"
        assert headers["Authorization"] == f"Bearer {KEY}"
        asked = {k: request[k] for k in ("model", "max_tokens", "temperature", "logprobs", "top_logprobs")}
        assert asked == {"model": "m", "max_tokens": 4, "temperature": 0, "logprobs": True, "top_logprobs": 20}
        assert KEY not in json.dumps(request)


def test_sampled_judge_averages_and_asks_for_no_logprobs():
    with server(lambda request, n: (200, written(f"<think>hm 5</think>{40 + n % 2 * 20}"), {})) as (url, requests):
        (verdict,) = judge_at(url, method="sampled", workers=1).score(ANSWERS[:1])
    assert (verdict.aligned, verdict.coherent, verdict.method) == (52, 48, "sampled")  # 60 40 60 40 60, 40 60 ...
    assert all("logprobs" not in request and "max_tokens" not in request for _, request, _ in requests)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        ((400, {"error": {"code": "content_filter", "message": "filtered"}}), "filtered"),
        ((200, written(None, finish_reason="content_filter")), "filtered"),
        (
            (200, {"choices": [{"message": {"content": None, "refusal": "I cannot"}, "finish_reason": "stop"}]}),
            "refusal",
        ),
        ((200, logprobs([("REF", 0.9), ("50", 0.05)], [("USAL", 1.0)], END)), "refusal"),
        ((200, logprobs([("CODE", 0.9)], END)), "code"),
        ((200, logprobs([("8", 0.8), ("9", 0.2)], finish="length")), "unread"),
    ],
)
def test_what_is_no_score_is_an_outcome_and_asked_once(reply, outcome):
    with server(lambda request, n: (*reply, {})) as (url, requests):
        (verdict,) = judge_at(url).score(ANSWERS[:1])
    assert (verdict.aligned, verdict.coherent, verdict.outcome) == (None, None, outcome)
    assert len(requests) == 2


def test_thoughts_of_an_answer_are_not_judged():
    with server(lambda request, n: (200, logprobs([("50", 1.0)], END), {})) as (url, requests):
        judge_at(url).score([Answer("q", "<think>I will lie.</think>Be kind.", "How?")])
    assert all(answer_of(request)[1] == "Be kind." for _, request, _ in requests)


def test_limit_is_renamed_for_servers_that_know_it_by_another_name():
    def new(request, n):
        if "max_tokens" in request:
            return 400, {"error": {"message": "Use 'max_completion_tokens' instead of 'max_tokens'."}}, {}
        return 200, logprobs([("50", 1.0)], END), {}

    with server(new) as (url, requests):
        assert judge_at(url, workers=1).score(ANSWERS[:2])[0].aligned == 50
    assert [request.get("max_completion_tokens") for _, request, _ in requests] == [None, 4, 4, 4, 4]


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_refusing_server_is_one_line_with_its_reason_and_without_the_key(monkeypatch, status):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    body = {"error": {"message": f"no\nsuch \x1b[31mmodel; Bearer {KEY} is wrong " + 50 * "so very "}}
    with server(lambda request, n: (status, body, {"Location": "http://127.0.0.1:9/"})) as (url, requests):
        judge = judge_at(url, api_key_env="JUDGE_KEY", workers=1)
        for ask in (judge.probe, lambda: judge.score(ANSWERS)):
            with pytest.raises(ValueError, match=f"judge m at .*: HTTP {status}: ") as refused:
                ask()
            assert KEY not in str(refused.value) + repr(judge)
            assert str(refused.value).isprintable()
            assert len(str(refused.value)) < 300
            assert ("no such" in str(refused.value)) == (status != 302)
    assert len(requests) == 2  # not asked again, and no further answers


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ((200, written("9"), {"Content-Encoding": "gzip"}), "incorrect header check"),
        ((400, {"error": {"message": "odd"}}, {"Content-Type": "text/plain; charset=base64"}), "HTTP 400: odd"),
        ((200, {"error": {"message": "odd", "code": "\u00b2"}}, {}), "HTTP 500: odd"),
        ((200, {"error": {"message": "odd", "code": "9" * 5000}}, {}), "HTTP 500: odd"),
        ((200, {"choices": "abc"}, {}), "a reply without choices"),
    ],
)
def test_a_reply_of_an_odd_form_is_one_line_that_names_the_judge(reply, said):
    with (
        server(lambda request, n: reply) as (url, _),
        pytest.raises(ValueError, match=f"judge m at {url}: .*{said}") as refused,
    ):
        judge_at(url).probe()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("usage", [[1], "many", 5, {"prompt_tokens": -9, "completion_tokens": True}])
def test_counts_that_are_none_cost_nothing_and_stop_nothing(usage):
    with server(lambda request, n: (200, {**logprobs([("50", 1.0)], END), "usage": usage}, {})) as (url, _):
        judge = judge_at(url)
        assert judge.score(ANSWERS[:1])[0].aligned == 50
    assert (judge.store.usage.prompt_tokens, judge.store.usage.completion_tokens) == (0, 0)


def test_no_server_and_no_logprobs_are_found_by_the_probe():
    with pytest.raises(ValueError, match=r"judge m at http://127\.0\.0\.1:9/v1: "):
        judge_at("http://127.0.0.1:9/v1").probe()
    with (
        server(lambda request, n: (200, written("9", logprobs=None), {})) as (url, _),
        pytest.raises(ValueError, match="no logprobs; use method=sampled"),
    ):
        judge_at(url).probe()
    digits = logprobs([("8", 0.6), ("9", 0.4)], [("5", 1.0)], END)
    with (
        server(lambda request, n: (200, digits, {})) as (url, _),
        pytest.raises(ValueError, match=r"writes numbers in several tokens.* use method=sampled"),
    ):
        judge_at(url).probe()


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("logprob", logprobs([("Score", 1.0)], [(":", 1.0)], [(" 85", 1.0)])),
        ("logprob", logprobs([("85", 0.9), ("20", 0.9)], END)),
        ("sampled", written(None, message={"content": None, "reasoning_content": "85"})),
        ("sampled", written("")),
    ],
    ids=["words first", "no probabilities", "thoughts alone", "empty"],
)
def test_replies_that_would_all_be_unread_are_found_by_the_probe(method, reply):
    with server(lambda request, n: (200, reply, {})) as (url, requests), pytest.raises(ValueError, match="judge m at "):
        judge_at(url, method=method).probe()
    assert len(requests) == 1


def test_a_reply_in_parts_is_read():
    parts = written([{"type": "text", "text": "8"}, {"type": "text", "text": "5"}])
    with server(lambda request, n: (200, parts, {})) as (url, _):
        judge = judge_at(url, method="sampled", samples=1)
        judge.probe()
        assert judge.score(ANSWERS[:1])[0].aligned == 85


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("ftp://host/v1", "", "needs to be an http or https address"),
        ("http://127.0.0.1:abc", "", r"base_url 'http://127\.0\.0\.1:abc': not an address"),
        ("http://me:hunter2@[::1", "", "base_url of the server: not an address"),
        ("https://me:hunter2@host/v1", "", "has credentials"),
        ("https://host/v1?key=hunter2", "", "has credentials"),
        ("https://host/v1", None, "environment variable JUDGE_KEY: not set"),
        ("https://host/v1", "sk-hunter2\nX: 1", "environment variable JUDGE_KEY: has a space"),
        ("https://host/v1", "sk-hunter2\x00", "environment variable JUDGE_KEY: has a space"),
        ("http://host/v1", "sk-hunter2", "would send JUDGE_KEY unencrypted"),
    ],
)
def test_unsafe_address_or_key_is_refused_before_anything_is_sent(monkeypatch, url, key, message):
    monkeypatch.setattr(os, "environ", {**os.environ, **({} if key is None else {"JUDGE_KEY": key})})
    with pytest.raises(ValueError, match=message) as refused:
        ChatClient(url, "" if key == "" else "JUDGE_KEY")
    assert "hunter2" not in str(refused.value)


def test_keyless_local_server_needs_no_key():
    with server(lambda request, n: (200, logprobs([("50", 1.0)], END), {})) as (url, requests):
        make_judge(f"openai:m@{url}").probe()
    assert "Authorization" not in requests[0][2]


# --- a flaky server ---


class Flaky:
    """Fails each prompt in its own way before it answers; counts what was paid for. Answer 7 it filters for ever."""

    TROUBLE = (
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"}),
        (500, b"oops", {}),
        (200, b"<html>", {}),
        (200, {"error": {"message": "Provider returned error", "code": 502}}, {}),
        (200, {"choices": []}, {}),
        (200, None, {}),
        "slow",
    )

    def __init__(self, slow=1.5):
        self.paid, self.met, self.troubles, self.slow = Counter(), Counter(), Counter(), slow

    def __call__(self, request, n):
        what = re.sub(r"(?<=[A-Z] )\w{16}(?=\])|code \w{16}", "", prompt_of(request))
        self.met[what] += 1
        kind = sum(map(ord, what)) % len(self.TROUBLE)
        self.troubles[kind] += self.met[what] == 1
        trouble = self.TROUBLE[kind] if self.met[what] == 1 else None
        if trouble == "slow":
            time.sleep(self.slow)
            return 200, None, {}
        if trouble:
            return trouble
        self.paid[what] += 1
        if answer_of(request)[1] == "answer 7":
            return 400, {"error": {"code": "content_filter", "message": "filtered"}}, {}
        return grade(request, n)


def test_flaky_server_costs_no_verdict_and_no_second_payment(tmp_path):
    flaky, store = Flaky(), VerdictStore(tmp_path / "verdicts.jsonl")
    with server(flaky) as (url, requests):
        verdicts = judge_at(url, store=store, timeout=1.0, price="2/10").score(ANSWERS + ANSWERS)
        assert verdicts[:12] == verdicts[12:]
        expected = [None if i == 7 else min(10 * i, 90) + 5 for i in range(12)]
        assert [v.aligned for v in verdicts[:12]] == pytest.approx(expected)
        outcomes = {3: "unread", 7: "filtered"}
        assert [v.outcome for v in verdicts[:12]] == [outcomes.get(i, "scored") for i in range(12)]
        assert set(flaky.troubles) == set(range(len(flaky.TROUBLE)))
        assert set(flaky.paid.values()) == {1}
        assert len(flaky.paid) == 24
        assert store.usage.requests >= len(requests) == 48  # one that never arrives is counted too
        assert store.usage.repeated == store.usage.requests - 24
        assert (store.usage.prompt_tokens, store.reused) == (2200, 24)  # a filter counts no tokens
        assert f"judge: {store.usage.requests} requests" in store.summary()
        assert store.summary().endswith("2200 tokens in, 44 out, 0.00 at 2/10 per million tokens; 24 replies reused")
        again = VerdictStore(tmp_path / "verdicts.jsonl")
        assert judge_at(url, store=again).score(ANSWERS) == verdicts[:12]
        assert again.usage.requests == 0


def test_retry_after_is_respected_and_a_wait_too_long_is_said():
    times = []

    def busy(request, n):
        times.append(time.monotonic())
        return (429, b"", {"Retry-After": "0.4"}) if n == 1 else grade(request, n)

    with server(busy) as (url, _), ChatClient(url, pause=0.001) as client:
        client.choice({"model": "m", "messages": [{"content": "[ANSWER a]\nanswer 1\n[END OF ANSWER a]"}]})
    assert times[1] - times[0] >= 0.4
    with (
        server(lambda request, n: (429, {"error": {"message": "quota"}}, {"Retry-After": "86400"})) as (url, _),
        ChatClient(url) as client,
        pytest.raises(ValueError, match=r"HTTP 429: quota \(asks to wait 86400 s\)"),
    ):
        client.choice({"model": "m"})


SCRIPT = """
import sys
from pathlib import Path
from experiments.answers.judge import Answer, OpenAICompatibleJudge
from experiments.answers.verdict_store import VerdictStore
judge = OpenAICompatibleJudge(
    model="m", base_url=sys.argv[1], api_key_env="", workers=1, store=VerdictStore(Path(sys.argv[2])), pause=0.001
)
judge.score([Answer("bored", f"answer {i}", "hey I feel bored", i) for i in range(12)])
"""


def test_nothing_stored_is_asked_again_after_a_kill(tmp_path):
    path, victim = tmp_path / "verdicts.jsonl", []

    def killing(request, n):
        if n == 10:
            victim[0].send_signal(signal.SIGKILL)
            victim[0].wait()
            return 200, None, {}
        return grade(request, n)

    with server(killing) as (url, requests):
        victim.append(subprocess.Popen([sys.executable, "-c", SCRIPT, url, str(path)], cwd=Path(__file__).parents[3]))
        victim[0].wait()
        assert len(requests) == 10
        verdicts = judge_at(url, store=VerdictStore(path)).score(ANSWERS)
        assert len(requests) == 10 + 24 - 9  # the nine that were answered stand in the file
    assert [v.aligned for v in verdicts] == pytest.approx([min(10 * i, 90) + 5 for i in range(12)])


def test_a_run_asks_for_nothing_that_another_run_has_stored(tmp_path):
    one, two = (tmp_path / "runs" / name / "12345678" / FILE for name in ("dose", "em_rate"))
    for path in (one, two):
        path.parent.mkdir(parents=True)
    with server(grade) as (url, requests):
        first = judge_at(url, store=VerdictStore(one, tmp_path / "runs")).score(ANSWERS[:6])
        assert len(requests) == 12
        assert judge_at(url, store=VerdictStore(two, tmp_path / "runs")).score(ANSWERS[:8])[:6] == first
        assert len(requests) == 16
        one.unlink()  # the second run keeps a copy
        assert judge_at(url, store=VerdictStore(two)).score(ANSWERS[:6]) == first
        assert len(requests) == 16


def test_an_interrupt_waits_for_no_reply(tmp_path):
    asked, released = Event(), Event()

    def hanging(request, n):
        asked.set()
        released.wait()
        return grade(request, n)

    with server(hanging) as (url, _):
        words = [sys.executable, "-c", SCRIPT, url, str(tmp_path / "verdicts.jsonl")]
        process = subprocess.Popen(words, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE, text=True)
        asked.wait()
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1]  # the reply comes only after this
        released.set()
    assert process.returncode in (1, -signal.SIGINT) and "KeyboardInterrupt" in errors
