"""Tool-integrated episodes: generate, find the call, execute, append, go on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ctpo.sandbox import Sandbox
from ctpo.tir.calls import Call
from ctpo.tir.generation import Generator, Sampled
from ctpo.tir.programs import run_programs
from ctpo.tir.protocols import FENCE, ToolProtocol
from ctpo.tir.trajectory import FinishReason, ToolResult, Trajectory, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]


@dataclass(frozen=True)
class EpisodeSettings:
    """What an episode may use.

    Attributes:
        max_response_tokens: Most tokens behind the prompt, the tool's included.
        max_calls: Most programs run in one episode. The call that goes beyond ends it.
        max_output_chars: Most characters of a program's output shown to the policy.
        chat_template_kwargs: Passed on to the tokenizer's chat template, e.g.
            `{"enable_thinking": False}`.
        protocol: How the policy calls the tool and is answered.
        max_failure_share: Share of the programs of one `run_episodes` that the sandbox itself may
            fail to run.
    """

    max_response_tokens: int
    max_calls: int
    max_output_chars: int = 512
    chat_template_kwargs: dict[str, object] = field(default_factory=dict)
    protocol: ToolProtocol = FENCE
    max_failure_share: float = 0.02

    def __post_init__(self) -> None:
        if self.max_response_tokens < 1:
            raise ValueError(
                f"max_response_tokens is {self.max_response_tokens}; at least 1 is needed"
            )
        if self.max_calls < 0:
            raise ValueError(f"max_calls is {self.max_calls}; 0 or more is right")
        if self.max_output_chars < 2:
            raise ValueError(f"max_output_chars is {self.max_output_chars}; at least 2 are needed")


@dataclass
class EpisodeTimes:
    """Seconds spent, added up over the calls of `run_episodes` that were given this object."""

    generate: float = 0.0
    tools: float = 0.0


# Fewer failures than this are an accident, whatever their share of a small batch.
_FAILURES_THAT_COUNT = 3


class SandboxFailure(RuntimeError):
    """The sandbox, not the programs, failed: no reward computed from these episodes is right."""


class _CallStop:
    """Ends a turn where a call is complete."""

    def __init__(self, protocol: ToolProtocol) -> None:
        self.trigger = protocol.trigger
        self._protocol = protocol

    def __call__(self, text: str) -> bool:
        return self._protocol.find_call(text) is not None


class _Row:
    """One episode under way."""

    def __init__(self, prompt_ids: list[int]) -> None:
        self.prompt_ids = prompt_ids
        self.ids: list[int] = []
        self.mask: list[bool] = []
        self.logprobs: list[float] = []
        self.turns: list[Turn] = []
        self.results: list[ToolResult] = []
        self.append: list[int] = []
        self.finish: FinishReason | None = None

    def add(self, role: str, ids: list[int], logprobs: list[float], text: str) -> None:
        start = len(self.ids)
        self.ids += ids
        self.mask += [role == "assistant"] * len(ids)
        self.logprobs += logprobs
        self.turns.append(Turn(role, start, len(self.ids), text))  # type: ignore[arg-type]

    def trajectory(self) -> Trajectory:
        assert self.finish is not None
        return Trajectory(
            prompt_ids=self.prompt_ids,
            response_ids=self.ids,
            mask=self.mask,
            sampler_logprobs=self.logprobs,
            turns=self.turns,
            tool_results=self.results,
            finish_reason=self.finish,
        )


def run_episodes(
    generator: Generator,
    sandbox: Sandbox,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    settings: EpisodeSettings,
    *,
    temperature: float,
    seed: int,
    times: EpisodeTimes | None = None,
) -> list[Trajectory]:
    """Run one episode per prompt, all side by side, and return them in order.

    Each round samples every open episode up to its next call, its end or its budget, then runs all
    the round's programs concurrently and appends their outputs. Output tokens are masked: the
    policy did not choose them.

    Args:
        generator: The policy.
        sandbox: A started sandbox.
        tokenizer: The policy's tokenizer, with a chat template.
        prompts: Chat messages, one list per episode.
        settings: What an episode may use.
        temperature: Divides the logits; 0 takes the likeliest token.
        seed: Makes the sampling repeatable.
        times: Receives the seconds spent, if given.

    Raises:
        SandboxFailure: Too many programs failed in the sandbox itself: no grade of these episodes
            would mean anything.
    """
    times = times or EpisodeTimes()
    rows = [_Row(ids) for ids in _encode_prompts(tokenizer, prompts, settings)]
    session = generator.open([row.prompt_ids for row in rows], temperature=temperature, seed=seed)
    stop = _CallStop(settings.protocol)
    frame = _turn_frame(tokenizer, settings)
    while open_rows := [i for i, row in enumerate(rows) if row.finish is None]:
        started = time.perf_counter()
        sampled = session.generate(
            open_rows,
            [rows[i].append for i in open_rows],
            [settings.max_response_tokens - len(rows[i].ids) for i in open_rows],
            stop,
        )
        generated = time.perf_counter()
        calls: list[tuple[_Row, Call]] = []
        for i, turn in zip(open_rows, sampled, strict=True):
            _end_turn(rows[i], turn, tokenizer, settings, calls)
        _run_calls(calls, sandbox, tokenizer, settings, frame)
        times.generate += generated - started
        times.tools += time.perf_counter() - generated
    _check_sandbox(rows, settings)
    return [row.trajectory() for row in rows]


def _check_sandbox(rows: Sequence[_Row], settings: EpisodeSettings) -> None:
    results = [result for row in rows for result in row.results]
    failed = [result for result in results if result.status == "sandbox-failure"]
    if (
        len(failed) >= _FAILURES_THAT_COUNT
        and len(failed) / len(results) > settings.max_failure_share
    ):
        raise SandboxFailure(
            f"{len(failed)} of {len(results)} programs failed twice in the sandbox, not by "
            f"themselves, more than the allowed share of {settings.max_failure_share}; rewards "
            f"would be wrong. The last of them: {failed[-1].failure}. `ctpo doctor` tells what is "
            "missing"
        )


def _encode_prompts(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[Message]],
    settings: EpisodeSettings,
) -> list[list[int]]:
    # The answers to one problem come as equal prompts: encode each once.
    known: dict[str, list[int]] = {}
    encoded = []
    for messages in prompts:
        key = repr(messages)
        if key not in known:
            text = tokenizer.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=True,
                **settings.chat_template_kwargs,
            )
            known[key] = tokenizer.encode(text, add_special_tokens=False)
        encoded.append(list(known[key]))
    return encoded


def _end_turn(
    row: _Row,
    turn: Sampled,
    tokenizer: PreTrainedTokenizerBase,
    settings: EpisodeSettings,
    calls: list[tuple[_Row, Call]],
) -> None:
    """Book what a row sampled; a call to run goes to `calls`."""
    text = tokenizer.decode(turn.ids, skip_special_tokens=True)
    row.add("assistant", turn.ids, turn.logprobs, text)
    if turn.reason == "stop":
        call = settings.protocol.find_call(text)
        assert call is not None, "the stop rule held, so there is a call"
        if len(row.results) == settings.max_calls:
            row.finish = "calls"
        elif len(row.ids) >= settings.max_response_tokens:
            row.finish = "length"
        else:
            calls.append((row, call))
    else:
        row.finish = "answered" if turn.reason == "eos" else "length"


def _turn_frame(tokenizer: PreTrainedTokenizerBase, settings: EpisodeSettings) -> tuple[str, str]:
    """Return what the chat template puts before and behind a message between two policy turns.

    Empty where the protocol puts the output into the policy's own turn.
    """
    if settings.protocol.inline:
        return "", ""
    said, answered = "said-by-the-policy", "answered-by-the-tool"
    text = tokenizer.apply_chat_template(
        [
            {"role": "user", "content": "question"},
            {"role": "assistant", "content": said},
            {"role": "user", "content": answered},
        ],
        tokenize=False,
        add_generation_prompt=True,
        **settings.chat_template_kwargs,
    )
    if text.count(said) != 1 or text.count(answered) != 1:
        raise ValueError(
            f"the chat template does not show every turn as it is, which the protocol "
            f"{settings.protocol.name} needs; take fence"
        )
    before, after = text.split(said)[1].split(answered)
    return before, after


def _run_calls(
    calls: list[tuple[_Row, Call]],
    sandbox: Sandbox,
    tokenizer: PreTrainedTokenizerBase,
    settings: EpisodeSettings,
    frame: tuple[str, str],
) -> None:
    results = run_programs([call for _, call in calls], sandbox)
    for (row, call), (status, shown, failure) in zip(calls, results, strict=True):
        answer = settings.protocol.answer(
            shown, after=row.turns[-1].text, limit=settings.max_output_chars
        )
        text = frame[0] + answer + frame[1]
        ids = tokenizer.encode(text, add_special_tokens=False)
        row.results.append(ToolResult(call.code, status, answer, failure))
        # One token must be left for the policy to speak.
        if len(row.ids) + len(ids) >= settings.max_response_tokens:
            row.finish = "length"
            continue
        row.append = ids
        row.add("tool", ids, [0.0] * len(ids), text)
