"""The sandbox as a tool of verl's, for its own `tool_agent` loop. `tool.yaml` configures it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse

from ctpo.engines.verl.episodes import parsers
from ctpo.engines.verl.episodes.node_sandbox import node_sandbox
from ctpo.engines.verl.episodes.record import RECORD, program_record
from ctpo.engines.verl.episodes.settings import SandboxSettings
from ctpo.tir.calls import TOOL_NAME, Call, shorten
from ctpo.tir.open_episode import shorten_tokens
from ctpo.tir.programs import Outcome, arun_program

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_KEYS = ("type", "tokenizer", "max_output_tokens", "max_output_chars", "sandbox")
_SCHEMA = {
    "type": "function",
    "function": {
        "name": TOOL_NAME,
        "description": "Runs a Python program and returns what it prints. Nothing is remembered "
        "between programs.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "The program."}},
            "required": ["code"],
        },
    },
}


parsers.register()  # in the process that is about to ask for them, plug-in or not


class SandboxTool(BaseTool):
    """Runs programs in the node's sandbox.

    verl shows a policy the text of whatever exception a tool raises, and goes on. This one raises
    none: a program that cannot be run is answered as such and written down in the answer's
    `extra_fields`, from where the reward function and the trainer learn of it.

    verl cuts what a tool returns once more, in the middle, at `multi_turn.max_tool_response_length`
    characters, 256 unless told otherwise.

    Args:
        config: `max_output_chars`, or `max_output_tokens` with the path of the `tokenizer` to count
            them with; `sandbox`, the fields of `SandboxSettings`.
        tool_schema: Left out: the tool `python` with one argument, `code`.

    Raises:
        ValueError: A setting that is unknown, impossible or without effect.
    """

    def __init__(
        self, config: Mapping[str, Any], tool_schema: OpenAIFunctionToolSchema | None = None
    ) -> None:
        for name in config:
            if name not in _KEYS:
                raise ValueError(f"config.{name} means nothing; known are {', '.join(_KEYS)}")
        self._tokens: int | None = config.get("max_output_tokens")
        self._chars: int | None = config.get("max_output_chars")
        path = config.get("tokenizer")
        if (self._tokens is None) == (self._chars is None):
            raise ValueError(
                f"max_output_tokens is {self._tokens} and max_output_chars is {self._chars}; give "
                "one of them"
            )
        if (path is None) != (self._tokens is None):
            raise ValueError("max_output_tokens, and it alone, needs a tokenizer: give its path")
        for name in ("max_output_tokens", "max_output_chars"):
            if config.get(name) is not None and config[name] < 2:
                raise ValueError(f"{name} is {config[name]}; at least 2 are needed")
        self._tokenizer = None if path is None else _tokenizer(str(path))
        self._sandbox = node_sandbox(SandboxSettings.read(config.get("sandbox") or {}))
        super().__init__(dict(config), tool_schema)

    def get_openai_tool_schema(self) -> OpenAIFunctionToolSchema:
        """Return what the policy is told of the tool."""
        return OpenAIFunctionToolSchema.model_validate(_SCHEMA)

    async def execute(
        self,
        instance_id: str,
        parameters: dict[str, Any],
        **kwargs: Any,  # noqa: ANN401
    ) -> tuple[ToolResponse, float, dict[str, Any]]:
        """Run a program.

        Args:
            instance_id: verl's.
            parameters: `code`; other arguments are answered with what is wrong.
            **kwargs: verl's; `agent_data` is written to.

        Returns:
            What the policy is shown, no reward, and the program's record.
        """
        outcome = await arun_program(_call(parameters), self._sandbox.run)
        agent_data = kwargs.get("agent_data")
        if agent_data is not None:
            _write_down(agent_data.extra_fields, outcome)
        return ToolResponse(text=self._shown(outcome.shown)), 0.0, program_record([outcome])

    def _shown(self, output: str) -> str:
        if self._tokens is not None:
            assert self._tokenizer is not None
            output = shorten_tokens(output, self._tokens, self._tokenizer)
        elif self._chars is not None:
            output = shorten(output, self._chars)
        # Neither the end of the tool's turn nor a special token may come from a program.
        output = output.replace("</tool_response>", "< /tool_response>").replace("<|", "< |")
        return output.rstrip()


def _call(parameters: object) -> Call:
    given = parameters if isinstance(parameters, dict) else {}
    problem, code = given.get(parsers.PROBLEM), given.get("code")
    if problem is None and not isinstance(code, str):
        problem = 'the arguments must be an object with a string "code"'
    return Call(
        code if isinstance(code, str) else "", None if problem is None else str(problem), 0, 0
    )


def _write_down(extra_fields: dict[str, Any], outcome: Outcome) -> None:
    """Add a program to an answer's record."""
    new, old = program_record([outcome]), extra_fields.get(RECORD)
    extra_fields[RECORD] = new if old is None else {name: old[name] + new[name] for name in new}


@functools.lru_cache(maxsize=2)
def _tokenizer(path: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer
    from verl.utils.fs import copy_to_local

    return AutoTokenizer.from_pretrained(copy_to_local(path))
