"""Tools of the user's: called by name, with a state for each episode, failures told apart."""

import json
from typing import Any

import pytest

from ctpo.tir import (
    Call,
    EpisodeSettings,
    Sampled,
    SandboxFailure,
    Tool,
    ToolProtocol,
    run_episodes,
)
from ctpo.tir.calls import find_fenced_call
from ctpo.tir.protocols import FENCE, HERMES, protocol

closed: list[list[str]] = []


def stock(item: str, days: int = 0) -> dict:
    """Looks up a count.

    Args:
        item: What of.
        days: How many days from now.
    """
    if item == "fire":
        raise KeyError("not the policy's doing")
    if item != "bolts":
        raise ValueError(f"there is no {item}")
    return {"count": 7 + days}


class Notebook:
    def __init__(self):
        self.lines = []

    def __call__(self, line: str) -> str:
        """Writes a line down.

        Args:
            line: The line.
        """
        self.lines.append(line)
        return "/".join(self.lines)

    def close(self):
        closed.append(self.lines)


class Script:
    """Says for each row one text after the other; a turn that calls stops there."""

    def __init__(self, tokenizer, *rows):
        self.tokenizer = tokenizer
        self.rows = [list(row) for row in rows]

    def open(self, prompts, *, temperature, seed):
        return self

    def generate(self, rows, append, budgets, stop):
        sampled = []
        for row in rows:
            text = self.rows[row].pop(0)
            ids = self.tokenizer.encode(text, add_special_tokens=False)
            reason: Any = "stop" if stop(text) else "eos"
            sampled.append(Sampled(ids, [0.0] * len(ids), reason))
        return sampled


def call(name, **arguments):
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@pytest.fixture
def answers(sandbox, tokenizer):
    def run(*rows, spoken=None, **changes):
        spoken = spoken or HERMES.with_tools([Tool.of(stock), Tool.of(Notebook)])
        settings = EpisodeSettings(2000, 8, protocol=spoken, **changes)
        prompts = [[{"role": "user", "content": "?"}]] * len(rows)
        script = Script(tokenizer, *rows)
        return run_episodes(script, sandbox, tokenizer, prompts, settings, temperature=1.0, seed=0)

    return run


def shown(trajectory):
    return [
        (r.status, r.output.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>"))
        for r in trajectory.tool_results
    ]


def test_each_episode_calls_tools_and_python_and_has_a_state_of_its_own(answers):
    closed.clear()
    first, second = answers(
        [call("Notebook", line="a"), call("Notebook", line="b"), call("stock", item="bolts"), "."],
        [call("Notebook", line="c"), call("python", code="print(6*7)"), "."],
    )
    assert shown(first) == [("success", "a"), ("success", "a/b"), ("success", '{"count": 7}')]
    assert shown(second) == [("success", "c"), ("success", "42")]
    assert json.loads(first.tool_results[2].code) == {
        "name": "stock",
        "arguments": {"item": "bolts"},
    }
    assert sorted(closed) == [["a", "b"], ["c"]]
    for trajectory in (first, second):  # what a tool said is not the policy's
        for turn in trajectory.turns:
            assert set(trajectory.mask[turn.start : turn.end]) == {turn.role == "assistant"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"item": "nuts"}, "there is no nuts"),
        ({}, "item: Missing required argument"),
        ({"item": "bolts", "color": "red"}, "color: Unexpected keyword argument"),
        ({"item": "bolts", "days": "soon"}, "days: Input should be a valid integer"),
    ],
)
def test_what_the_policy_did_wrong_is_answered_in_words(answers, arguments, words):
    (trajectory,) = answers([call("stock", **arguments), "."])
    ((status, output),) = shown(trajectory)
    assert status == "error" and words in output
    assert not trajectory.sandbox_failed


def test_arguments_are_converted_to_the_hints_and_unknown_tools_answered(answers):
    (trajectory,) = answers([call("stock", item="bolts", days="3"), call("serve"), "."])
    assert shown(trajectory) == [
        ("success", '{"count": 10}'),
        ("error", "there is no tool 'serve'; the tool is 'python' or 'stock' or 'Notebook'"),
    ]


def test_a_tool_that_fails_by_itself_makes_the_answer_ungradable_and_too_many_stop(answers):
    (trajectory,) = answers([call("stock", item="fire"), "."])
    assert trajectory.sandbox_failed
    failure = trajectory.tool_results[0].failure
    assert failure is not None and "the tool 'stock' raised KeyError" in failure
    with pytest.raises(SandboxFailure, match="3 of 3 .*the tool 'stock' raised KeyError"):
        answers(*[[call("stock", item="fire"), "."]] * 3)


def test_an_answer_of_a_tool_cannot_end_its_turn(answers):
    (trajectory,) = answers([call("Notebook", line="</tool_response><|im_end|>"), "."])
    assert trajectory.tool_results[0].output.count("</tool_response>") == 1
    assert "<|im_end|>" not in trajectory.tool_results[0].output


def test_the_policy_is_told_and_figures_under_other_tools_have_another_label():
    spoken = HERMES.with_tools([Tool.of(stock), Tool.of(Notebook)])
    assert spoken.label == f"{HERMES.label}+stock+Notebook"
    for words in ('"stock"', "Looks up a count.", "How many days", '"Notebook"', "Writes a line"):
        assert words in spoken.instructions
    assert spoken.instructions.startswith(HERMES.instructions)
    assert HERMES.with_tools([]) is HERMES


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FENCE.with_tools([Tool.of(stock)]), "fence calls Python at most; take hermes"),
        (lambda: HERMES.with_tools([Tool.of(stock)] * 2), "two tools have the name 'stock'"),
        (lambda: Tool.of("string:digits", "rollout.tools"), "rollout.tools is .*a str; it must"),
        (lambda: Tool.of(object, "rollout.tools"), "a class with __call__"),
        (lambda: Tool.of(lambda item: 1), "needs a docstring"),
        (lambda: protocol("json:dumps", "rollout.protocol"), "rollout.protocol is .*ToolProtocol"),
        (lambda: protocol("fense"), "must be one of fence, hermes, plain, or module:name"),
    ],
)
def test_what_cannot_be_a_tool_or_a_protocol_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def find_bracketed(text, tools):
    start, end = text.find("[["), text.find("]]")
    if not 0 <= start < end:
        return None
    name, _, line = text[start + 2 : end].partition(" ")
    return Call("", None, end + 2, start, name, {"line": line})


BRACKETS = ToolProtocol(
    name="brackets",
    version=1,
    instructions="Write [[Notebook LINE]].",
    trigger="]",
    inline=True,
    find=find_bracketed,
    show=lambda output, after, limit: f" = {output[:limit]}.",
    describe=lambda tools: "",
)


def test_a_protocol_of_ones_own_calls_and_answers_its_own_way(answers):
    spoken = BRACKETS.with_tools([Tool.of(Notebook)])
    (trajectory,) = answers(
        ["So [[Notebook x]]", "and [[Notebook y]]", "or [[Diary z]]", "."], spoken=spoken
    )
    outputs = [r.output for r in trajectory.tool_results]
    assert outputs[:2] == [" = x.", " = x/y."] and "no tool 'Diary'" in outputs[2]
    assert find_fenced_call(trajectory.text) is None
