"""The client of servers, against a server that misbehaves on purpose."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ctpo.tir import endpoint as endpoint_module
from ctpo.tir.calls import find_fenced_call
from ctpo.tir.endpoint import ContextOverflow, Endpoint, EndpointError, Interrupted


class Scripted(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.script = [], []


class Handler(BaseHTTPRequestHandler):
    server: "Scripted"

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply(200, {"data": [{"id": "good"}]})

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.server.asked.append((self.path, json.loads(self.rfile.read(length)), self.headers))
        step = self.server.script.pop(0)
        step(self)

    def reply(self, status, content, **headers):
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def stream(self, *events, end=True):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for event in events:
            text = event if isinstance(event, str) else "data: " + json.dumps(event)
            self.wfile.write((text + "\n\n").encode())
            self.wfile.flush()
        if end:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


def piece(text, finish=None, **more):
    return {"choices": [{"delta": {"content": text} | more, "finish_reason": finish}]}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(endpoint_module, "_FIRST_WAIT", 0.001)
    server = Scripted()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def call_end(text):
    call = find_fenced_call(text)
    return None if call is None else call.end


def generate(server, *script, api="chat", context="hello", max_tokens=100, **settings):
    server.script[:] = script
    url = f"http://127.0.0.1:{server.server_port}"
    client = Endpoint(url, "good", api=api, timeout=60, **settings)
    if api == "chat":
        context = [{"role": "user", "content": context}]
    return client.generate(
        context, temperature=0.5, seed=7, max_tokens=max_tokens, call_end=call_end, trigger="`"
    )


FINE = (piece("It is "), piece("42."), piece("", "stop"))


def test_pieces_are_put_together_and_the_request_says_everything(server):
    turn = generate(server, lambda h: h.stream(*FINE), key="secret", extra={"top_k": -1})
    assert (turn.text, turn.reason, turn.tokens) == ("It is 42.", "stop", 2)
    ((path, body, headers),) = server.asked
    assert path == "/v1/chat/completions"
    assert body == {
        "model": "good", "messages": [{"role": "user", "content": "hello"}], "temperature": 0.5,
        "top_p": 1.0, "seed": 7, "max_tokens": 100, "stream": True, "top_k": -1,
    }  # fmt: skip
    assert headers["Authorization"] == "Bearer secret"


def test_completions_send_a_text_and_read_a_text(server):
    events = [{"choices": [{"text": text, "finish_reason": None}]} for text in ("4", "2")]
    events.append({"choices": [{"text": "", "finish_reason": "length"}]})
    turn = generate(server, lambda h: h.stream(*events), api="completions")
    assert (turn.text, turn.reason) == ("42", "length")
    assert server.asked[0][0] == "/v1/completions"
    assert server.asked[0][1]["prompt"] == "hello"


def test_a_call_ends_the_turn_and_the_line_is_hung_up(server):
    endless = threading.Event()

    def talk(handler):
        handler.stream(piece("```python\n1"), piece("\n```\nand then"), end=False)
        endless.wait()  # the client must not wait for the end

    try:
        turn = generate(server, talk)
    finally:
        endless.set()
    assert (turn.text, turn.reason) == ("```python\n1\n```", "call")


def test_reasoning_is_kept_apart_and_usage_counts(server):
    events = [
        piece("", reasoning_content="Hm, \\boxed{1}?"),
        piece("42"),
        piece("", "stop") | {"usage": {"completion_tokens": 17}},
    ]
    turn = generate(server, lambda h: h.stream(": comment", *events))
    assert (turn.text, turn.reasoning, turn.tokens) == ("42", "Hm, \\boxed{1}?", 17)


def test_a_server_that_does_not_stream_is_understood_too(server):
    message = {"message": {"content": "x\n```python\n1\n```\nafter"}, "finish_reason": "stop"}
    turn = generate(server, lambda h: h.reply(200, {"choices": [message]}))
    assert (turn.text, turn.reason) == ("x\n```python\n1\n```", "call")


@pytest.mark.parametrize(
    "failure",
    [
        lambda h: h.reply(503, "busy"),
        lambda h: h.reply(429, "slowly", Retry_After="0"),
        lambda h: h.reply(500, "oh"),
        lambda h: h.stream(piece("It is "), end=False),
        lambda h: h.stream(piece("It is ")),
        lambda h: h.stream(piece("It is "), {"error": "out of memory"}),
        lambda h: h.stream("data: {not json"),
        lambda h: h.stream("data: 3"),
        lambda h: h.connection.shutdown(socket.SHUT_RDWR),
    ],
    ids=["503", "429", "500", "cut", "no end", "error", "garbage", "number", "closed"],
)
def test_what_may_pass_is_tried_again_and_nothing_of_it_stays(server, failure):
    turn = generate(server, failure, failure, lambda h: h.stream(*FINE))
    assert turn.text == "It is 42."
    assert len(server.asked) == 3
    assert server.asked[0][1] == server.asked[2][1]


def test_what_does_not_pass_is_an_error_that_tells_the_last_reason(server):
    with pytest.raises(EndpointError, match="failed 3 times in a row.*status 503: busy"):
        generate(server, *[lambda h: h.reply(503, "busy")] * 3, retries=2)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_a_refusal_is_told_at_once_with_the_models_there_are(server, status):
    with pytest.raises(EndpointError) as caught:
        generate(server, lambda h: h.reply(status, {"error": "no model good2"}))
    assert f"status {status}" in str(caught.value)
    assert "no model good2" in str(caught.value)
    assert "models there: good" in str(caught.value)
    assert len(server.asked) == 1


OVERFLOWS = [
    "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
    '{"error": {"code": "context_length_exceeded", "message": "Requested tokens exceed"}}',
    "the request exceeds the available context size, try increasing it",
]  # fmt: skip


@pytest.mark.parametrize("message", OVERFLOWS)
def test_fewer_tokens_are_asked_for_where_so_many_do_not_fit(server, message):
    full = lambda h: h.reply(400, message)  # noqa: E731
    turn = generate(server, full, full, lambda h: h.stream(*FINE), max_tokens=100)
    assert turn.text == "It is 42."
    assert [body["max_tokens"] for _, body, _ in server.asked] == [100, 50, 25]
    server.asked.clear()
    with pytest.raises(ContextOverflow):
        generate(server, *[full] * 9, max_tokens=100)
    assert [body["max_tokens"] for _, body, _ in server.asked] == [100, 50, 25]


def test_a_stream_that_ends_without_a_word_is_asked_again_for_its_reason(server):
    empty = lambda h: h.stream(end=False)  # noqa: E731
    with pytest.raises(ContextOverflow):
        generate(server, empty, *[lambda h: h.reply(400, OVERFLOWS[0])] * 9, max_tokens=20)
    assert [body["stream"] for _, body, _ in server.asked] == [True, False]
    server.asked.clear()
    whole = {"choices": [{"message": {"content": "42"}, "finish_reason": "stop"}]}
    assert generate(server, empty, lambda h: h.reply(200, whole)).text == "42"
    server.asked.clear()
    busy = lambda h: h.reply(503, "busy")  # noqa: E731
    assert generate(server, empty, busy, lambda h: h.stream(*FINE)).text == "It is 42."
    assert [body["stream"] for _, body, _ in server.asked] == [True, False, True]


def test_nobody_there_is_an_error_with_the_address():
    with pytest.raises(EndpointError, match="no server answers at http://127.0.0.1:9"):
        Endpoint("http://127.0.0.1:9", "m").models()


def test_who_asked_for_the_end_waits_for_no_retry(server):
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Interrupted):
        generate(server, lambda h: h.reply(503, "busy"), stopped=stopped)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "must begin with http"),
        ({"api": "responses"}, "chat or completions"),
        ({"retries": -1}, "0 or more"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Endpoint(**({"url": "http://localhost", "model": "m"} | settings))
