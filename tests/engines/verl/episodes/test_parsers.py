import asyncio
import json

import pytest

pytest.importorskip("verl", reason="verl is not installed (it has no release for Python 3.13)")

from verl.experimental.agent_loop.tool_parser import HermesToolParser, ToolParser
from verl.tools.schemas import OpenAIFunctionToolSchema

from ctpo.engines.verl import plugin  # noqa: F401 - as verl loads it
from ctpo.tir.calls import find_fenced_call, find_json_call

PYTHON = OpenAIFunctionToolSchema.model_validate(
    {"type": "function", "function": {"name": "python", "description": "runs"}}
)
SEARCH = OpenAIFunctionToolSchema.model_validate(
    {"type": "function", "function": {"name": "search", "description": "finds"}}
)


def parse(name, tokenizer, text, tools=(PYTHON,)):
    parser = ToolParser.get_tool_parser(name, tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False)
    return asyncio.run(parser.extract_tool_calls(ids, list(tools)))


FENCED = [
    "```python\nprint(1)\n```",
    "I compute.\n```python\n  print(1)\n\n  print(2)\n```\nand go on",
    "```py\n```",
    "```text\nno\n```\n````python\n```\nprint(3)\n````",
    "```text\nno\n```",
    "```python\nprint(1)",
    "nothing",
]
HERMES = [
    '<tool_call>{"name": "python", "arguments": {"code": "print(1)"}}</tool_call>',
    'ask <tool_call>\n{"name": "python", "arguments": {"code": "a = \'</tool_call>\'\\nb"}}\n'
    "</tool_call> behind",
    '<tool_call>{"name": "python", "arguments": {"code": "a\nb"}}</tool_call>',
    "<tool_call>{</tool_call>",
    '<tool_call>{"name": "ruby", "arguments": {}}</tool_call>',
    '<tool_call>{"name": "python", "arguments": {"code"',
    "nothing",
]


@pytest.mark.parametrize(
    ("name", "find", "text"),
    [("ctpo-fence", find_fenced_call, text) for text in FENCED]
    + [("ctpo-hermes", find_json_call, text) for text in HERMES],
)
def test_a_call_is_what_the_protocol_says_it_is(name, find, text, tokenizer):
    content, calls = parse(name, tokenizer, text)
    expected = find(text)
    if expected is None:
        assert (content, calls) == (text, [])
        return
    (found,) = calls
    arguments = json.loads(found.arguments)
    assert found.name == "python"
    assert arguments["code"] == expected.code
    assert arguments.get("problem") == expected.problem
    call = text[expected.start : expected.end]
    assert content == text[: expected.start]
    assert find(call).code == expected.code and find(content) is None
    assert call.startswith(("`", "<tool_call>")) and call.endswith(("`", "</tool_call>"))


def test_hermes_reads_what_verls_own_parser_loses(tokenizer):
    """A line break in a string: verl drops the call, and the episode ends there."""
    text = '<tool_call>{"name": "python", "arguments": {"code": "x = 1\nprint(x)"}}</tool_call>'
    own = HermesToolParser(tokenizer)
    _, lost = asyncio.run(own.extract_tool_calls(tokenizer.encode(text), [PYTHON]))
    assert lost == []
    _, (found,) = parse("ctpo-hermes", tokenizer, text)
    assert json.loads(found.arguments)["code"] == "x = 1\nprint(x)"


def test_calls_of_other_tools_that_verl_has_pass_through(tokenizer):
    text = '<tool_call>{"name": "search", "arguments": {"query": "gcd"}}</tool_call>'
    _, (found,) = parse("ctpo-hermes", tokenizer, text, tools=(PYTHON, SEARCH))
    assert (found.name, json.loads(found.arguments)) == ("search", {"query": "gcd"})
    _, (unknown,) = parse("ctpo-hermes", tokenizer, text)
    assert "there is no tool 'search'" in json.loads(unknown.arguments)["problem"]


def test_verls_own_parsers_keep_their_names():
    assert ToolParser._registry["hermes"] is HermesToolParser
