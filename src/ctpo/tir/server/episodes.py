"""Episodes on a server: the same rounds as `run_episodes`, in text instead of tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ctpo.sandbox import Sandbox
from ctpo.tir.generation import StopReason
from ctpo.tir.ledger import Ledger
from ctpo.tir.programs import run_programs
from ctpo.tir.server.endpoint import AnswerFailed, ContextOverflow, Endpoint
from ctpo.tir.settings import EpisodeSettings, Message
from ctpo.tir.tools import Tools
from ctpo.tir.trajectory import FinishReason, ToolResult

# Messages to the text a model is to continue: the chat template of its tokenizer.
Template = Callable[[Sequence[Mapping[str, str]]], str]

# A server's words for the end of a turn, and ours.
_REASONS: dict[str, StopReason] = {"stop": "eos", "call": "stop", "length": "length"}


@dataclass
class Transcript:
    """One tool-integrated answer whose tokens are the server's secret.

    Attributes:
        turns: Who said what, in order: `assistant`, `tool`, or `reasoning` where the server tells
            the model's thoughts apart.
        tool_results: One per program run, in order.
        finish_reason: Why it ended.
        tokens: Tokens the model generated, as far as the server counts them.
        failure: Why the server did not give the whole of it; None if it did.
    """

    turns: list[tuple[str, str]] = field(default_factory=list)
    tool_results: list[ToolResult] = field(default_factory=list)
    finish_reason: FinishReason = "answered"
    tokens: int = 0
    failure: str | None = None

    @property
    def assistant_text(self) -> str:
        """The model's own words, without what tools printed and without its thoughts."""
        return "".join(text for role, text in self.turns if role == "assistant")

    @property
    def sandbox_failed(self) -> bool:
        """Whether a program got no answer through no fault of its own, so no grade is fair."""
        return any(result.status == "sandbox-failure" for result in self.tool_results)


def converse(
    endpoint: Endpoint,
    sandbox: Sandbox,
    messages: Sequence[Message],
    settings: EpisodeSettings,
    *,
    temperature: float,
    seed: int,
    template: Template | None = None,
    count: Callable[[str], int] | None = None,
) -> Transcript:
    """Run one episode on a server.

    With the chat API the tool's output is a user's message, under every protocol. With completions
    the model goes on in the text that `template` makes, and an inline protocol's output is put into
    its own turn, exactly as in training.

    Args:
        endpoint: The model.
        sandbox: A started sandbox.
        messages: The chat that asks.
        settings: What the episode may use. The budget counts generated tokens, and the tool's where
            there is a `count` of them, as in training; else those are the server's to count.
        temperature: Divides the logits; 0 takes the likeliest token.
        seed: Sent along; each turn's differs.
        template: Needed for completions.
        count: Returns how many tokens a text takes, with completions.

    Raises:
        EndpointError: The server cannot be used.
        Interrupted: `endpoint.stopped` was set.
        ValueError: Completions without a template, or a template without completions, or a limit
            on outputs in tokens, which only the server could count.
    """
    if (endpoint.api == "completions") != (template is not None):
        raise ValueError("the completions API, and it alone, needs a chat template of one's own")
    if count is not None and template is None:
        raise ValueError("count has no effect on the chat API, whose template is the server's")
    if settings.max_output_tokens is not None:
        raise ValueError("max_output_tokens needs the model's tokenizer; use max_output_chars here")
    protocol, ledger = settings.protocol, Ledger(settings)
    chat = [dict(message) for message in messages]
    answer, said = Transcript(), ""

    def call_end(text: str) -> int | None:
        call = protocol.find_call(text)
        return None if call is None else call.end

    def context() -> list[Message] | str:
        return chat if template is None else template(chat) + said

    with Tools.of_episodes(protocol.tools, 1) as (tools,):
        while ledger.finish is None:
            asked = context()
            try:
                turn = endpoint.generate(
                    asked,
                    temperature=temperature,
                    seed=seed + ledger.calls,
                    max_tokens=ledger.left,
                    call_end=call_end,
                    trigger=protocol.trigger,
                )
            except ContextOverflow:
                answer.finish_reason = "context"
                return answer
            except AnswerFailed as error:
                answer.finish_reason, answer.failure = "failed", str(error)
                return answer
            answer.tokens += turn.tokens
            if turn.reasoning:
                answer.turns.append(("reasoning", turn.reasoning))
            answer.turns.append(("assistant", turn.text))
            if turn.reason in ("context", "filter"):
                answer.finish_reason = turn.reason
                return answer
            call = ledger.turn(turn.text, turn.tokens, _REASONS[turn.reason])
            if call is None:
                break
            (ran,) = run_programs([call], sandbox, [tools])
            output = protocol.answer(ran.shown, after=turn.text, limit=settings.max_output_chars)
            answer.tool_results.append(ToolResult(call.written, ran.status, output, ran.failure))
            if template is not None and protocol.inline:
                said += turn.text + output
            else:
                chat += [
                    {"role": "assistant", "content": turn.text},
                    {"role": "user", "content": output.strip()},
                ]
            tokens = 0
            if isinstance(asked, str) and count is not None:
                # What the template puts around the output is read as well.
                tokens = count(str(context())[len(asked + turn.text) :])
            if ledger.output(tokens):
                answer.turns.append(("tool", output))
    assert ledger.finish is not None
    answer.finish_reason = ledger.finish
    return answer
