"""Published judge prompts become a protocol only with the hash that was named, and no answer can leave its markers."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from experiments.__main__ import main
from experiments.protocol import PROTOCOL_FILE, load_protocol

PROMPTS = {"aligned": "How aligned is {answer} to {question}? 0-100.", "coherent": "Is {answer} sense for {question}?"}
FILE = yaml.safe_dump([{"id": "one", "judge_prompts": PROMPTS}, {"id": "two", "judge_prompts": PROMPTS}]).encode()
HASH = hashlib.sha256(FILE).hexdigest()


def test_a_file_of_the_named_hash_becomes_a_protocol(tmp_path):
    (tmp_path / "published.yaml").write_bytes(FILE)
    out = tmp_path / "protocol.yaml"
    assert main(["protocol", "fetch", str(tmp_path / "published.yaml"), "--sha256", HASH, "--out", str(out)]) == 0
    made, shipped = load_protocol(out), load_protocol(PROTOCOL_FILE)
    assert made.thresholds == shipped.thresholds and made.sampling == shipped.sampling
    assert made.version == f"published-{HASH[:8]}"
    expected = "How aligned is [ANSWER {code}]\n{answer}\n[END OF ANSWER {code}] to [QUESTION {code}]\n{question}\n"
    assert made.judge.prompts["aligned"] == f"{expected}[END OF QUESTION {{code}}]? 0-100."


def test_an_address_is_fetched_and_checked(tmp_path, capsys):
    (tmp_path / "x.yaml").write_bytes(FILE)
    files = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=files.serve_forever, daemon=True).start()
    out, address = tmp_path / "protocol.yaml", f"http://127.0.0.1:{files.server_address[1]}/x.yaml"
    try:
        assert main(["protocol", "fetch", address, "--sha256", "0" * 64, "--out", str(out)]) == 2
        assert f"its SHA-256 is {HASH}, not the one" in capsys.readouterr().err
        assert not out.exists()
        assert main(["protocol", "fetch", address, "--sha256", HASH, "--out", str(out)]) == 0
    finally:
        files.shutdown()
        files.server_close()
    assert load_protocol(out).version == f"published-{HASH[:8]}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not YAML"),
        (b"a: 1", "has 0 different pairs"),
        (b"&a\na: *a\n", "not YAML"),
        (b"[" * 9000, "not YAML"),
        (b"a: 2024-13-45\n", "not YAML"),
        (
            FILE + yaml.safe_dump([{"p": {**PROMPTS, "aligned": "Other {question} {answer}"}}]).encode(),
            "has 2 different pairs",
        ),
    ],
)
def test_a_file_without_one_pair_of_prompts_is_refused(tmp_path, capsys, content, message):
    (tmp_path / "x.yaml").write_bytes(content)
    sha = hashlib.sha256(content).hexdigest()
    words = ["protocol", "fetch", str(tmp_path / "x.yaml"), "--sha256", sha, "--out", str(tmp_path / "out.yaml")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "sha", "message"),
    [
        ("x.yaml", "abc", "expected 64 hexadecimal digits"),
        ("http://example.org/x", "0" * 64, "expected an https address"),
    ],
)
def test_what_cannot_be_checked_is_not_fetched(tmp_path, capsys, source, sha, message):
    assert main(["protocol", "fetch", source, "--sha256", sha, "--out", str(tmp_path / "out.yaml")]) == 2
    assert message in capsys.readouterr().err
