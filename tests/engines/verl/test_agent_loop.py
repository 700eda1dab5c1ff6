from typing import Any

import pytest

pytest.importorskip("verl", reason="verl is not installed (it has no release for Python 3.13)")

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry

from ctpo.engines.verl import (
    agent_loop,
    plugin,  # noqa: F401 - as verl loads it
)
from ctpo.engines.verl.episodes import turns as turns_module
from ctpo.engines.verl.episodes.settings import LoopSettings
from ctpo.engines.verl.episodes.turns import ids_with, stop_hint
from ctpo.engines.verl.paths import PATHS
from ctpo.sandbox import Execution
from ctpo.tir import run_episodes
from ctpo.tir.protocols import FENCE, HERMES, PLAIN, PROTOCOLS
from tests.engines.verl.scripted import InProcess, ScriptedGenerator, ScriptedServer, play_episode

PROMPT = [{"role": "user", "content": "Find the gcd of 12 and 18."}]
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "logprobs": True}


def fence(code, behind=""):
    return f"```python\n{code}\n```{behind}"


def hermes(code, behind=""):
    return f'<tool_call>{{"name": "python", "arguments": {{"code": "{code}"}}}}</tool_call>{behind}'


@pytest.fixture(autouse=True)
def node(sandbox, monkeypatch):
    monkeypatch.setattr(agent_loop, "node_sandbox", lambda settings: InProcess(sandbox))


@pytest.fixture
def play(tokenizer, tmp_path):
    """Return a function that runs a script of turns in verl's loop."""

    def run(*turns, sampling=SAMPLING, server=None, **changes):
        server = server or ScriptedServer([ids_of(tokenizer, turn) for turn in turns])
        return play_episode(server, tokenizer, tmp_path, PROMPT, sampling, **changes), server

    return run


def ids_of(tokenizer, turn):
    """A turn that ends in § ends with the token that ends a turn."""
    text, ended, _ = turn.partition("§")
    ids = tokenizer.encode(text, add_special_tokens=False)
    return ids + [tokenizer.eos_token_id] * bool(ended)


SCRIPTS = {
    "two calls and an answer": (
        "fence",
        [fence("print(6 * 7)", "\nnever read"), fence("print(1)"), "so \\boxed{42}§"],
    ),
    "an answer at once": ("fence", ["it is \\boxed{6}§"]),
    "a block that is no call": ("fence", ["```text\nabc\n```\nthen " + fence("print(2)"), "ok§"]),
    "one call too many": ("fence", [fence("print(1)")] * 6),
    "an unclosed block": ("fence", ["```python\nprint(1)\n§"]),
    "a program that fails": ("fence", [fence("1 / 0"), "\\boxed{1}§"]),
    "out of tokens": ("fence", ["the sum of 12 and 34 " * 80]),
    "an output that leaves no room": ("fence", ["12 " * 180 + fence("print('7' * 900)"), "no§"]),
    "hermes": ("hermes", ["first " + hermes("print(6 * 7)", "tail"), "\\boxed{42}§"]),
    "hermes that is not JSON": ("hermes", ["<tool_call>{</tool_call>", "\\boxed{1}§"]),
    "plain": ("plain", [fence("print(1)", " is text here \\boxed{3}§")]),
}


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize(
    "server",
    [
        {},
        {"heeds": False},
        {"break_off": 3},
        {"break_off": 1, "word": "abort"},
        {"busy": 5, "word": "abort"},
    ],
    ids=["stops at closings", "never stops", "breaks off", "a token at a time", "busy at first"],
)
def test_an_episode_is_token_for_token_that_of_run_episodes(
    name, server, tokenizer, play, sandbox, monkeypatch
):
    """Whatever pieces the server gives the turns in."""
    monkeypatch.setattr(turns_module, "_PAUSE", 0.0)
    protocol, turns = SCRIPTS[name]
    scripted = [ids_of(tokenizer, turn) for turn in turns]
    settings = {"protocol": protocol, "max_output_tokens": 60}
    output, _ = play(server=ScriptedServer(scripted, **server), settings=settings)

    episode = LoopSettings.read(settings).episode(400)
    messages = [{"role": "system", "content": PROTOCOLS[protocol].instructions}, *PROMPT]
    (expected,) = run_episodes(
        ScriptedGenerator(tokenizer, scripted),
        sandbox,
        tokenizer,
        [messages],
        episode,
        temperature=1.0,
        seed=0,
    )
    assert output.prompt_ids == expected.prompt_ids
    assert output.response_ids == expected.response_ids
    assert output.response_mask == [int(m) for m in expected.mask]
    assert output.response_logprobs == expected.sampler_logprobs
    record = output.extra_fields["episode"]
    assert record["assistant_text"] == expected.assistant_text
    assert record["finish_reason"] == expected.finish_reason
    assert record["statuses"] == [r.status for r in expected.tool_results]
    assert output.num_turns == 1 + len(expected.turns)
    assert len(output.response_ids) <= 400


@given(
    programs=st.lists(st.sampled_from(["pass", "print('7' * 60)", "1 / 0"]), max_size=4),
    protocol=st.sampled_from(["fence", "hermes"]),
    budget=st.integers(1, 260),
    max_calls=st.integers(0, 4),
)
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_the_budgets_an_episode_ends_as_that_of_run_episodes(
    tokenizer, play, sandbox, programs, protocol, budget, max_calls
):
    write = fence if protocol == "fence" else hermes
    scripted = [ids_of(tokenizer, turn) for turn in [*map(write, programs), "so \\boxed{6}§"]]
    settings = {"protocol": protocol, "max_calls": max_calls, "instructions": ""}
    output, _ = play(
        server=ScriptedServer(scripted), settings=settings, rollout={"response_length": budget}
    )
    (expected,) = run_episodes(
        ScriptedGenerator(tokenizer, scripted),
        sandbox,
        tokenizer,
        [PROMPT],
        LoopSettings.read(settings).episode(budget),
        temperature=1.0,
        seed=0,
    )
    assert output.response_ids == expected.response_ids
    assert output.extra_fields["episode"]["finish_reason"] == expected.finish_reason
    assert output.extra_fields["episode"]["statuses"] == [r.status for r in expected.tool_results]


def test_the_budget_is_spent_to_the_last_token(play, tokenizer):
    output, server = play("12 " * 800)
    assert len(output.response_ids) == 400
    assert output.extra_fields["episode"]["finish_reason"] == "length"
    assert [r[2]["max_tokens"] for r in server.requests] == [400]


def test_a_context_shorter_than_the_lengths_asked_for_bounds_the_answer(play):
    output, _ = play("12 " * 800, rollout={"max_model_len": 250}, settings={"instructions": ""})
    assert len(output.prompt_ids) + len(output.response_ids) == 250


def test_what_a_tool_prints_never_is_the_policys_own_text(play):
    output, _ = play(fence("print('\\\\boxed{42}')"), "nothing§")
    record = output.extra_fields["episode"]
    assert record["assistant_text"] == fence("print('\\\\boxed{42}')") + "nothing"


@pytest.mark.parametrize(
    ("turns", "void"),
    [
        ([fence("print(1)"), "\\boxed{1}§"], 0),
        (["I do not know.§"], 1),
        ([fence("print(1)"), "well§"], 1),
        (["\\boxed{1§"], 1),
        (["\\boxed{3} and \\boxed{}§"], 0),
        (["```python\nprint(1)§"], 1),
        (["12 " * 800], 1),
    ],
)
def test_a_turn_with_neither_call_nor_box_is_marked_void(play, turns, void):
    output, _ = play(*turns)
    assert output.extra_fields["episode"]["void_turns"] == void


def test_the_systems_message_is_the_protocols_unless_the_problem_has_one(tokenizer, tmp_path):
    def prompt(messages, **settings):
        server = ScriptedServer([ids_of(tokenizer, "1§")])
        output = play_episode(server, tokenizer, tmp_path, messages, SAMPLING, settings=settings)
        return tokenizer.decode(output.prompt_ids)

    assert f"<|im_start|>system\n{FENCE.instructions}<|im_end|>" in prompt(PROMPT)
    assert f"<|im_start|>system\n{PLAIN.instructions}<|im_end|>" in prompt(PROMPT, protocol="plain")
    assert "system\nBe brief.<" in prompt(PROMPT, instructions="Be brief.")
    assert "system" not in prompt(PROMPT, instructions="")
    own = [{"role": "system", "content": "Mine."}, *PROMPT]
    assert prompt(own).count("system") == 1 and "system\nMine.<" in prompt(own)


def test_validation_goes_the_same_way_with_its_own_sampling(play, tokenizer):
    greedy = {"temperature": 0, "top_p": 1.0, "top_k": -1, "logprobs": False}
    script = [ids_of(tokenizer, t) for t in (fence("print(1)"), "\\boxed{1}§")]
    server = ScriptedServer(script, logprobs=False)
    output, server = play(server=server, sampling=greedy)
    assert {(p["temperature"], p["top_k"]) for _, _, p in server.requests} == {(0, -1)}
    assert output.response_logprobs is None
    assert output.extra_fields["episode"]["statuses"] == ["success"]
    assert len({request for request, _, _ in server.requests}) == 1


def test_a_server_that_forgets_the_logprobs_is_told_so(play, tokenizer):
    server = ScriptedServer([ids_of(tokenizer, "12 and 34§")], logprobs=False)
    with pytest.raises(RuntimeError, match="tokens and 0 log-probabilities"):
        play(server=server)


def test_a_server_that_says_nothing_is_an_error(play):
    with pytest.raises(RuntimeError, match="no token"):
        play("")


def test_the_weights_versions_span_the_whole_episode(play):
    output, _ = play(fence("print(1)"), fence("print(2)"), "\\boxed{1}§")
    assert output.extra_fields["min_global_steps"] == 0
    assert output.extra_fields["max_global_steps"] == 2 + 5


def test_vllm_is_asked_to_stop_by_text_and_others_by_token(tokenizer):
    assert stop_hint(FENCE, tokenizer, "vllm")["stop"] == ["```\n"]
    ids = stop_hint(FENCE, tokenizer, "sglang")["stop_token_ids"]
    assert all("```" in tokenizer.decode([i]) for i in ids)
    assert set(ids) == ids_with("```", tokenizer) != set()
    assert stop_hint(PLAIN, tokenizer, "vllm") == {}
    assert stop_hint(HERMES, tokenizer, "vllm")["stop"] == ["</tool_call>"]


def test_a_long_prompt_is_refused_by_name_and_not_cut(play):
    with pytest.raises(ValueError, match="data.max_prompt_length=20"):
        play("1§", rollout={"prompt_length": 20})


def test_verl_knows_the_loop_by_the_plug_in_and_by_the_yaml():
    loops: Any = OmegaConf.load(PATHS["agent_loop"])
    (in_yaml,) = loops
    assert _agent_loop_registry["ctpo"]["_target_"] == in_yaml["_target_"]
    assert in_yaml["name"] == agent_loop.LOOP


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"max_turns": 3}, "episodes.max_turns means nothing"),
        ({"sandbox": {"cpu": 3}}, "sandbox.cpu means nothing"),
        ({"protocol": "xml"}, "protocol is 'xml'"),
        ({"max_calls": -1}, "max_calls is -1"),
        ({"max_output_tokens": 5, "max_output_chars": 5}, "give one"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(play, settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        play("1§", settings=settings)


class Failing:
    """The node's sandbox, of which each program's first so many attempts fail."""

    def __init__(self, sandbox, failures):
        self.sandbox, self.failures = sandbox, failures
        self.asked = []

    async def run(self, code):
        self.asked.append(code)
        execution = await self.sandbox.arun(code)
        if self.asked.count(code) <= self.failures:
            return Execution.failed("gone", wall_seconds=0.0, queue_seconds=0.0)
        return execution


def test_a_program_the_sandbox_lost_is_run_again_once(play, sandbox, monkeypatch):
    failing = Failing(sandbox, 1)
    monkeypatch.setattr(agent_loop, "node_sandbox", lambda settings: failing)
    output, _ = play(fence("print(6 * 7)"), "\\boxed{42}§")
    record = output.extra_fields["episode"]
    assert failing.asked == ["print(6 * 7)"] * 2
    assert (record["statuses"], record["failures"]) == (["success"], [])


def test_a_program_lost_twice_marks_the_episode_which_goes_on(play, sandbox, monkeypatch):
    failing = Failing(sandbox, 2)
    monkeypatch.setattr(agent_loop, "node_sandbox", lambda settings: failing)
    output, _ = play(fence("print(6 * 7)"), "\\boxed{42}§")
    record = output.extra_fields["episode"]
    assert (record["statuses"], record["failures"]) == (["sandbox-failure"], ["gone"])
    assert record["finish_reason"] == "answered"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_that_a_policy_writes_makes_the_loop_raise(protocol, tokenizer, tmp_path, node):
    """Tokens at random, among which calls and boxes lie in pieces."""
    import torch

    pieces = ["```", "```python\n", "\n```\n", "<tool_call>", "</tool_call>", '{"name": "python"']
    pieces += ["\\boxed{", "}", "{", '"', "\\", "\n", "print(1)", "\ufffd", "<tool_response>"]
    random = torch.Generator().manual_seed(0)
    for _ in range(60):
        chosen = torch.randint(len(pieces) + 2, (30,), generator=random).tolist()
        ids = []
        for i in chosen:
            if i < len(pieces):
                ids += tokenizer.encode(pieces[i], add_special_tokens=False)
            else:
                ids += torch.randint(len(tokenizer), (3,), generator=random).tolist()
        server = ScriptedServer([ids] * 8)
        output = play_episode(
            server, tokenizer, tmp_path, PROMPT, SAMPLING, settings={"protocol": protocol}
        )
        assert 0 < len(output.response_ids) == len(output.response_mask) <= 400
        assert len(output.response_logprobs) == len(output.response_ids)


def test_the_seconds_of_programs_are_kept(play):
    output, _ = play(fence("print(sum(range(3000000)))"), "\\boxed{1}§")
    record = output.extra_fields["episode"]
    assert record["own_seconds"] > 0 and record["queue_seconds"] >= 0
    assert output.metrics.tool_calls >= record["own_seconds"]
