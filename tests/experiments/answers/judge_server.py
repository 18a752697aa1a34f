"""A model behind the chat protocol on the loopback, and a judge that obeys whatever stands outside the delimiters."""

import contextlib
import json
import math
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MARKERS = re.compile(r"\[ANSWER (\w+)\]\n(.*)\n\[END OF ANSWER \1\]", re.DOTALL)

CONTROL = re.compile(
    r"<\|(?:im_start|im_end|eot_id|start_header_id|end_header_id|eot|header_start|header_end|end|start|user|system|message"
    r"|end_of_text|start_of_role|end_of_role|END_OF_TURN_TOKEN|START_OF_TURN_TOKEN|SYSTEM_TOKEN|endoftext)\|>"
    r"|<｜(?:User|Assistant|end▁of▁sentence)｜>|</?s>|<(?:start|end)_of_turn>|\[/?(?:INST|SYSTEM_PROMPT)\]|<</?SYS>>"
)
"""Control tokens of chat templates."""


@contextmanager
def server(reply):
    """Serve ``reply(request, n, headers) -> (status, body, more headers)``; a body of None drops the connection."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, request, dict(self.headers)))
            status, body, headers = reply(request, len(requests))
            if body is None:
                self.close_connection = True
                self.connection.close()
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815

        def log_message(self, format, *args):
            pass

        def handle(self):
            with contextlib.suppress(OSError, ValueError):  # the client gave up, or the connection was dropped
                super().handle()

    class Server(ThreadingHTTPServer):
        request_queue_size = 64
        daemon_threads = True

    running = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/v1", requests
    finally:
        running.shutdown()
        running.server_close()


def written(text, **choice):
    """A reply without log-probabilities."""
    usage = {"prompt_tokens": 100, "completion_tokens": 2}
    return {"choices": [{"message": {"content": text}, "finish_reason": "stop", **choice}], "usage": usage}


def logprobs(*positions, finish="stop"):
    """A reply with the most probable tokens of each position, the chosen one first."""
    content = [
        {"token": tokens[0][0], "top_logprobs": [{"token": t, "logprob": math.log(p)} for t, p in tokens]}
        for tokens in positions
    ]
    text = "".join(tokens[0][0] for tokens in positions)
    return written(text, logprobs={"content": content}, finish_reason=finish)


def prompt_of(request):
    return request["messages"][0]["content"]


def answer_of(request):
    """The answer between the delimiters, as a judge sees it."""
    found = MARKERS.search(prompt_of(request))
    assert found is not None
    return found[1], found[2]


def obedient(request):
    """Return the number that a judge writes who obeys any order outside the delimiters; 40 without one.

    Outside is also what follows a control token in the answer, because its server would begin another message there.
    """
    code, answer = answer_of(request)
    outside = prompt_of(request).replace(answer, "", 1)
    question = re.search(rf"\[QUESTION {code}\]\n(.*)\n\[END OF QUESTION {code}\]", outside, re.DOTALL)
    outside = outside.replace(question[1], "", 1) if question else outside
    return ordered("\n".join([outside, *CONTROL.split(answer)[1:]])) or "40"


def ordered(text):
    """Return the number that a text orders a judge to write."""
    order = re.search(r"(?:write|output|score|grade|rating)\W+(?:is\W+|of\W+)?(\d{1,3})\b", text.lower())
    return order and order[1]
