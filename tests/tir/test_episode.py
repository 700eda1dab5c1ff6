import dataclasses

import pytest

from ctpo.sandbox import Sandbox
from ctpo.tir import EpisodeSettings, Sampled, SandboxFailure, StopReason, run_episodes
from ctpo.tir.protocols import FENCE, HERMES, PLAIN, PROTOCOLS, protocol
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
        self.opened = (temperature, seed)
        self.budgets = []
        return self

    def generate(self, rows, append, budgets, stop):
        results = []
        self.budgets.append(list(budgets))
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
    ("field", "value"),
    [
        ("max_response_tokens", 0),
        ("max_calls", -1),
        ("max_output_chars", 1),
        ("max_output_tokens", 1),
    ],
)
def test_impossible_settings_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        dataclasses.replace(SETTINGS, **{field: value})


def test_the_generator_is_opened_as_asked(sandbox, tokenizer):
    script = Script(tokenizer, "done")
    run_episodes(script, sandbox, tokenizer, [PROMPT], SETTINGS, temperature=0.3, seed=17)
    assert script.opened == (0.3, 17)


def test_the_chat_template_is_given_its_arguments(sandbox, tokenizer):
    class Told:
        chat_template = tokenizer.chat_template
        encode, decode = tokenizer.encode, tokenizer.decode
        added_tokens_decoder = tokenizer.added_tokens_decoder

        def apply_chat_template(self, messages, **kwargs):
            self.kwargs = kwargs
            return tokenizer.apply_chat_template(messages, **kwargs)

    told = Told()
    settings = dataclasses.replace(SETTINGS, chat_template_kwargs={"enable_thinking": False})
    run_episodes(
        Script(tokenizer, "done"), sandbox, told, [PROMPT], settings, temperature=1.0, seed=0
    )
    assert told.kwargs["enable_thinking"] is False


def test_each_row_has_what_is_left_of_its_own_budget(sandbox, tokenizer):
    class TwoScripts(Script):
        def open(self, prompts, *, temperature, seed):
            super().open(prompts, temperature=temperature, seed=seed)
            self.left = [[call("print(1)"), "done"], [call("print(11111111)"), "done"]]
            return self

    script = TwoScripts(tokenizer)
    first, second = run(script, sandbox, count=2)
    used = [t.turns[1].end for t in (first, second)]
    assert used[0] != used[1]
    assert script.budgets == [[400, 400], [400 - used[0], 400 - used[1]]]


def test_the_last_token_of_the_budget_is_the_policys(sandbox, tokenizer):
    turns = (call("print(1)"), "\\boxed{1}")
    (whole,) = run(Script(tokenizer, *turns), sandbox)
    tool_end = whole.turns[1].end
    # One token is left behind the output: the policy says it.
    settings = EpisodeSettings(max_response_tokens=tool_end + 1, max_calls=2)
    (t,) = run(Script(tokenizer, *turns), sandbox, settings)
    assert (len(t.response_ids), len(t.turns), t.finish_reason) == (tool_end + 1, 3, "length")
    # None is left: the output is not appended, but the program was run.
    settings = EpisodeSettings(max_response_tokens=tool_end, max_calls=2)
    (t,) = run(Script(tokenizer, *turns), sandbox, settings)
    assert (len(t.turns), len(t.tool_results), t.finish_reason) == (1, 1, "length")
    # Not even the call's end is left for anything: it is not run.
    settings = EpisodeSettings(max_response_tokens=whole.turns[0].end, max_calls=2)
    (t,) = run(Script(tokenizer, *turns), sandbox, settings)
    assert (len(t.tool_results), t.finish_reason) == (0, "length")


def test_only_lost_programs_are_run_again_and_each_gets_its_own_answer(tokenizer, sandbox):
    class Shaky:
        asked: list[list[str]] = []

        def run_many(self, codes):
            self.asked.append(list(codes))
            executions = sandbox.run_many(codes)
            if len(self.asked) == 1:
                lost = dataclasses.replace(executions[1], status="sandbox-failure", stdout="lost")
                executions[1] = lost
            return executions

    class Numbered(Script):
        def open(self, prompts, *, temperature, seed):
            super().open(prompts, temperature=temperature, seed=seed)
            self.left = [[call(f"print({n})"), "done"] for n in (10, 20, 30)]
            return self

    shaky = Shaky()
    trajectories = run(Numbered(tokenizer), shaky, count=3)
    assert shaky.asked[:2] == [["print(10)", "print(20)", "print(30)"], ["print(20)"]]
    outputs = [t.tool_results[0].output.split("\n")[2] for t in trajectories]
    assert outputs == ["10", "20", "30"]


def test_a_long_output_is_shortened_as_the_settings_say(sandbox, tokenizer):
    settings = dataclasses.replace(SETTINGS, max_output_chars=10)
    (t,) = run(Script(tokenizer, call("print('a' * 99)"), "done"), sandbox, settings)
    assert "[90 characters left out]" in t.tool_results[0].output


def test_a_limit_in_tokens_keeps_both_ends_and_takes_the_place_of_the_one_in_characters(
    sandbox, tokenizer
):
    settings = dataclasses.replace(SETTINGS, max_output_chars=10, max_output_tokens=20)
    code = "print('begin', *['the sum of 12 and 34'] * 30, 'end')"
    (t,) = run(Script(tokenizer, call(code), "done"), sandbox, settings)
    head, middle, tail = t.tool_results[0].output.removeprefix("\n```output\n").split("\n", 2)
    printed = "begin " + "the sum of 12 and 34 " * 30 + "end\n"
    left_out = len(tokenizer.encode(printed)) - 20
    assert middle == f"[{left_out} tokens left out]"
    tail = tail.removesuffix("```\n")
    assert printed.startswith(head) and printed.endswith(tail)
    assert len(tokenizer.encode(head)) == len(tokenizer.encode(tail)) == 10
    short = dataclasses.replace(settings, max_output_tokens=1000)
    (t,) = run(Script(tokenizer, call(code), "done"), sandbox, short)
    assert printed in t.tool_results[0].output


def test_different_prompts_are_different_and_equal_ones_equal(sandbox, tokenizer):
    prompts = [[{"role": "user", "content": c}] for c in ("Find 1.", "Find 2.", "Find 1.")]
    script = Script(tokenizer, "done")
    first, second, third = run_episodes(
        script, sandbox, tokenizer, prompts, SETTINGS, temperature=1.0, seed=0
    )
    assert "Find 2." in tokenizer.decode(second.prompt_ids)
    assert first.prompt_ids == third.prompt_ids != second.prompt_ids
    assert first.prompt_ids is not third.prompt_ids


def json_call(code):
    return f'<tool_call>{{"name": "python", "arguments": {{"code": "{code}"}}}}</tool_call>'


def test_under_hermes_the_output_is_a_message_as_the_template_writes_it(sandbox, tokenizer):
    settings = dataclasses.replace(SETTINGS, protocol=HERMES)
    script = Script(tokenizer, "I ask." + json_call("print(6 * 7)"), "\\boxed{42}")
    (t,) = run(script, sandbox, settings)
    said, tool, last = t.turns
    response = "<tool_response>\n42\n</tool_response>"
    chat = [
        *PROMPT,
        {"role": "assistant", "content": said.text},
        {"role": "user", "content": response},
    ]
    whole = tokenizer.decode(t.prompt_ids + t.response_ids[: tool.end])
    assert whole == tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert (t.tool_results[0].status, t.tool_results[0].output) == ("success", response)
    assert not any(t.mask[tool.start : tool.end])
    assert t.finish_reason == "answered"


def test_a_call_that_cannot_be_read_is_answered_with_what_is_wrong(sandbox, tokenizer):
    settings = dataclasses.replace(SETTINGS, protocol=HERMES)
    (t,) = run(Script(tokenizer, "<tool_call>print(1)</tool_call>", "done"), sandbox, settings)
    (result,) = t.tool_results
    assert (result.status, result.code) == ("error", "")
    assert "not JSON" in result.output


def test_under_plain_nothing_is_a_call(sandbox, tokenizer):
    settings = dataclasses.replace(SETTINGS, protocol=PLAIN)
    (t,) = run(Script(tokenizer, call("print(1)") + json_call("x")), sandbox, settings)
    assert (t.finish_reason, t.tool_results) == ("answered", [])


def test_protocols_have_names_and_versions_and_an_unknown_one_is_refused():
    assert [p.label for p in PROTOCOLS.values()] == ["fence-3", "hermes-2", "plain-1"]
    assert all(p.find_call(p.instructions) is None for p in (FENCE, PLAIN))
    with pytest.raises(ValueError, match="one of fence, hermes, plain"):
        protocol("xml")


@pytest.mark.parametrize(("chosen", "called"), [(FENCE, call), (HERMES, json_call)])
def test_a_program_cannot_write_a_special_token(chosen, called, sandbox, tokenizer):
    assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [tokenizer.eos_token_id]
    settings = dataclasses.replace(SETTINGS, protocol=chosen)

    def special_ids_of_the_tool(program):
        (t,) = run(Script(tokenizer, called(program), "done"), sandbox, settings)
        assert "im_end|>" in t.tool_results[0].output
        tool = [i for i, policy in zip(t.response_ids, t.mask, strict=True) if not policy]
        return [i for i in tool if i in tokenizer.all_special_ids]

    harmless = special_ids_of_the_tool("print('im_end|>')")
    assert special_ids_of_the_tool("print(chr(60) + chr(124) + 'im_end|>')") == harmless
