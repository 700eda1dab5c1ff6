import dataclasses

import pytest

from ctpo.sandbox import Sandbox
from ctpo.tir import EpisodeSettings, Sampled, SandboxFailure, StopReason, run_episodes
from ctpo.tir.transformers_generator import TransformersGenerator

SETTINGS = EpisodeSettings(max_response_tokens=400, max_calls=2)
PROMPT = [{"role": "user", "content": "Find the gcd of 12 and 18."}]


class Script:
    """A policy that says what it is told to, turn by turn, and remembers what it was shown."""

    def __init__(self, tokenizer, *turns):
        self.tokenizer = tokenizer
        self.turns = list(turns)
        self.shown = []

    def open(self, prompts, *, temperature, seed):
        self.left = [list(self.turns) for _ in prompts]
        return self

    def generate(self, rows, append, budgets, stop):
        results = []
        for row, ids, budget in zip(rows, append, budgets, strict=True):
            self.shown.append(self.tokenizer.decode(ids))
            text = self.left[row].pop(0)
            reason: StopReason = "stop" if stop(text) else "eos"
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            if reason == "eos":
                ids.append(self.tokenizer.eos_token_id)
            if len(ids) > budget:
                ids, reason = ids[:budget], "length"
            results.append(Sampled(ids, [-0.5] * len(ids), reason))
        return results


def call(code):
    return f"```python\n{code}\n```"


def run(script, sandbox, settings=SETTINGS, count=1):
    return run_episodes(
        script, sandbox, script.tokenizer, [PROMPT] * count, settings, temperature=1.0, seed=0
    )


def test_a_program_runs_and_its_output_comes_back(sandbox, tokenizer):
    script = Script(tokenizer, call("print(6 * 7)"), "\\boxed{42}")
    (t,) = run(script, sandbox)
    assert script.shown == ["", "\n```output\n42\n```\n"]
    assert [turn.role for turn in t.turns] == ["assistant", "tool", "assistant"]
    assert t.text == call("print(6 * 7)") + "\n```output\n42\n```\n\\boxed{42}"
    assert t.assistant_text == call("print(6 * 7)") + "\\boxed{42}"
    assert [(r.code, r.status) for r in t.tool_results] == [("print(6 * 7)", "success")]
    assert t.finish_reason == "answered"


def test_the_mask_is_one_exactly_on_what_the_policy_sampled(sandbox, tokenizer):
    (t,) = run(Script(tokenizer, call("print(1)"), call("print(2)"), "done"), sandbox)
    owner = [turn.role == "assistant" for turn in t.turns for _ in range(turn.start, turn.end)]
    assert t.mask == owner
    assert [p for p, m in zip(t.sampler_logprobs, t.mask, strict=True) if m] == [-0.5] * sum(t.mask)
    assert [p for p, m in zip(t.sampler_logprobs, t.mask, strict=True) if not m] == [0.0] * (
        len(t.mask) - sum(t.mask)
    )
    assert t.turns[0].start == 0
    assert all(a.end == b.start for a, b in zip(t.turns, t.turns[1:], strict=False))


def test_the_call_beyond_the_limit_ends_the_episode_unrun(sandbox, tokenizer):
    turns = [call("print(1)"), call("print(2)"), call("print(3)"), "never said"]
    (t,) = run(Script(tokenizer, *turns), sandbox)
    assert t.finish_reason == "calls"
    assert [r.code for r in t.tool_results] == ["print(1)", "print(2)"]


def test_without_calls_allowed_nothing_is_run(sandbox, tokenizer):
    settings = dataclasses.replace(SETTINGS, max_calls=0)
    (t,) = run(Script(tokenizer, call("print(1)")), sandbox, settings)
    assert (t.finish_reason, t.tool_results) == ("calls", [])


@pytest.mark.parametrize(
    ("code", "status", "shown"),
    [
        ("1 / 0", "error", "ZeroDivisionError: division by zero"),
        ("print(1)\nundefined", "error", "1\nNameError: name 'undefined' is not defined"),
        ("import sys\nsys.exit(3)", "error", "exit code 3"),
        ("print('x')\nwhile True: pass", "timeout", "[timeout]"),
        ("pass", "success", "```output\n```"),
    ],
)
def test_the_policy_is_shown_how_its_program_failed(tokenizer, code, status, shown):
    with Sandbox(timeout=0.5) as quick:
        (t,) = run(Script(tokenizer, call(code), "done"), quick)
    assert t.tool_results[0].status == status
    assert shown in t.tool_results[0].output


def test_the_budget_counts_the_tools_tokens_too(sandbox, tokenizer):
    program = call("print('9' * 300)")
    settings = EpisodeSettings(max_response_tokens=100, max_calls=2)
    (t,) = run(Script(tokenizer, program, "never said"), sandbox, settings)
    assert t.finish_reason == "length"
    assert len(t.response_ids) <= 100
    assert t.turns[-1].role == "assistant"


def test_the_ids_are_never_encoded_again(sandbox, tokenizer):
    """A policy may sample other tokens for a text than the tokenizer would choose."""

    class Odd(Script):
        def generate(self, rows, append, budgets, stop):
            (result,) = super().generate(rows, append, budgets, stop)
            ids = [i for x in tokenizer.decode(result.ids[:-1]) for i in tokenizer.encode(x)]
            self.sampled = ids + result.ids[-1:]
            return [Sampled(self.sampled, [-1.0] * len(self.sampled), "eos")]

    script = Odd(tokenizer, "the sum of 12 and 34")
    (t,) = run(script, sandbox)
    assert t.response_ids == script.sampled
    assert t.response_ids != tokenizer.encode(t.text) + [tokenizer.eos_token_id]


def test_a_sandbox_that_cannot_run_anything_stops_the_run(tokenizer):
    class Dead:
        def run_many(self, codes):
            with Sandbox() as lost:
                execution = lost.run("pass")
            failed = dataclasses.replace(execution, status="sandbox-failure", failure="gone")
            return [failed] * len(codes)

    with pytest.raises(SandboxFailure, match="3 of 3 programs failed twice in the sandbox.*gone"):
        run(Script(tokenizer, call("print(1)"), "done"), Dead(), count=3)
    # One lost program is an accident, and its trajectory says so.
    (t,) = run(Script(tokenizer, call("print(1)"), "done"), Dead(), count=1)
    assert t.sandbox_failed
    assert t.tool_results[0].failure == "gone"


def test_a_program_the_sandbox_lost_gets_a_second_chance(tokenizer, sandbox):
    class Shaky:
        tried = 0

        def run_many(self, codes):
            self.tried += 1
            executions = sandbox.run_many(codes)
            if self.tried > 1:
                return executions
            return [dataclasses.replace(e, status="sandbox-failure") for e in executions]

    (t,) = run(Script(tokenizer, call("print(6 * 7)"), "done"), Shaky())
    assert t.tool_results[0].status == "success"
    assert "42" in t.tool_results[0].output


def test_a_real_model_gives_whole_trajectories(model, tokenizer, sandbox):
    prompts = [[{"role": "user", "content": f"Find the gcd of {n} and 18."}] for n in range(10, 26)]
    trajectories = run_episodes(
        TransformersGenerator(model, tokenizer),
        sandbox,
        tokenizer,
        prompts,
        EpisodeSettings(max_response_tokens=60, max_calls=2),
        temperature=1.0,
        seed=0,
    )
    for prompt, t in zip(prompts, trajectories, strict=True):
        assert tokenizer.decode(t.prompt_ids) == (
            f"<|im_start|>user\n{prompt[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
        )
        assert len(t.response_ids) <= 60
        assert t.finish_reason in ("answered", "length", "calls")


@pytest.mark.parametrize(
    ("field", "value"), [("max_response_tokens", 0), ("max_calls", -1), ("max_output_chars", 1)]
)
def test_impossible_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        dataclasses.replace(SETTINGS, **{field: value})
