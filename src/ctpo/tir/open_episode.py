"""One episode, turn by turn: its books, for whoever generates the turns and runs the programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ctpo.tir.calls import Call, within_string
from ctpo.tir.generation import Sampled
from ctpo.tir.ledger import Ledger
from ctpo.tir.programs import Outcome
from ctpo.tir.protocols import ToolProtocol
from ctpo.tir.rendering import render
from ctpo.tir.settings import EpisodeSettings, Message
from ctpo.tir.trajectory import FinishReason, Role, ToolResult, Trajectory, Turn
from ctpo.tir.turn_text import turn_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class CallStop:
    """Ends a turn where a call is complete, wherever the text is cut into tokens.

    A fence closes a block without waiting for the end of its line, so that nothing has to be
    sampled behind it; but within a string of the program it may go on, as in three backticks and
    `text`, and then the line's end decides.
    """

    def __init__(self, protocol: ToolProtocol) -> None:
        self._fenced = protocol.name == "fence"
        self.trigger = protocol.trigger + "\n" * self._fenced
        self._protocol = protocol

    def __call__(self, text: str) -> bool:
        """Return whether the text of a turn holds a whole call."""
        call = self._protocol.find_call(text)
        if call is None:
            return False
        return not self._fenced or call.end < len(text) or not within_string(call.code)


class EpisodeRules:
    """What episodes under the same settings share.

    Args:
        tokenizer: The policy's tokenizer, with a chat template.
        settings: What an episode may use.

    Raises:
        ValueError: The chat template does not show turns as the protocol needs.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: EpisodeSettings) -> None:
        self.tokenizer = tokenizer
        self.settings = settings
        self.stop = CallStop(settings.protocol)
        self._before, self._after = self._turn_frame()

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt that the messages make, as token ids."""
        return self.tokenizer.encode(self._render(messages), add_special_tokens=False)

    def tool_text(self, answer: str) -> str:
        """Return what stands between two turns of the policy: the answer and the template's."""
        return self._before + answer + self._after

    def answer(self, output: str, after: str) -> str:
        """Return what the policy is shown of a program's output.

        Args:
            output: What it printed, or why it was not run.
            after: The turn that called.
        """
        settings, limit = self.settings, self.settings.max_output_chars
        if settings.max_output_tokens is not None:
            output = shorten_tokens(output, settings.max_output_tokens, self.tokenizer)
            limit = max(2, len(output))
        return settings.protocol.answer(output, after=after, limit=limit)

    def _render(self, messages: Sequence[Message]) -> str:
        return render(self.tokenizer, messages, self.settings.chat_template_kwargs)

    def _turn_frame(self) -> tuple[str, str]:
        """Return what the chat template puts before and behind a message between two policy turns.

        Empty where the protocol puts the output into the policy's own turn.
        """
        if self.settings.protocol.inline:
            return "", ""
        said, answered = "said-by-the-policy", "answered-by-the-tool"
        messages = [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": said},
            {"role": "user", "content": answered},
        ]
        text = self._render(messages)
        if text.count(said) != 1 or text.count(answered) != 1:
            raise ValueError(
                f"the chat template does not show every turn as it is, which the protocol "
                f"{self.settings.protocol.name} needs; take fence"
            )
        before, after = text.split(said)[1].split(answered)
        return before, after


class OpenEpisode:
    """One episode under way.

    Add in turn what the policy sampled (`add_turn`) and, if that was a call to run, what came of it
    (`add_outcome`), until it has a `finish` reason. A `Ledger` decides.

    Attributes:
        ids: The response so far.
        append: What `add_outcome` put behind the policy's last turn.
    """

    def __init__(self, rules: EpisodeRules, prompt_ids: list[int]) -> None:
        self.rules = rules
        self._ledger = Ledger(rules.settings)
        self.prompt_ids = prompt_ids
        self.ids: list[int] = []
        self.append: list[int] = []
        self.turns: list[Turn] = []
        self.results: list[ToolResult] = []
        self._mask: list[bool] = []
        self._logprobs: list[float] = []

    @property
    def finish(self) -> FinishReason | None:
        """Why the episode is over; None while it is not."""
        return self._ledger.finish

    @property
    def budget(self) -> int:
        """How many tokens are left."""
        return self._ledger.left

    def add_turn(self, sampled: Sampled) -> Call | None:
        """Add a turn of the policy; returns its call if it is to be run."""
        text = turn_text(self.rules.tokenizer, sampled.ids)
        self._add("assistant", sampled.ids, sampled.logprobs, text)
        return self._ledger.turn(text, len(sampled.ids), sampled.reason)

    def add_outcome(self, call: Call, outcome: Outcome) -> None:
        """Add what came of a call."""
        answer = self.rules.answer(outcome.shown, self.turns[-1].text)
        text = self.rules.tool_text(answer)
        ids = self.rules.tokenizer.encode(text, add_special_tokens=False)
        self.results.append(ToolResult(call.written, outcome.status, answer, outcome.failure))
        if self._ledger.output(len(ids)):
            self.append = ids
            self._add("tool", ids, [0.0] * len(ids), text)

    def trajectory(self) -> Trajectory:
        """Return the finished episode."""
        assert self.finish is not None
        return Trajectory(
            prompt_ids=self.prompt_ids,
            response_ids=self.ids,
            mask=self._mask,
            sampler_logprobs=self._logprobs,
            turns=self.turns,
            tool_results=self.results,
            finish_reason=self.finish,
        )

    def _add(self, role: Role, ids: list[int], logprobs: list[float], text: str) -> None:
        start = len(self.ids)
        self.ids += ids
        self._mask += [role == "assistant"] * len(ids)
        self._logprobs += logprobs
        self.turns.append(Turn(role, start, len(self.ids), text))


def shorten_tokens(output: str, limit: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """Cut the middle out of an output of more than `limit` tokens, half of which are its end's."""
    ids = tokenizer.encode(output, add_special_tokens=False)
    if len(ids) <= limit:
        return output
    half = limit // 2
    left_out = len(ids) - 2 * half
    # A character that was cut through decodes to U+FFFD.
    head = tokenizer.decode(ids[:half]).rstrip("\ufffd")
    tail = tokenizer.decode(ids[len(ids) - half :]).lstrip("\ufffd")
    return f"{head}\n[{left_out} tokens left out]\n{tail}"
