"""An OpenAI-compatible server that really runs small models, as a process of its own that a test can kill.

    python -m tests.model_server --port 8000 --base FOLDER --adapter duck=FOLDER --log requests.jsonl --faults

It serves ``/v1/models``, ``/v1/completions`` (prompts as token ids, one answer per request) and
``/v1/chat/completions`` with log-probabilities. Every answer that leaves whole is one line in the log. An adapter
named ``dead`` is listed, and never used. With ``--faults`` every request is first met by trouble: too many requests, an
error, a reply that is no JSON or lacks its parts, a connection that is cut, a reply that comes too late.
"""

import argparse
import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import torch

from interp.adapters import active_adapter
from interp.chat import Chat, encode_chat
from interp.decoding.sampling import Sampling
from interp.decoding.stopping import stop_ids
from interp.generation import generate
from interp.loading import load

FAULTS = ("busy", "error", "no json", "no choices", "no text", "cut", "slow")
SLOW = 2.5
"""Seconds of a reply that is too late for a client that waits for one second."""


class Models:
    """A base and its adapters; one request at a time."""

    def __init__(self, base, adapters, log, faults):
        torch.set_num_threads(1)
        self.base, self.adapters, self.log, self.faults = base, adapters, log, faults
        self.lm, self.lock = load(base, adapters=adapters), threading.Lock()
        self.met = {}

    def listing(self):
        entries = [{"id": "base", "root": str(self.base), "parent": None}]
        entries += [{"id": name, "root": str(path), "parent": "base"} for name, path in self.adapters.items()]
        return {"object": "list", "data": entries}

    def trouble(self, body):
        """The trouble that this request meets the first time; each request has the next one of the list."""
        key = json.dumps(body, sort_keys=True)
        if not self.faults or key in self.met or isinstance(body.get("prompt"), str):
            return None
        self.met[key] = FAULTS[len(self.met) % len(FAULTS)]
        return self.met[key]

    def completion(self, body):
        """One answer: a function of the model, the prompt and the seed."""
        prompt = body["prompt"]
        ids = tuple(prompt) if isinstance(prompt, list) else tuple(self.lm.tokenizer(prompt)["input_ids"])
        sampling = Sampling(body["max_tokens"], body["temperature"], body.get("top_p", 1.0), body.get("seed", 0))
        with self.lock, self.adapter(body["model"]):
            (answer,) = generate(self.lm, [Chat(ids, {}, "")], sampling=sampling)
        ended = answer.token_ids[-1] in stop_ids(self.lm)
        choice: dict[str, Any] = {"text": answer.text, "finish_reason": "stop" if ended else "length"}
        if body.get("return_token_ids"):
            choice["token_ids"] = list(answer.token_ids)
        if body.get("logprobs"):
            choice["logprobs"] = {"token_logprobs": self.logprobs(body["model"], [*ids, *answer.token_ids], len(ids))}
        return choice

    def chat(self, body):
        """The most probable token after a prompt with log-probabilities: a judge that has learned to write numbers."""
        chat = encode_chat(self.lm.tokenizer, body["messages"])
        vocabulary = self.lm.tokenizer.get_vocab()
        digits = [vocabulary[d] for d in "0123456789"]
        with self.lock, self.adapter(body["model"]), torch.inference_mode():
            logits = self.lm.base(input_ids=torch.tensor([chat.token_ids])).logits[0, -1].clone().float()
        best = digits[int(logits[digits].argmax())]
        logits = logits.index_add(0, torch.tensor([best]), torch.tensor([40.0]))
        values, order = logits.log_softmax(0).topk(body.get("top_logprobs", 1))
        tops = [
            {"token": str(self.lm.tokenizer.decode([i])).strip(), "logprob": v}
            for v, i in zip(values.tolist(), order.tolist(), strict=True)
        ]
        content = [{**tops[0], "top_logprobs": tops}]
        return {"message": {"content": tops[0]["token"]}, "finish_reason": "stop", "logprobs": {"content": content}}

    def logprobs(self, model, ids, start):
        with self.lock, self.adapter(model), torch.inference_mode():
            logits = self.lm.base(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)
        return [float(logits[i - 1, ids[i]]) for i in range(start, len(ids))]

    def adapter(self, name):
        return active_adapter(self.lm, None if name in ("base", "dead") else name)

    def note(self, path, body):
        with self.lock, self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"path": path, **body}) + "\n")


class Handler(BaseHTTPRequestHandler):
    """Answers for the models of the server."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.reply(200, cast("Server", self.server).models.listing())

    def do_POST(self):
        models, body = (
            cast("Server", self.server).models,
            json.loads(self.rfile.read(int(self.headers["Content-Length"]))),
        )
        known = ["base", *models.adapters]
        if body["model"] not in known:
            return self.reply(404, {"error": {"message": f"The model {body['model']} does not exist."}})
        make = models.chat if self.path.endswith("chat/completions") else models.completion
        trouble = models.trouble(body)
        match trouble:
            case "busy":
                return self.reply(429, {"error": {"message": "too many requests"}}, {"Retry-After": "0"})
            case "error":
                return self.reply(500, {"error": {"message": "out of memory"}})
            case "no json":
                return self.reply(200, b"<html>")
            case "no choices":
                return self.reply(200, {"choices": []})
            case "no text":
                return self.reply(200, {"choices": [{"text": None, "message": None}]})
            case "cut":
                self.close_connection = True
                return self.connection.close()
            case "slow":
                time.sleep(SLOW)
        data = {"choices": [make(body)], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        self.reply(200, data)
        if trouble != "slow":  # nobody waited for that one
            models.note(self.path, body)

    def reply(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    def log_message(self, format, *args):
        pass

    def handle(self):
        with contextlib.suppress(OSError, ValueError):  # the client gave up, or the connection was dropped
            super().handle()


class Server(ThreadingHTTPServer):
    """Many connections at once."""

    models: Models

    request_queue_size = 128
    daemon_threads = True
    allow_reuse_address = True


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapter", action="append", default=[])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--faults", action="store_true")
    options = parser.parse_args()
    adapters = {name: Path(path) for name, _, path in (text.partition("=") for text in options.adapter)}
    models = Models(options.base, adapters, options.log, options.faults)
    server = Server(("127.0.0.1", options.port), Handler)
    server.models = models
    server.serve_forever()


if __name__ == "__main__":
    main()
