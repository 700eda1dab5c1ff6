"""The trajectory: the one thing that crosses rooms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["assistant", "tool"]
FinishReason = Literal["answered", "length", "calls", "context", "filter", "failed"]


@dataclass(frozen=True)
class Turn:
    """A stretch of the response with one author.

    Attributes:
        role: `assistant` for what the policy sampled, `tool` for what the sandbox printed.
        start: Index of the turn's first token in `Trajectory.response_ids`.
        end: Index behind its last token.
        text: The turn's text, special tokens left out. For reading only: training uses the ids.
    """

    role: Role
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class ToolResult:
    """What one program or tool did.

    Attributes:
        code: The program the policy wrote; of a tool beside Python its name and arguments, as JSON.
        status: The sandbox's verdict: `success`, `error`, `timeout`, `memory`, `output-limit`
            or `sandbox-failure`. Only the last is not the program's own doing; a tool of the
            user's that failed has it, too.
        output: The text that was put back into the context.
        failure: Why the sandbox failed; None where it did not.
    """

    code: str
    status: str
    output: str
    failure: str | None = None


@dataclass(frozen=True)
class Trajectory:
    """One tool-integrated answer, token by token.

    Attributes:
        prompt_ids: The prompt as the policy read it, T_prompt ids.
        response_ids: What followed, T ids: the policy's tokens and the tool's, as sampled. They are
            never re-encoded from text, so what was sampled is what is trained on.
        mask: T flags, true where the policy chose the token.
        sampler_logprobs: T natural log-probabilities under the sampler, 0 where `mask` is false.
        turns: The response cut by author, in order and without gaps.
        tool_results: One per program run, in order.
        finish_reason: `answered` (the policy ended its turn), `length` (out of tokens) or `calls`
            (it asked for one more tool call than allowed). From servers only: `context` (the
            conversation no longer fits the model), `filter` (a content filter cut it off) and
            `failed` (the server did not give the whole of it, however often it was asked).
        old_logprobs: T log-probabilities under the trainer's own forward pass before the first
            update, once an engine has computed them; 0 where `mask` is false.
        problem_id: The problem answered.
        source: The problem's family or data source.
        reward: The grade; None where the grader could not tell or nobody graded.
        advantage: What the policy gradient used; None before training.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    mask: list[bool]
    sampler_logprobs: list[float]
    turns: list[Turn]
    tool_results: list[ToolResult]
    finish_reason: FinishReason
    old_logprobs: list[float] | None = None
    problem_id: str = ""
    source: str = ""
    reward: float | None = None
    advantage: float | None = None

    def __post_init__(self) -> None:
        length = len(self.response_ids)
        for name in ("mask", "sampler_logprobs", "old_logprobs"):
            values = getattr(self, name)
            if values is not None and len(values) != length:
                raise ValueError(
                    f"{name} has {len(values)} entries; response_ids has {length}, "
                    "and each needs one"
                )

    @property
    def assistant_text(self) -> str:
        """The policy's own words. A box that a program printed is no answer, so it is absent."""
        return "".join(turn.text for turn in self.turns if turn.role == "assistant")

    @property
    def text(self) -> str:
        """The whole response as a person reads it."""
        return "".join(turn.text for turn in self.turns)

    @property
    def sandbox_failed(self) -> bool:
        """Whether a program got no answer through no fault of its own, so no grade is fair."""
        return any(result.status == "sandbox-failure" for result in self.tool_results)
