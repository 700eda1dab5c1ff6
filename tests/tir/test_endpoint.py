"""The client of servers, against a server that misbehaves on purpose."""

import email.utils
import json
import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ctpo.tir import endpoint as endpoint_module
from ctpo.tir.calls import find_fenced_call, find_json_call
from ctpo.tir.endpoint import (
    AnswerFailed,
    ContextOverflow,
    Endpoint,
    EndpointError,
    Interrupted,
)
from tests.tir.stub_server import Scripted, piece


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


def generate(
    server, *script, api="chat", max_tokens=100, path="", call_end=call_end, trigger="`", **settings
):
    server.script[:] = script
    url = f"http://127.0.0.1:{server.server_port}{path}"
    client = Endpoint(url, "good", api=api, timeout=60, **settings)
    context = [{"role": "user", "content": "hello"}] if api == "chat" else "hello"
    try:
        return client.generate(
            context,
            temperature=0.5,
            seed=7,
            max_tokens=max_tokens,
            call_end=call_end,
            trigger=trigger,
        )
    finally:
        client.close()


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
        lambda h: h.stream(piece("It is "), {"error": "out of memory"}),
        lambda h: h.stream("data: {not json"),
        lambda h: h.stream("data: 3"),
        lambda h: h.connection.shutdown(socket.SHUT_RDWR),
    ],
    ids=["503", "429", "500", "cut", "error", "garbage", "number", "closed"],
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


FULL = '{"error": {"code": "context_length_exceeded", "message": "Requested tokens exceed"}}'


def test_fewer_tokens_are_asked_for_where_so_many_do_not_fit(server):
    full = lambda h: h.reply(400, FULL)  # noqa: E731
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
        generate(server, empty, *[lambda h: h.reply(400, FULL)] * 9, max_tokens=20)
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


# What servers do that no specification knows of.


FAIL = ["abort", "error", "insufficient_system_resource", "cancelled", "OTHER", "network_error",
        "MALFORMED_FUNCTION_CALL", "a word of tomorrow"]  # fmt: skip


@pytest.mark.parametrize("finish", FAIL)
def test_an_answer_that_was_not_finished_is_asked_for_again(server, finish):
    broken = lambda h: h.stream(piece("It is "), piece("", finish))  # noqa: E731
    turn = generate(server, broken, lambda h: h.stream(*FINE))
    assert (turn.text, turn.reason) == ("It is 42.", "stop")
    with pytest.raises(AnswerFailed, match=f"failed 3 times in a row.*{finish}"):
        generate(server, *[broken] * 3, retries=2)


@pytest.mark.parametrize(
    ("finish", "reason"),
    [(word, "stop") for word in ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence")]
    + [
        (word, "length")
        for word in ("length", "model_length", "max_tokens", "MAX_TOKENS", "max_output_tokens")
    ]
    + [(word, "filter") for word in ("content_filter", "SAFETY", "RECITATION", "refusal")]
    + [("model_context_window_exceeded", "context"), ({"type": "length", "length": 9}, "length")],
)
def test_finish_reasons_mean_what_their_servers_mean(server, finish, reason):
    turn = generate(server, lambda h: h.stream(piece("4"), piece("2", finish)))
    assert (turn.text, turn.reason, len(server.asked)) == ("42", reason, 1)


@pytest.mark.parametrize("end", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\r", "\n"])
def test_only_line_ends_of_event_streams_end_their_lines(server, end):
    said = json.dumps(piece(f"4{end}2", "stop"), ensure_ascii=False)
    turn = generate(server, lambda h: h.stream(f"data: {said}"))
    assert turn.text == f"4{end}2"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_may_end_in_any_of_the_three_ways(server, end):
    lines = [f"data: {json.dumps(event)}{end}{end}" for event in FINE]

    def raw(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream; charset=utf-8")
        handler.end_headers()
        handler.close_connection = True
        for byte in "".join(lines).encode():
            handler.wfile.write(bytes([byte]))

    assert generate(server, raw).text == "It is 42."


@pytest.mark.parametrize("separator", ["\n", "\n\n"])
def test_the_last_event_needs_no_blank_line_behind_it_and_others_not_between(server, separator):
    text = separator.join("data: " + json.dumps(event) for event in FINE)
    for tail in ("", "\n", "\ndata: [DONE]", "\ndata:[DONE]\n"):
        data = (text + tail).encode()

        def raw(handler, data=data):
            handler.send_response(200)
            handler.send_header("Content-Type", "text/event-stream")
            handler.end_headers()
            handler.close_connection = True
            handler.wfile.write(data)

        assert generate(server, raw).text == "It is 42."


def test_a_stream_may_end_without_a_reason_if_it_says_that_it_ends(server):
    turn = generate(server, lambda h: h.stream(piece("42")))
    assert (turn.text, turn.reason, len(server.asked)) == ("42", "stop", 1)


@pytest.mark.parametrize("nothing", [None, "", {}, []])
def test_an_error_that_is_none_is_none(server, nothing):
    events = [event | {"error": nothing} for event in FINE]
    assert generate(server, lambda h: h.stream(*events)).text == "It is 42."


@pytest.mark.parametrize(
    ("content", "text", "reasoning"),
    [
        ([{"type": "text", "text": "4"}, {"type": "text", "text": "2"}], "42", ""),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}], "", "hm"),
        ([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "4"}], "4", "hm"),
        ([{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "4"}], "4", "hm"),
        ({"type": "text", "text": "42"}, "42", ""),
        (["4", "2"], "42", ""),
        ([], "", ""),
    ],
)
def test_content_may_be_parts(server, content, text, reasoning):
    turn = generate(server, lambda h: h.stream(piece(content), piece("!", "stop")))
    assert (turn.text, turn.reasoning) == (text + "!", reasoning)


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm"},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"thinking": "hm"},
    ],
)
def test_thoughts_have_several_names_and_count_once(server, fields):
    turn = generate(server, lambda h: h.stream(piece(None, **fields), piece("42", "stop")))
    assert (turn.text, turn.reasoning) == ("42", "hm")


CODE = '{"code": "print(\\"1\\")"}'


def called(*pieces, finish="tool_calls"):
    first = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "python"}}
    more = [{"index": 0, "function": {"arguments": part}} for part in pieces]
    events = [piece("So."), *(piece(None, tool_calls=[call]) for call in (first, *more))]
    return lambda h: h.stream(*events, piece("", finish))


def json_end(text):
    call = find_json_call(text)
    return None if call is None else call.end


def test_calls_that_a_server_took_out_of_the_text_are_calls_again(server):
    for pieces in ((CODE,), tuple(CODE), (CODE[:5], CODE[5:])):
        for finish in ("tool_calls", "stop", "function_call"):
            turn = generate(server, called(*pieces, finish=finish), call_end=json_end, trigger=">")
            assert turn.reason == "call"
            assert turn.text.startswith("So.\n<tool_call>")
            call = find_json_call(turn.text)
            assert call is not None
            assert (call.code, call.problem) == ('print("1")', None)


def test_calls_that_a_server_took_out_are_a_failure_where_nobody_can_run_them(server):
    with pytest.raises(AnswerFailed, match="parser of tool calls.*hermes"):
        generate(server, called(CODE))
    assert len(server.asked) == 1


DATE = "Wed, 21 Oct 2065 07:28:00 GMT"


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("2.5", 2.5, 2.5),
        ("7", 7, 7),
        ("3600", 120, 120),
        (DATE, 120, 120),
        ("in", 3, 5),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 1),
        ("soon", 0, 1),
        ("-3", 0, 1),
        ("nan", 0, 1),
        ("inf", 0, 1),
    ],
)
def test_a_server_is_left_alone_for_as_long_as_it_asks_within_a_bound(server, header, least, most):
    class Clock(threading.Event):
        waits: list[float] = []

        def wait(self, timeout=None):
            self.waits.append(timeout)
            return False

    clock = Clock()
    clock.waits = []
    if header == "in":
        header = email.utils.formatdate(time.time() + 5, usegmt=True)
    for status in (429, 503):
        busy = lambda h, s=status: h.reply(s, "slowly", Retry_After=header)  # noqa: E731
        generate(server, busy, lambda h: h.stream(*FINE), stopped=clock)
        assert least <= clock.waits[-1] <= most


@pytest.mark.parametrize(
    "status", [408, 409, 425, 429, 499, 501, 505, 507, 511, 520, 522, 524, 525, 529, 530, 598, 599]
)
def test_every_status_that_may_pass_is_tried_again(server, status):
    turn = generate(server, lambda h: h.reply(status, "oh"), lambda h: h.stream(*FINE))
    assert (turn.text, len(server.asked)) == ("It is 42.", 2)


@pytest.mark.parametrize("status", [307, 308])
def test_a_request_sent_on_is_asked_there(server, status):
    there = f"http://127.0.0.1:{server.server_port}/there/chat/completions"
    turn = generate(
        server, lambda h: h.reply(status, "", Location=there), lambda h: h.stream(*FINE)
    )
    assert turn.text == "It is 42."
    assert [path for path, _, _ in server.asked] == ["/v1/chat/completions"] + [
        "/there/chat/completions"
    ]
    assert server.asked[0][1] == server.asked[1][1]


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_request_that_is_lost_on_its_way_says_where_it_should_go(server, status):
    there = f"http://127.0.0.1:{server.server_port}/there"
    with pytest.raises(EndpointError, match="sends requests on to .*/there.*give that address"):
        generate(server, lambda h: h.reply(status, "", Location=there))
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/api/v3", "/api/v3/chat/completions"),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/chat/completions", "/chat/completions"),
        ("/openai/d/chat/completions?api-version=2", "/openai/d/chat/completions?api-version=2"),
    ],
)
def test_an_address_is_used_as_it_is_given(server, path, asked):
    generate(server, lambda h: h.stream(*FINE), path=path)
    assert server.asked[0][0] == asked
    server.asked.clear()
    with pytest.raises(EndpointError, match=rf"at {asked.partition('?')[0]} with status 404"):
        generate(server, lambda h: h.reply(404, "not found"), path=path)


def test_an_address_of_the_other_api_is_refused():
    with pytest.raises(ValueError, match="not of the API 'completions'"):
        Endpoint("http://localhost/v1/chat/completions", "m", api="completions")


def test_without_a_key_none_is_sent_whatever_the_environment_says(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of somebody else")
    generate(server, lambda h: h.stream(*FINE))
    assert server.asked[0][2]["Authorization"] is None


ROOM = (
    "'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context "
    "length is 1000 tokens and your request has 10 input tokens (1000 > 1000 - 10)."
)


def test_as_many_tokens_are_asked_for_as_the_server_says_there_is_room_for(server, caplog):
    full = lambda h: h.reply(400, {"error": {"message": ROOM}})  # noqa: E731
    long = lambda h: h.stream(piece("4"), piece("2", "length"))  # noqa: E731
    turn = generate(server, full, long, max_tokens=1000)
    assert [body["max_tokens"] for _, body, _ in server.asked] == [1000, 990]
    assert (turn.text, turn.reason) == ("42", "context")
    assert "asks for 990 tokens" in caplog.text


@pytest.mark.parametrize("within", [False, True])
def test_a_prompt_that_is_too_long_is_asked_once(server, within):
    said = {"error": {"message": "prompt is too long: 5000 tokens > 4096 maximum", "code": 400}}
    full = lambda h: h.stream(said) if within else h.reply(400, said)  # noqa: E731
    with pytest.raises(ContextOverflow, match="too long"):
        generate(server, full, max_tokens=1000)
    assert len(server.asked) == 1


def test_a_context_that_fills_up_within_an_answer_ends_it(server):
    said = {"error": {"message": "the context size has been exceeded: context length 512"}}
    turn = generate(server, lambda h: h.stream(piece("4"), piece("2"), said))
    assert (turn.text, turn.reason) == ("42", "context")


def test_a_server_that_wants_one_token_more_than_it_says_gets_it(server):
    def said(asked):
        return (
            "Requested token count exceeds the model's maximum context length of 1000 tokens. You "
            f"requested a total of {10 + asked} tokens: 10 tokens from the input messages and "
            f"{asked} tokens for the completion."
        )

    script = [lambda h, n=n: h.reply(400, said(n)) for n in (1000, 990)]
    generate(server, *script, lambda h: h.stream(*FINE), max_tokens=1000)
    assert [body["max_tokens"] for _, body, _ in server.asked] == [1000, 990, 989]


@pytest.mark.parametrize("within", [False, True])
def test_a_budget_left_to_the_server_overflows_like_any_other(server, within):
    said = {"error": {"message": "maximum context length is 10 tokens", "type": "BadRequest"}}
    full = lambda h: h.stream(said) if within else h.reply(400, said)  # noqa: E731
    with pytest.raises(ContextOverflow):
        generate(server, full, extra={"max_tokens": None})
    assert server.asked[0][1]["max_tokens"] is None


def test_a_budget_under_another_name_is_the_one_that_shrinks(server):
    full = lambda h: h.reply(400, ROOM)  # noqa: E731
    extra = {"max_tokens": None, "max_completion_tokens": 1000}
    generate(server, full, lambda h: h.stream(*FINE), extra=extra)
    assert [body["max_completion_tokens"] for _, body, _ in server.asked] == [1000, 990]


PROGRAM = "So:\n```python\nprint('''\n```text\n''')\n```\nand then"


@given(st.lists(st.integers(0, len(PROGRAM)), max_size=8))
@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@example(list(range(len(PROGRAM))))
@example([PROGRAM.index("text")])
def test_a_call_is_the_same_however_the_stream_is_cut(server, cuts):
    edges = [0, *sorted(cuts), len(PROGRAM)]
    pieces = [piece(PROGRAM[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    turn = generate(server, lambda h: h.stream(*pieces, piece("", "stop")))
    assert (turn.text, turn.reason) == (PROGRAM.removesuffix("\nand then"), "call")


def test_a_call_at_the_very_end_is_one(server):
    for finish in ("stop", "length"):
        turn = generate(server, lambda h, f=finish: h.stream(piece("```python\n1\n```", f)))
        assert (turn.text, turn.reason) == ("```python\n1\n```", "call")
