"""Evaluations on servers that do what servers do when they are not well."""

import json
import socket
import threading
from collections import Counter

import pytest
from typer.testing import CliRunner

from ctpo.cli.app import app
from ctpo.evaluation.answers import Question
from ctpo.evaluation.asking import ServerModel, answer_all
from ctpo.evaluation.directory import EvaluationDirectory, read_answers
from ctpo.tasks import Problem
from ctpo.tir import EpisodeSettings
from ctpo.tir import endpoint as endpoint_module
from ctpo.tir.endpoint import Endpoint, EndpointError
from ctpo.tir.protocols import PLAIN
from tests.tir.stub_server import Scripted, piece


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(endpoint_module, "_FIRST_WAIT", 0.001)
    servers = []

    def start(answer):
        server = Scripted(answer)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def right(handler):
    handler.stream(piece("So \\boxed{"), piece(f"{handler.body['messages'][-1]['content']}}}"),
                   piece("", "stop"))  # fmt: skip


FAULTS = [
    lambda h: h.reply(529, "overloaded"),
    lambda h: h.reply(429, "slowly", Retry_After="0.01"),
    lambda h: h.reply(307, "", Location=f"{h.server.url}/elsewhere/chat/completions"),
    lambda h: h.stream(piece("So \\boxed{1}"), piece("", "abort")),
    lambda h: h.stream(piece("So \\boxed{1}"), end=False),
    lambda h: h.stream(piece("So \\boxed{1}"), {"error": {"message": "out of memory"}}),
    lambda h: h.stream("data: <html>"),
    lambda h: h.stream(end=False),
    lambda h: h.connection.shutdown(socket.SHUT_RDWR),
]


def questions(count):
    return [
        Question.of(
            "echo",
            Problem(
                id=f"p{number}",
                messages=({"role": "user", "content": str(number)},),
                answer=str(number),
                source="echo",
                split="test",
            ),
            0,
            0,
        )
        for number in range(count)
    ]


def ask(server, place, asked, sandbox, *, concurrency=64, retries=8):
    settings = EpisodeSettings(max_response_tokens=50, max_calls=0, protocol=PLAIN)
    endpoint = Endpoint(server.url, "m", retries=retries, timeout=30)
    model = ServerModel(endpoint, sandbox, settings, temperature=0, concurrency=concurrency)
    try:
        with EvaluationDirectory(place, {}) as directory:
            answer_all(asked, model, directory)
    finally:
        endpoint.close()
    return list(read_answers(place))


def test_of_64_at_once_with_faults_no_answer_is_lost_or_given_twice(serve, sandbox, tmp_path):
    lock = threading.Lock()
    seen: Counter[int] = Counter()
    faults: Counter[int] = Counter()
    everyone = threading.Barrier(64)

    def answer(handler):
        number = int(handler.body["messages"][-1]["content"])
        with lock:
            seen[number] += 1
            first = seen[number] == 1 and not handler.path.startswith("/elsewhere")
        if first and number < 64:
            everyone.wait(60)  # all of them are under way at once
        if first and number % 20 == 7:  # 5 %
            fault = number // 20 % len(FAULTS)
            faults[fault] += 1
            FAULTS[fault](handler)
        else:
            right(handler)

    server = serve(answer)
    asked = questions(400)
    answers = ask(server, tmp_path / "out", asked, sandbox)
    assert sorted(a.key for a in answers) == sorted(q.key for q in asked)
    assert {(a.outcome, a.finish_reason) for a in answers} == {("right", "answered")}
    assert sum(faults.values()) == 20
    assert len(faults) == len(FAULTS)
    # Nobody was asked again but those whose answer did not come.
    assert sum(seen.values()) == len(asked) + sum(faults.values())


def test_a_server_that_never_gives_an_answer_ends_the_run_soon(serve, sandbox, tmp_path):
    server = serve(lambda h: h.stream(piece("4"), piece("", "abort")))
    with pytest.raises(EndpointError, match="all of the first 8 answers failed.*abort"):
        ask(server, tmp_path / "out", questions(400), sandbox, concurrency=4, retries=0)
    assert len(server.asked) < 20
    assert all(answer.failed for answer in read_answers(tmp_path / "out"))


def data(tmp_path, count=8):
    file = tmp_path / "echo.jsonl"
    rows = ({"problem": str(number), "answer": str(number)} for number in range(count))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def evaluate(server, tmp_path, name="out", *options):
    command = ["eval", "m", "--endpoint", server.url, "--data", str(data(tmp_path))]
    command += ["--samples", "1", "--protocol", "plain", "--no-instructions", "--retries", "1"]
    command += ["--output", str(tmp_path / name), "--max-response-tokens", "50"]
    return CliRunner().invoke(app, [*command, "--timeout", "30", *options])


def beside(tmp_path, name="out"):
    summary = json.loads((tmp_path / name / "summary.json").read_text())
    (benchmark,) = summary["benchmarks"].values()
    return benchmark["beside"], benchmark["figures"]["avg@1"]


def test_aborted_answers_are_failures_and_the_same_command_mends_them(serve, tmp_path, caplog):
    def half(handler):
        if int(handler.body["messages"][-1]["content"]) % 2:
            handler.stream(piece("So"), piece("", "abort"))
        else:
            right(handler)

    server = serve(half)
    shown = evaluate(server, tmp_path)
    assert shown.exit_code == 1
    assert "failed to give 4 of 8 answers" in caplog.text
    shares, figure = beside(tmp_path)
    assert (shares["failed"], shares["truncated"], shares["no_answer"]) == (0.5, 0, 0)
    assert (figure["mean"], figure["problems"]) == (1, 4)
    lines = (tmp_path / "out/answers.jsonl").read_text().splitlines()
    good = [line for line in lines if json.loads(line)["finish_reason"] == "answered"]
    assert len(lines) == 8 and len(good) == 4

    # The loss that is none is not shown as one.
    serve_whole = serve(right)
    assert evaluate(serve_whole, tmp_path, "whole").exit_code == 0
    command = ["compare", str(tmp_path / "whole"), str(tmp_path / "out")]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 1
    assert "of 8 answers 4 failed" in shown.stdout
    assert "difference +0.0 points" in shown.stdout

    server.answer = right
    before = len(server.asked)
    shown = evaluate(server, tmp_path)
    assert shown.exit_code == 0, shown.output
    assert len(server.asked) == before + 4
    assert beside(tmp_path)[0]["failed"] == 0
    assert (tmp_path / "out/answers.jsonl").read_text().splitlines()[:4] == good
    assert CliRunner().invoke(app, command).exit_code == 0


@pytest.mark.parametrize(
    ("reply", "share"),
    [
        (lambda h: h.stream(piece("So \\boxed{"), piece("", "content_filter")), "filtered"),
        (lambda h: h.stream(piece("So"), piece("", "max_tokens")), "truncated"),
        (lambda h: h.reply(400, "prompt is too long: 9 tokens > 8 maximum"), "context_full"),
        (lambda h: h.stream({"error": {"code": "context_length_exceeded"}}), "context_full"),
    ],
)
def test_every_end_that_is_none_has_a_share_of_its_own(serve, tmp_path, reply, share):
    def some(handler):
        number = int(handler.body["messages"][-1]["content"])
        reply(handler) if number < 2 else right(handler)

    shown = evaluate(serve(some), tmp_path)
    assert shown.exit_code == 0, shown.output
    shares, _ = beside(tmp_path)
    names = ("truncated", "context_full", "filtered", "failed")
    assert {name: shares[name] for name in names} == dict.fromkeys(names, 0) | {share: 0.25}


def test_answers_that_came_as_reasoning_only_are_warned_of(serve, tmp_path, caplog):
    def thinks(handler):
        handler.stream(piece(None, reasoning_content="So \\boxed{1}"), piece("", "stop"))

    shown = evaluate(serve(thinks), tmp_path)
    assert shown.exit_code == 0, shown.output
    assert "whole text of 8 of 8 answers as `reasoning`" in caplog.text
    assert beside(tmp_path)[0]["all_reasoning"] == 1


def test_one_answer_with_an_odd_line_end_ends_no_run(serve, tmp_path):
    def odd(handler):
        said = f"\u2028So\u2029 \x85\\boxed{{{handler.body['messages'][-1]['content']}}}"
        handler.stream("data: " + json.dumps(piece(said, "stop"), ensure_ascii=False))

    assert evaluate(serve(odd), tmp_path).exit_code == 0
    assert beside(tmp_path)[1]["mean"] == 1


def test_no_budget_of_ones_own_and_a_full_context_are_an_outcome(serve, tmp_path):
    server = serve(lambda h: h.reply(400, "maximum context length is 10 tokens"))
    shown = evaluate(server, tmp_path, "out", "--request-fields", '{"max_tokens": null}')
    assert shown.exit_code == 0, shown.output
    assert len(server.asked) == 8
    assert beside(tmp_path)[0]["context_full"] == 1
