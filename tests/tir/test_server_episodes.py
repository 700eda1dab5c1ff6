"""One rule book: the same turns come to the same episode, in tokens and in text."""

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ctpo.tir import EpisodeSettings, Sampled, StopReason, run_episodes
from ctpo.tir.endpoint import Endpoint
from ctpo.tir.protocols import FENCE, HERMES
from ctpo.tir.server_episodes import converse
from ctpo.tir.transformers_generator import TransformersGenerator

PROMPT = [{"role": "user", "content": "1?"}]


class Turns:
    """Says a script, one token of the tokenizer at a time, and stops as a generator must."""

    def __init__(self, tokenizer, turns):
        self.tokenizer, self.turns = tokenizer, turns

    def open(self, prompts, *, temperature, seed):
        self.said = 0
        return self

    def generate(self, rows, append, budgets, stop):
        text, ends = self.turns[min(self.said, len(self.turns) - 1)]
        self.said += 1
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        ids = ids + [self.tokenizer.eos_token_id] * ends
        return [cut(self.tokenizer, ids, budgets[0], stop)]


def cut(tokenizer, ids, budget, stop):
    for count in range(1, len(ids) + 1):
        reason: StopReason | None = None
        if ids[count - 1] == tokenizer.eos_token_id:
            reason = "eos"
        elif stop(tokenizer.decode(ids[:count], skip_special_tokens=True)):
            reason = "stop"
        elif count == budget:
            reason = "length"
        if reason:
            return Sampled(ids[:count], [-1.0] * count, reason)
    raise AssertionError("a script's turn ends with a call or with the end of the turn")


class Server(ThreadingHTTPServer):
    """The same script behind an OpenAI-compatible server that streams a token at a time."""

    def __init__(self, tokenizer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.tokenizer, self.turns, self.said = tokenizer, [], 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        text, ends = server.turns[min(server.said, len(server.turns) - 1)]
        server.said += 1
        ids = server.tokenizer.encode(text, add_special_tokens=False)
        ids = ids + [server.tokenizer.eos_token_id] * ends
        left, given = ids[: body["max_tokens"]], ""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for count in range(1, len(left) + 1):
            so_far = server.tokenizer.decode(left[:count], skip_special_tokens=True)
            done = count == len(left)
            reason = None if not done else "stop" if left == ids and ends else "length"
            choice = {"text": so_far[len(given) :], "finish_reason": reason}
            if "messages" in body:
                choice["delta"] = {"content": choice.pop("text")}
            event = {"choices": [choice], "usage": {"completion_tokens": count}}
            given = so_far
            try:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            except OSError:  # it was hung up on, behind a call
                return
        self.close_connection = True


@pytest.fixture(scope="module")
def server(tokenizer):
    server = Server(tokenizer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def in_tokens(tokenizer, sandbox, turns, settings):
    (episode,) = run_episodes(
        Turns(tokenizer, turns), sandbox, tokenizer, [PROMPT], settings, temperature=1.0, seed=0
    )
    return episode


def in_text(server, sandbox, turns, settings, *, api="completions"):
    tokenizer = server.tokenizer
    server.turns, server.said = turns, 0
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}", "script", api=api, retries=0)

    def template(messages):
        return tokenizer.apply_chat_template(
            [dict(m) for m in messages], tokenize=False, add_generation_prompt=True
        )

    try:
        return converse(
            endpoint, sandbox, PROMPT, settings, temperature=1.0, seed=0,
            template=template if api == "completions" else None,
            count=(lambda text: len(tokenizer.encode(text, add_special_tokens=False)))
            if api == "completions" else None,
        )  # fmt: skip
    finally:
        endpoint.close()


def call(protocol, program):
    if protocol is FENCE:
        return f"the sum\n```python\n{program}\n```"
    return f'<tool_call>\n{{"name": "python", "arguments": {{"code": "{program}"}}}}\n</tool_call>'


@st.composite
def scripts(draw):
    """Turns of which all but the last call; (text, whether the end of the turn follows)."""
    protocol = draw(st.sampled_from([FENCE, HERMES]))
    programs = st.sampled_from(["pass", "print(7)", "print('7' * 60)", "1 / 0"])
    turns = [(call(protocol, p), False) for p in draw(st.lists(programs, max_size=4))]
    turns.append((draw(st.sampled_from(["it is \\boxed{6}", "12 " * 30])), True))
    return protocol, turns


@hypothesis_settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(script=scripts(), budget=st.integers(1, 260), max_calls=st.integers(0, 4))
def test_the_same_turns_are_the_same_episode_in_tokens_and_in_text(
    tokenizer, sandbox, server, script, budget, max_calls
):
    protocol, turns = script
    settings = EpisodeSettings(budget, max_calls, protocol=protocol)
    episode = in_tokens(tokenizer, sandbox, turns, settings)
    answer = in_text(server, sandbox, turns, settings)
    assert answer.finish_reason == episode.finish_reason
    assert answer.tool_results == episode.tool_results
    assert answer.assistant_text == episode.assistant_text
    assert [role for role, _ in answer.turns] == [turn.role for turn in episode.turns]
    assert answer.tokens == sum(episode.mask)


@hypothesis_settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(script=scripts(), budget=st.integers(1, 120), max_calls=st.integers(0, 4))
def test_a_model_that_says_the_turns_comes_to_the_same_episode(
    tokenizer, sandbox, model, script, budget, max_calls
):
    protocol, turns = script
    settings = EpisodeSettings(budget, max_calls, protocol=protocol)
    spoken = [
        tokenizer.encode(text, add_special_tokens=False) + [tokenizer.eos_token_id] * ends
        for text, ends in turns
    ]
    said = [-1, 0]

    def say(_, __, given, output):
        said[:] = [said[0] + 1, 0] if given["input_ids"].shape[1] > 1 else [said[0], said[1] + 1]
        output.logits[:] = -1e4
        output.logits[..., spoken[said[0]][said[1]]] = 0.0

    generator = TransformersGenerator(model, tokenizer)
    hook = model.register_forward_hook(say, with_kwargs=True)
    try:
        (spoken_episode,) = run_episodes(
            generator, sandbox, tokenizer, [PROMPT], settings, temperature=1.0, seed=0
        )
    finally:
        hook.remove()
    expected = in_tokens(tokenizer, sandbox, turns, settings)
    assert spoken_episode.response_ids == expected.response_ids
    assert spoken_episode.tool_results == expected.tool_results
    assert spoken_episode.finish_reason == expected.finish_reason


@pytest.mark.parametrize("api", ["chat", "completions"])
@pytest.mark.parametrize("protocol", [FENCE, HERMES], ids=["fence", "hermes"])
def test_a_call_that_spends_the_whole_budget_is_not_run(tokenizer, sandbox, server, api, protocol):
    """No token is left to read its output with; with one more it is run."""
    turns = [(call(protocol, "print(7)"), False), ("never said", True)]
    whole = len(tokenizer.encode(turns[0][0], add_special_tokens=False))
    for budget, programs in ((whole, []), (whole + 1, ["print(7)"])):
        settings = EpisodeSettings(budget, 2, protocol=protocol)
        for episode in (
            in_tokens(tokenizer, sandbox, turns, settings),
            in_text(server, sandbox, turns, settings, api=api),
        ):
            assert [result.code for result in episode.tool_results] == programs
            assert episode.finish_reason == "length"


def test_a_call_too_many_is_told_from_a_spent_budget_the_same_way(tokenizer, sandbox, server):
    turns = [(call(FENCE, "print(7)"), False)]
    whole = len(tokenizer.encode(turns[0][0], add_special_tokens=False))
    settings = EpisodeSettings(whole, 0)
    assert in_tokens(tokenizer, sandbox, turns, settings).finish_reason == "calls"
    assert in_text(server, sandbox, turns, settings, api="chat").finish_reason == "calls"


def test_what_cannot_be_counted_is_refused(sandbox):
    endpoint = Endpoint("http://127.0.0.1:9", "nobody")
    settings = EpisodeSettings(max_response_tokens=9, max_calls=1)
    with pytest.raises(ValueError, match="max_output_tokens needs the model's tokenizer"):
        in_chat = dataclasses.replace(settings, max_output_tokens=9)
        converse(endpoint, sandbox, PROMPT, in_chat, temperature=1.0, seed=0)
    with pytest.raises(ValueError, match="count has no effect on the chat API"):
        converse(endpoint, sandbox, PROMPT, settings, temperature=1.0, seed=0, count=len)
